//! `cancel` of a pool's job: in the queue, claimed by a node, or given back.

use std::process::Output;

use serde_json::{Value, json};

use super::{line_of, told};
use crate::support::nats::Nats;
use crate::support::program::Program;
use crate::support::world::World;

/// The program as a requester runs it, on this NATS server.
fn client(nats: &Nats, arguments: &[&str]) -> Output {
    Program::with(&[("NATS_URL", &nats.url())]).run(arguments).0
}

/// The exit code and the one JSON object that it printed.
#[track_caller]
fn answered(output: &Output) -> (i32, Value) {
    let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let value = serde_json::from_slice(stdout).unwrap_or_else(|_| panic!("no JSON: {stderr}"));
    (output.status.code().expect("no signal ended it"), value)
}

/// Submits a job to the pool `idle`, and returns its number in the queue.
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
    // `--seq` with the number of another job withdraws nothing.
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
        nats.put_claim(&format!("idle.{id}"), &value);
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

/// Claims to run the jobs in `args`, and answers every control request with `ok`.
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
    // With nothing to withdraw, the stranger's answer alone is no success.
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
    // It has left the pool, so that the job is not delivered to it again.
    let agent = world.agent(&settings);
    let line = line_of(&told(&world, &[]), "back").expect("it is in hand");
    assert!(line.contains("given back, or with another node"), "{line}");
    let address = World::agent_address().to_string();
    let output = world.command(&["cancel", "back", "--agent", &address]).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    agent.wait_for("job back is cancelled on request");
    assert_eq!(world.outcome("back").last().expect("a status")["stage"], "cancelled");
    // The job leaves the pool's queue, and the node that still has it in hand publishes the end.
    let output = world.command(&["cancel", "forgotten", "--pool", "cpu", "--json"]).output();
    let (code, answer) = answered(&output.expect("it runs"));
    assert_eq!((code, &answer["withdrawn"]), (0, &json!(true)), "{answer}");
    assert_eq!(world.outcome("forgotten").last().expect("a status")["stage"], "cancelled");
    world.wait_until_clean().await;
}
