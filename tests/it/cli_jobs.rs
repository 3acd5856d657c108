//! What an owner sees of a node's jobs: the real program beside a running node, and after its end.
//! What a requester who has changed their mind can do about a pool's.

use std::process::Output;

use serde_json::{Value, json};

use super::support::nats::Nats;
use super::support::tools::eventually;
use super::support::world::{PATIENCE, PROGRAM, World, shell};

/// A CID that nobody has.
const NOWHERE: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/// Runs `jobs` with these arguments as the node's owner does.
fn jobs(world: &World, arguments: &[&str]) -> Output {
    let arguments: Vec<&str> = ["jobs"].iter().chain(arguments).copied().collect();
    world.command(&arguments).output().expect("it runs")
}

/// What it prints, without a control character but line ends.
#[track_caller]
fn told(world: &World, arguments: &[&str]) -> String {
    let output = jobs(world, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    text
}

/// The line about a job; `None` where there is none.
fn line_of(text: &str, id: &str) -> Option<String> {
    text.lines().find(|line| line.split(' ').nth(1) == Some(id)).map(str::to_owned)
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn object(world: &World, id: &str) -> Value {
    objects(&told(world, &[id, "--json"])).remove(0)
}

#[tokio::test]
async fn an_owner_sees_what_each_job_waits_for_and_what_to_do() {
    let world = World::start().await;
    let mut agent = world.agent(&[("FETCH_GIVE_UP_S", "600")]);
    world.publish("failing", &shell("echo why >&2; exit 3"));
    world.outcome("failing");
    world.publish("runs", &shell("sleep 600"));
    world.publish("waits", &json!({"input_file_cid": NOWHERE}));
    agent.wait_for("job runs: running");
    let waits = eventually("the trouble is shown", PATIENCE, || {
        let line = line_of(&told(&world, &[]), "waits")?;
        line.contains("did not work 2 times").then_some(line)
    });
    assert!(waits.contains("fetching the inputs (attempt 1, from dispatch.0x"), "{waits}");
    assert!(waits.contains("(input_unavailable); the next try is at 2"), "{waits}");

    let open = told(&world, &[]);
    assert!(line_of(&open, "runs").is_some_and(|line| line.contains(" running, until ")), "{open}");
    assert_eq!(line_of(&open, "failing"), None, "what is done is not in hand");
    let all = told(&world, &["--all"]);
    let newest_first: Vec<&str> = all.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(newest_first, ["waits", "runs", "failing"]);
    assert!(all.contains("failing failed (attempt 1"), "{all}");
    let short = jobs(&world, &["--all", "--limit", "1"]);
    let said = String::from_utf8_lossy(&short.stderr);
    assert!(said.contains("2 older ones are not shown"), "{said}");

    // What repeats itself is one line, however often it does.
    let waits = told(&world, &["waits"]);
    assert_eq!(waits.matches("did not work: ").count(), 1, "{waits}");
    assert!(waits.contains(" times in ") && waits.contains("IPFS_GATEWAYS"), "{waits}");

    agent.kill();
    let failing = told(&world, &["failing"]);
    for part in [
        "job failing: failed, since ",
        "image      busybox:test",
        "the image is here",
        "ended with exit code 3",
        " 1 accepted    published",
        "failed      published",
        "`lamda-node receipt show failing`",
        "ended      failed, exit code 3",
        "why        the command ended with exit code 3",
        "reason     nonzero_exit: The command ended with another exit code than 0.",
        "to do      The requester has to look at what the job wrote",
    ] {
        assert!(failing.contains(part), "{part:?} is not in:\n{failing}");
    }
    let told = object(&world, "failing");
    let log = told["log_cid"].as_str().expect("a log");
    assert_eq!(world.content(log).await, b"why\n");
    assert!(failing.contains(&format!("log        {log}")), "{failing}");
    let reason = (&told["phase"], &told["outcome"], &told["reason_code"], &told["open"]);
    let expected = (&json!("settled"), &json!("failed"), &json!("nonzero_exit"), &json!(false));
    assert_eq!(reason, expected, "{told}");
    let events: Vec<_> = told["events"].as_array().expect("events").iter().collect();
    assert_eq!(events[0]["event"], "pulled");
    assert_eq!(events.last().expect("events")["event"], "acked");
    let seqs: Vec<_> = told["statuses"].as_array().expect("statuses").iter().collect();
    assert!(seqs.iter().enumerate().all(|(i, said)| said["seq"] == i + 1), "{told}");
    assert_eq!((&told["has_receipt"], &told["lost"]), (&json!(true), &json!(0)));
    let waits = object(&world, "waits");
    assert_eq!(waits["trouble"]["reason_code"], "input_unavailable");
    assert!(waits["trouble"]["failures"].as_u64() >= Some(2), "{waits}");
    assert!(waits.get("outcome").is_none() && waits.get("deadline").is_none(), "{waits}");
}

#[tokio::test]
async fn what_strangers_wrote_can_not_rewrite_the_terminal() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let escape = "\u{1b}[2J\u{9b}1mevil\r\n";
    world.publish("strange", &json!({"image_name": format!("busybox:test{escape}")}));
    world.publish("unclean", &{
        let mut job = shell("true");
        (job["gpus"], job["gpu_model"]) = (0.into(), escape.into());
        job
    });
    for (id, reason) in [("strange", "image_invalid"), ("unclean", "output_missing")] {
        let statuses = world.outcome(id);
        assert_eq!(statuses.last().expect("a status")["reason_code"], reason);
        // `told` looks for control characters.
        let (one, all) = (told(&world, &[id]), told(&world, &["--all"]));
        assert!(one.contains("evil"), "{one}");
        assert!(line_of(&all, id).is_some_and(|line| line.contains(reason)), "{all}");
        let object = object(&world, id);
        assert!(object["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "{object}");
    }
    let refused = object(&world, "strange");
    assert_eq!((&refused["phase"], &refused["uses_id_up"]), (&json!("rejected"), &json!(true)));
}

#[test]
fn a_job_that_nobody_knows_and_a_folder_without_a_journal_are_told_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(arguments).current_dir(dir.path()).env_clear().env("DATA_DIR", dir.path());
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (code, said) = run(&["jobs"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no journal in"), "{said}");
    drop(lamda_node::journal::Journal::open(dir.path()).expect("a journal"));
    let (code, said) = run(&["jobs"]);
    assert_eq!((code, said.contains("no job is in hand")), (Some(0), true), "{said}");
    let (code, said) = run(&["jobs", "unheard-of"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("knows no job unheard-of"), "{said}");
    assert_eq!(run(&["jobs", "--all", "one"]).0, Some(64));
}

/// The program as a requester runs it, on this NATS server.
fn client(nats: &Nats, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(PROGRAM);
    command.args(arguments).current_dir("/").env_clear().env("NATS_URL", nats.url());
    command.stdin(std::process::Stdio::null()).output().expect("it runs")
}

/// Its exit code and what it printed as one JSON object.
#[track_caller]
fn answered(output: &Output) -> (i32, Value) {
    let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let value = serde_json::from_slice(stdout).unwrap_or_else(|_| panic!("no JSON: {stderr}"));
    (output.status.code().expect("no signal ended it"), value)
}

/// Submits a job to the pool `idle`; its number in the queue.
fn submit_idle(nats: &Nats, id: &str) -> u64 {
    let arguments = ["submit", "--image", "i", "--pool", "idle", "--job-id", id, "--json"];
    let (code, submitted) = answered(&client(nats, &arguments));
    assert_eq!((code, &submitted["event"]), (0, &json!("submitted")));
    submitted["stream_seq"].as_u64().expect("a number")
}

/// The jobs in the queue with their numbers, as nats-py reads them.
fn queue(nats: &Nats) -> Vec<(u64, String)> {
    let script = "
for n in range(1, (await js.stream_info('JOBS')).state.last_seq + 1):
    try:
        print(n, json.loads((await js.get_msg('JOBS', n)).data)['job_id'])
    except nats.js.errors.NotFoundError:
        pass";
    let said = nats.python(script, &[]);
    let pairs = said.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(n, id)| (n.parse().expect("a number"), id.to_owned())).collect()
}

#[test]
fn a_pools_job_that_nobody_has_is_taken_out_of_the_queue_and_no_other() {
    let nats = Nats::start();
    for (at, id) in (1..).zip(["one", "two", "three", "four"]) {
        assert_eq!(submit_idle(&nats, id), at);
    }
    let cancel = |id: &str, more: &[&str]| {
        let arguments = ["cancel", id, "--pool", "idle", "--json"];
        answered(&client(&nats, &[&arguments, more].concat()))
    };
    let withdrawn = |seq: u64| (0, json!({"ok": true, "withdrawn": true, "stream_seq": seq}));
    assert_eq!(cancel("two", &[]), withdrawn(2));
    // The number of another job is not believed.
    let (code, refused) = cancel("three", &["--seq", "4"]);
    assert_eq!((code, &refused["reason_code"]), (1, &json!("unknown_job")), "{refused}");
    let left = |all: &[(u64, &str)]| {
        let all: Vec<_> = all.iter().map(|(n, id)| (*n, (*id).to_owned())).collect();
        assert_eq!(queue(&nats), all);
    };
    left(&[(1, "one"), (3, "three"), (4, "four")]);
    assert_eq!(cancel("three", &["--seq", "3"]), withdrawn(3));
    let (code, unknown) = cancel("two", &[]);
    assert_eq!((code, &unknown["reason_code"]), (1, &json!("unknown_job")), "{unknown}");
    left(&[(1, "one"), (4, "four")]);
    let text = client(&nats, &["cancel", "four", "--pool", "idle"]);
    let said = String::from_utf8_lossy(&text.stdout);
    assert_eq!(said, "ok: job four is taken out of the queue; no node had it\n");
}

#[test]
fn a_pools_job_is_left_to_whom_its_claim_names() {
    let nats = Nats::start();
    for id in ["held", "done", "free"] {
        submit_idle(&nats, id);
    }
    let agent = World::agent_address().to_string();
    let claim = |id: &str, state: &str, seq: u64| {
        let value = json!({
            "agent": agent, "state": state, "stream_seq": seq, "delivered": 1,
            "spec_hash": format!("0x{}", "00".repeat(32)), "at": "2026-11-22T12:00:00.000Z",
        });
        let script = "
try:
    kv = await js.key_value('JOB_CLAIMS')
except nats.js.errors.BucketNotFoundError:
    kv = await js.create_key_value(bucket='JOB_CLAIMS')
await kv.put(args[0], args[1].encode())";
        nats.python(script, &[&format!("idle.{id}"), &value.to_string()]);
    };
    claim("held", "claimed", 1);
    claim("done", "done", 2);
    claim("free", "refused", 3);
    let cancel = |id: &str| client(&nats, &["cancel", id, "--pool", "idle", "--json"]);
    let held = cancel("held");
    let said = String::from_utf8_lossy(&held.stderr);
    assert_eq!(held.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{agent} has job held")) && said.contains("does not listen"));
    let (code, done) = answered(&cancel("done"));
    assert_eq!((code, &done["reason_code"]), (1, &json!("too_late")), "{done}");
    let (code, free) = answered(&cancel("free"));
    assert_eq!((code, &free["stream_seq"]), (0, &json!(3)), "{free}");
    assert_eq!(queue(&nats), [(1, "held".to_owned()), (2, "done".to_owned())]);
}

/// Somebody who says that a job runs with him, and answers `ok` to whatever he is asked.
const PRETENDER: &str = "
agent = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'
async def answer(message):
    await nc.publish(message.reply, b'{\"ok\":true}')
await nc.subscribe('jobs.control.' + agent, cb=answer)
for job in args:
    said = {'agent_address': agent, 'job_id': job, 'status': 'processing', 'stage': 'running',
            'timestamp': '2026-11-22T12:00:05.120Z', 'seq': 1, 'attempt': 1}
    await js.publish(f'jobs.status.{agent}.{job}', json.dumps(said).encode())
print('listens')
await asyncio.sleep(600)";

#[test]
fn a_stranger_who_says_that_he_cancelled_a_pools_job_keeps_it_in_no_queue() {
    let nats = Nats::start();
    let withdrawn = submit_idle(&nats, "queued");
    submit_idle(&nats, "other");
    let mut stranger = nats.python_beside(PRETENDER, &["queued", "elsewhere"]);
    assert_eq!(stranger.line(), "listens");
    let cancel = |id: &str| client(&nats, &["cancel", id, "--pool", "idle", "--json"]);
    let (code, answer) = answered(&cancel("queued"));
    assert_eq!((code, &answer["withdrawn"]), (0, &json!(true)), "{answer}");
    assert_eq!((&answer["stream_seq"], &answer["asked"]["ok"]), (&json!(withdrawn), &json!(true)));
    assert_eq!(queue(&nats), [(2, "other".to_owned())]);
    // Where there is nothing to withdraw, his word alone is no success.
    let (code, answer) = answered(&cancel("elsewhere"));
    assert_eq!((code, &answer["reason_code"]), (1, &json!("unknown_job")), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("no claim says so")));
}

#[tokio::test]
async fn a_pools_job_that_runs_is_cancelled_by_the_node_that_has_it() {
    let world = World::start().await;
    let agent = world.agent(&[("AGENT_POOLS", "cpu")]);
    let arguments = ["--image", "busybox:test", "--pool", "cpu", "--job-id", "pooled"];
    let submit = [&["submit"], &arguments[..], &["--unsigned", "--", "sleep", "600"]].concat();
    assert!(world.command(&submit).status().expect("it runs").success());
    agent.wait_for("job pooled: running");
    let output = world.command(&["cancel", "pooled", "--pool", "cpu"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok: job pooled is cancelled\n");
    assert_eq!(world.outcome("pooled").last().expect("a status")["stage"], "cancelled");
    world.wait_until_clean().await;
    let again = world.command(&["cancel", "pooled", "--pool", "cpu", "--json"]).output();
    let (code, again) = answered(&again.expect("it runs"));
    assert_eq!((code, &again["reason_code"]), (1, &json!("too_late")), "{again}");
}

#[tokio::test]
async fn a_job_that_a_node_gave_back_can_still_be_cancelled() {
    let world = World::start().await;
    let settings = [("SHUTDOWN_GRACE_S", "0"), ("JOB_STOP_GRACE_S", "1")];
    let mut agent = world.agent(&[&settings[..], &[("AGENT_POOLS", "cpu")]].concat());
    for id in ["back", "forgotten"] {
        let job = ["--image", "busybox:test", "--pool", "cpu", "--job-id", id, "--unsigned"];
        let submit = [&["submit"], &job[..], &["--", "sleep", "600"]].concat();
        assert!(world.command(&submit).status().expect("it runs").success());
        agent.wait_for(&format!("job {id}: running"));
    }
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    // It left the pool meanwhile, so that the job does not come back to it.
    let agent = world.agent(&settings);
    let line = line_of(&told(&world, &[]), "back").expect("it is in hand");
    assert!(line.contains("given back, or with another node"), "{line}");
    let address = World::agent_address().to_string();
    let output = world.command(&["cancel", "back", "--agent", &address]).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    agent.wait_for("job back is cancelled on request");
    assert_eq!(world.outcome("back").last().expect("a status")["stage"], "cancelled");
    // Out of the pool's queue, and the node that remembers it says the end.
    let output = world.command(&["cancel", "forgotten", "--pool", "cpu", "--json"]).output();
    let (code, answer) = answered(&output.expect("it runs"));
    assert_eq!((code, &answer["withdrawn"]), (0, &json!(true)), "{answer}");
    assert_eq!(world.outcome("forgotten").last().expect("a status")["stage"], "cancelled");
    world.wait_until_clean().await;
}
