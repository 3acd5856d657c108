//! A stranger on the NATS server, who may publish what he likes under his own name or under any, and
//! what a requester comes to believe. The stranger is nats-py: nothing of ours holds him back.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lamda_node::bus::{Bus, Config, Credentials, DeliveryMode, MessageIds, Target};
use lamda_node::chain::Key;
use lamda_node::clock::Timestamp;
use lamda_node::ids::{Address, Cid, Domain, Hash, Signature};
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::job::{Receipt, Status};
use lamda_node::secret::Secret;
use serde_json::{Value, json};

use super::cli::{ACCOUNT, Network, Program, events};
use super::support::anvil::{Anvil, CHAIN_ID};
use super::support::nats::Nats;
use super::support::rpc_proxy::{RpcProxy, Weather};
use super::support::tools::{Running, eventually};

const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// Whose name the stranger publishes under.
const STRANGER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// Publishes to a subject under each of these ids.
const SQUAT: &str = "
for id in args[1:]:
    await js.publish(args[0], b'squatted', headers={'Nats-Msg-Id': id})";

async fn connect(nats: &Nats) -> Bus {
    let config = Config {
        url: nats.url(),
        credentials: Credentials::None,
        tls_ca: None,
        tls_first: false,
        name: "test".to_owned(),
        inbox_prefix: None,
        manage_streams: true,
        mode: DeliveryMode::JetStream,
    };
    let bus = Bus::connect(&config).await.expect("the server is there");
    bus.prepare().await.expect("streams");
    bus
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_id_a_stranger_used_first_is_sent_under_another() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let agent = ACCOUNT.parse().expect("an address");
    let target = Target::Agent(agent);
    nats.python(SQUAT, &[&format!("jobs.dispatch.{STRANGER}"), "guessed"]);
    let published = bus.publish_job(&target, "job".into(), "guessed").await.expect("published");
    assert!(!published.duplicate, "{published:?}");
    // Its own repeat is known again, also under the id that is not in the stranger's hands.
    let told = nats.python(
        "m = await js.get_msg('JOBS', int(args[0]))\nprint(m.subject, m.data.decode())",
        &[&published.stream_seq.expect("a number").to_string()],
    );
    assert_eq!(told, format!("jobs.dispatch.{ACCOUNT} job"));

    // Where an id became known, as by a publish that was heard and not stored, it is no use either.
    let ids = MessageIds::new(Secret::new("the key of this test"));
    let job = "learned".parse().expect("an id");
    bus.publish_status(&ids, agent, &job, 1, "x".into()).await.expect("published");
    let id = nats.python("print((await js.get_msg('STATUS', 1)).headers['Nats-Msg-Id'])", &[]);
    nats.python(
        "await js.delete_stream('STATUS')\n\
         await js.add_stream(name='STATUS', subjects=['jobs.status.*.*'])",
        &[],
    );
    nats.python(SQUAT, &[&format!("jobs.status.{STRANGER}.other"), &id]);
    for _ in 0..2 {
        bus.publish_status(&ids, agent, &job, 1, "x".into()).await.expect("published");
    }
    let told = nats.python(
        "for n in range(1, (await js.stream_info('STATUS')).state.messages + 1):\n    \
             m = await js.get_msg('STATUS', n)\n    \
             print(m.subject, m.data.decode())",
        &[],
    );
    let ours = format!("jobs.status.{ACCOUNT}.learned x");
    assert_eq!(told, format!("jobs.status.{STRANGER}.other squatted\n{ours}"));
}

#[test]
fn a_stranger_who_guesses_a_jobs_ids_suppresses_none_of_its_statuses() {
    let network = Network::start();
    let program = &network.program;
    let first = program.run(&["submit", "--image", "img", "--job-id", "before", "--follow"]);
    first.succeeds();
    let ids: Vec<String> = (1..=8).map(|seq| format!("{ACCOUNT}:quiet:{seq}")).collect();
    let subject = format!("jobs.status.{STRANGER}.mine");
    let args: Vec<&str> =
        std::iter::once(subject.as_str()).chain(ids.iter().map(String::as_str)).collect();
    network.nats.python(SQUAT, &args);
    let args = ["submit", "--image", "img", "--job-id", "quiet", "--follow", "--json"];
    let told = program.run(&args).succeeds().objects();
    let stages: Vec<&str> = events(&told, "status")
        .into_iter()
        .filter_map(|event| event["status"]["stage"].as_str())
        .collect();
    assert_eq!(stages.first(), Some(&"accepted"));
    assert_eq!(stages.last(), Some(&"completed"));
}

/// Whoever has this key, a node or not, saying something of a job as nodes do.
pub(crate) struct Speaker {
    key: Key,
    domain: Domain,
}

impl Speaker {
    pub(crate) fn new(key: Key, domain: Domain) -> Self {
        Self { key, domain }
    }

    fn sign(&self, digest: Hash) -> Signature {
        Signature(self.key.sign_digest(&digest.0))
    }

    /// A status with these keys, signed by this key under whatever address it names.
    pub(crate) fn status(&self, job: &str, seq: u64, stage: &str, more: &Value) -> Value {
        let mut body = json!({
            "agent_address": self.key.address(), "job_id": job, "status": stage, "stage": stage,
            "timestamp": "2026-11-22T12:00:05.120Z", "seq": seq, "attempt": 1,
        });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        let (mut status, _) = Status::read(body.to_string().as_bytes()).expect("a status");
        status.sign(self.domain, |digest| self.sign(digest));
        serde_json::to_value(&status).expect("JSON")
    }

    /// A flawless end of a job that completed, for whoever takes this key for a node's.
    fn completed(&self, job: &str, seq: u64, spec_hash: Hash) -> Value {
        let cid: Cid = CID.parse().expect("a CID");
        let (id, at) = (job.parse().expect("an id"), Timestamp::from_unix_ms(1));
        let facts = Facts {
            image_digest: "sha256:ab",
            gpus: &[],
            input: None,
            output: Some(&cid),
            exit_code: 0,
            ran: (at, at),
        };
        let receipt = Receipt::new(id, self.key.address(), spec_hash, facts);
        let signature = self.sign(receipt.digest(&self.domain));
        let receipt = Signed { domain: self.domain, receipt, signature }.to_json();
        let more = json!({"output_cid": CID, "exit_code": 0, "receipt": receipt});
        self.status(job, seq, "completed", &more)
    }

    /// A claim that this key's node has ended a pool's job.
    fn claim(&self, nats: &Nats, pool: &str, job: &str, spec_hash: Hash) {
        self.claim_as("done", nats, (pool, job), spec_hash);
    }

    fn claim_as(&self, state: &str, nats: &Nats, (pool, job): (&str, &str), spec_hash: Hash) {
        let claim = json!({
            "agent": self.key.address(), "state": state, "stream_seq": 1, "delivered": 1,
            "attempt": 1, "starts": 1, "spec_hash": spec_hash, "at": "2026-11-22T12:00:00.000Z",
        });
        let script = "
try:
    kv = await js.key_value('JOB_CLAIMS')
except nats.js.errors.BucketNotFoundError:
    kv = await js.create_key_value(bucket='JOB_CLAIMS')
await kv.put(args[0], args[1].encode())";
        nats.python(script, &[&format!("{pool}.{job}"), &claim.to_string()]);
    }
}

/// Publishes statuses on the subject of the agent and the job that they name, whoever that is.
pub(crate) fn say(nats: &Nats, statuses: &[&Value]) {
    let texts: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    nats.python(
        "for body in args:\n    \
             said = json.loads(body)\n    \
             await js.publish(f\"jobs.status.{said['agent_address']}.{said['job_id']}\", body.encode())",
        &texts,
    );
}

pub(crate) fn without_chain() -> Domain {
    Domain { chain_id: 31337, contract: Address::new([3; 20]) }
}

/// A node and a stranger on a server with streams, and somebody who looks on.
async fn onlooker() -> (Nats, Program, Speaker, Speaker) {
    let nats = Nats::start();
    connect(&nats).await;
    let program = Program::with(&[("NATS_URL", &nats.url())]);
    let node = Speaker::new(Anvil::key(1), without_chain());
    (nats, program, node, Speaker::new(Key::random(), without_chain()))
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_believes_no_end_that_the_jobs_node_did_not_sign() {
    let (nats, program, node, stranger) = onlooker().await;
    let address = node.key.address().to_string();
    let watch = |more: &[&str]| program.run(&[&["watch", "job-1"], more].concat());
    // Under the node's name with the stranger's signature, unsigned, and under his own name.
    let mut under_its_name = stranger.completed("job-1", 4, Hash([2; 32]));
    under_its_name["agent_address"] = json!(address);
    let mut unsigned = under_its_name.clone();
    unsigned.as_object_mut().expect("an object").remove("signature");
    let his = stranger.completed("job-1", 4, Hash([2; 32]));
    say(&nats, &[&under_its_name, &unsigned, &his]);
    let ended = watch(&["--agent", &address]);
    assert_eq!(ended.code(), 3, "{}", ended.both());
    for why in ["its signature is not that of the node it names", "it carries no signature"] {
        assert!(ended.stderr().contains(&format!("not verified: {why}")), "{}", ended.both());
    }
    // Whose job it is, nobody has told.
    let ended = watch(&[]);
    assert_eq!(ended.code(), 3, "{}", ended.both());
    assert!(ended.stderr().contains("name its --agent or its --pool"), "{}", ended.both());

    // A number that leaves none above it, and the largest that is one, unsigned: they blind nobody.
    let running = |seq: u64| {
        json!({
            "agent_address": address, "job_id": "job-1", "status": "processing",
            "timestamp": "2026-11-22T12:00:05.120Z", "seq": seq, "attempt": 1, "stage": "running",
        })
    };
    let genuine = node.completed("job-1", 5, Hash([2; 32]));
    say(&nats, &[&running(u64::MAX), &running(1 << 53), &genuine]);
    let ended = watch(&["--agent", &address, "--json"]).succeeds();
    assert_eq!(ended.objects().last(), Some(&genuine), "{}", ended.both());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_whose_receipt_is_due_and_missing_or_wrong_is_not_verified() {
    let (nats, program, node, _) = onlooker().await;
    let address = node.key.address().to_string();
    let bare =
        node.status("bare", 3, "failed", &json!({"exit_code": 3, "duration_ms": {"run": 5}}));
    let mut other = node.completed("other", 3, Hash([2; 32]));
    other["receipt"]["message"]["exitCode"] = json!(1);
    let other = node.status("other", 3, "completed", &other);
    let early = node.status("early", 3, "cancelled", &json!({"reason_code": "cancelled"}));
    say(&nats, &[&bare, &other, &early]);
    for (job, why) in [
        ("bare", "receipt: its container was started, so it must have a receipt, and has none"),
        ("other", "receipt: its signature is not that of the node it names"),
    ] {
        let ended = program.run(&["watch", job, "--agent", &address]);
        assert_eq!(ended.code(), 3, "{}", ended.both());
        assert!(ended.stderr().contains(&format!("not verified: {why}")), "{}", ended.both());
    }
    let ended = program.run(&["watch", "early", "--agent", &address]);
    assert_eq!((ended.code(), ended.stderr()), (1, String::new()), "none is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_word_that_a_job_has_ended_does_not_keep_it_in_the_queue() {
    let (nats, program, node, stranger) = onlooker().await;
    for job in ["idle", "over"] {
        program.run(&["submit", "--image", "img", "--pool", "p", "--job-id", job]).succeeds();
    }
    say(&nats, &[&stranger.completed("idle", 9, Hash([2; 32]))]);
    node.claim(&nats, "p", "over", Hash([2; 32]));
    let over = program.run(&["cancel", "over", "--pool", "p"]);
    assert!(over.code() == 1 && over.stderr().contains("too_late"), "{}", over.both());
    let idle = program.run(&["cancel", "idle", "--pool", "p"]).succeeds().stdout();
    assert!(idle.contains("is taken out of the queue"), "{idle}");
}

#[test]
fn a_signed_end_is_checked_offline_and_whatever_is_changed_in_it_is_noticed() {
    let program = Program::with(&[]);
    let node = Speaker::new(Anvil::key(1), without_chain());
    let refused = json!({"reason_code": "no_gpu", "error": "no GPU here"});
    let refused = node.status("job-1", 1, "rejected", &refused);
    let completed = node.completed("job-1", 5, Hash([2; 32]));
    let verify = |status: &Value| {
        let file = program.path("end.json");
        std::fs::write(&file, status.to_string()).expect("a file");
        program.run(&["verify", &file])
    };
    let told = verify(&refused).succeeds().stdout();
    let node = node.key.address();
    assert!(told.starts_with(&format!("valid: {node} signed this end of job job-1")), "{told}");
    assert!(!verify(&completed).succeeds().stdout().contains("NOT SIGNED"));
    for (end, key, value) in [
        (&refused, "error", json!("another reason")),
        (&refused, "reason_code", json!("no_node_fits")),
        (&completed, "log_cid", json!(CID)),
        (&completed, "attempt", json!(2)),
    ] {
        let mut changed = end.clone();
        changed[key] = value;
        let ended = verify(&changed);
        let told = ended.stdout();
        assert_eq!(ended.code(), 1, "{key}: {told}");
        assert!(told.contains("NOT VALID: the status: its signature is not"), "{key}: {told}");
    }
    // As nodes sent them before they signed.
    let mut old = completed.clone();
    old.as_object_mut().expect("an object").remove("signature");
    assert!(verify(&old).succeeds().stdout().contains("the status around it is NOT SIGNED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_end_of_a_pools_job_is_passed_over_until_its_node_speaks() {
    let (nats, anvil) = (Nats::start(), Anvil::start());
    let contract = anvil.deploy().await;
    let (to, call) = (contract.to_string(), "registerNode(string,uint256)");
    anvil.cast(&["send", &to, call, "GPU", "1", "--private-key", Anvil::key_hex(1)]);
    let domain = Domain { chain_id: CHAIN_ID, contract };
    let node = Speaker::new(Anvil::key(1), domain);
    let stranger = Speaker::new(Key::random(), domain);
    let program = Program::with(&[
        ("NATS_URL", &nats.url()),
        ("OPBNB_RPC_URL", &anvil.rpc_url),
        ("REPUTATION_CONTRACT_ADDRESS", &contract.to_string()),
        ("CHAIN_ID", &CHAIN_ID.to_string()),
    ]);
    let args = ["submit", "--image", "img", "--pool", "p", "--job-id", "j", "--follow", "--json"];
    let mut submit = Running::start(program.command(&args).stdout(Stdio::piped()));
    let mut lines = BufReader::new(submit.0.stdout.take().expect("piped")).lines();
    let mut told = move |event: &str| {
        let line = lines.next().expect("it goes on").expect("UTF-8");
        let object: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(object["event"], event, "{object}");
        object
    };
    let spec_hash: Hash = serde_json::from_value(told("submitted")["spec_hash"].clone())
        .expect("the hash of what was asked for");
    let mut doubted = |why: &str| {
        let object = told("unverified");
        let problem = object["problem"].as_str().expect("a problem");
        assert!(problem.contains(why), "{problem}");
        object
    };
    // With a fresh key: flawless in itself.
    say(&nats, &[&stranger.completed("j", 1, spec_hash)]);
    doubted("has not claimed the job");
    // While the job lies in the queue nobody has refused it for all.
    say(&nats, &[&stranger.status("j", 2, "rejected", &json!({"reason_code": "no_gpu"}))]);
    doubted("which is still in the queue");
    // Who may write claims, too, is still no node of the network.
    stranger.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&stranger.completed("j", 3, spec_hash)]);
    doubted("is no active node for the contract");
    node.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&stranger.completed("j", 4, spec_hash), &node.completed("j", 4, spec_hash)]);
    doubted("has the job in the pool, not");
    let genuine = told("status");
    assert_eq!(genuine["status"]["agent_address"], node.key.address().to_string());
    assert_eq!(told("receipt")["valid"], true);
    assert_eq!(told("result")["status"], "completed");
    let ended = eventually("submit ends", Duration::from_secs(20), || {
        submit.0.try_wait().expect("it can be waited for")
    });
    assert_eq!(ended.code(), Some(0));
}

/// Ctrl-C.
fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
}

fn ends(running: &mut Running, limit: Duration) -> ExitStatus {
    let child = &mut running.0;
    eventually("it ends", limit, || child.try_wait().expect("it can be waited for"))
}

/// Rejections of a job by so many strangers, each with a key of its own.
fn rejections(job: &str, count: u64) -> Vec<Value> {
    let refused = json!({"reason_code": "no_gpu"});
    let stranger = || Speaker::new(Key::random(), without_chain());
    (1..=count).map(|seq| stranger().status(job, seq, "rejected", &refused)).collect()
}

/// Each is tried for five seconds before it is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_rejects_a_job_holds_up_neither_its_end_nor_who_wants_to_go() {
    let (nats, program, node, _) = onlooker().await;
    program.run(&["submit", "--image", "img", "--pool", "p", "--job-id", "j"]).succeeds();
    let forged = rejections("j", 50);
    say(&nats, &forged.iter().collect::<Vec<_>>());
    let hash = Hash([2; 32]);
    for command in ["watch", "logs"] {
        let mut command = program.command(&[command, "j", "--pool", "p"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut impatient = Running::start(&mut command);
        let mut first = String::new();
        let said = impatient.0.stderr.as_mut().expect("piped");
        BufReader::new(said).read_line(&mut first).expect("it doubts one");
        assert!(first.contains("which is still in the queue"), "{first}");
        interrupt(&impatient.0);
        assert_eq!(ends(&mut impatient, Duration::from_secs(3)).code(), Some(130));
    }

    let args = ["watch", "j", "--pool", "p", "--json"];
    let mut watch = Running::start(program.command(&args).stdout(Stdio::piped()));
    let mut lines = BufReader::new(watch.0.stdout.take().expect("piped")).lines();
    for _ in 0..forged.len() {
        lines.next().expect("each is shown").expect("UTF-8");
    }
    node.claim(&nats, "p", "j", hash);
    let told = Instant::now();
    say(&nats, &[&node.completed("j", 3, hash)]);
    assert_eq!(ends(&mut watch, Duration::from_secs(20)).code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_forged_end_of_a_job_that_runs_ends_no_watching() {
    let (nats, program, node, stranger) = onlooker().await;
    let hash = Hash([2; 32]);
    node.claim_as("claimed", &nats, ("p", "j"), hash);
    say(&nats, &[&stranger.completed("j", 1, hash)]);
    let address = node.key.address().to_string();
    let following = [
        ["watch", "j", "--pool", "p"],
        ["watch", "j", "--agent", &address],
        ["logs", "j", "--pool", "p"],
        ["logs", "j", "--agent", &address],
    ];
    let mut following: Vec<Running> = following
        .iter()
        .map(|args| Running::start(program.command(args).stderr(Stdio::piped())))
        .collect();
    // Whoever was asked by its name is shown nobody else's word.
    for running in following.iter_mut().step_by(2) {
        let mut first = String::new();
        let said = running.0.stderr.as_mut().expect("piped");
        BufReader::new(said).read_line(&mut first).expect("it doubts one");
        assert!(first.contains(&format!("{address} has the job in the pool")), "{first}");
    }
    // Longer than an end that can be believed is waited for.
    let begun = Instant::now();
    eventually("they go on", Duration::from_secs(20), || {
        for running in &mut following {
            assert_eq!(running.0.try_wait().expect("it can be waited for"), None);
        }
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    node.claim(&nats, "p", "j", hash);
    say(&nats, &[&node.status("j", 2, "cancelled", &json!({"reason_code": "cancelled"}))]);
    let codes: Vec<_> =
        following.iter_mut().map(|one| ends(one, Duration::from_secs(20)).code()).collect();
    assert_eq!(codes, [Some(1), Some(1), Some(0), Some(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_lines_keeps_no_status_back() {
    let (nats, program, node, _) = onlooker().await;
    let flood = "
line = json.dumps({'seq': 1, 'stream': 'stdout', 'line': 'junk'}).encode()
for batch in range(10**9):
    for n in range(2000):
        await nc.publish(f'jobs.logs.{args[0]}.j', line)
    await nc.flush()
    if batch == 0:
        print('begins')";
    let trickle = "
line = json.dumps({'seq': 1, 'stream': 'stdout', 'line': 'junk'}).encode()
while True:
    await nc.publish(f'jobs.logs.{args[0]}.j', line)
    await asyncio.sleep(0.02)";
    let mut program = program;
    program.set("AGENT_ADDRESS", &node.key.address().to_string());
    let mut logs = Running::start(program.command(&["logs", "j"]).stdout(Stdio::piped()));
    let mut out = logs.0.stdout.take().expect("piped");
    let mut first = [0; 4];
    let trickling = nats.python_beside(trickle, &[STRANGER]);
    out.read_exact(&mut first).expect("a line is shown");
    drop(trickling);
    let mut floods: Vec<_> = (0..2).map(|_| nats.python_beside(flood, &[STRANGER])).collect();
    for flood in &mut floods {
        assert_eq!(flood.line(), "begins");
    }
    let read = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    say(&nats, &[&node.status("j", 2, "cancelled", &json!({"reason_code": "cancelled"}))]);
    assert_eq!(ends(&mut logs, Duration::from_secs(20)).code(), Some(0));
    drop(floods);
    read.join().expect("it is read").expect("to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_does_not_answer_holds_an_end_back_until_it_does() {
    let (nats, anvil) = (Nats::start(), Anvil::start());
    let contract = anvil.deploy().await;
    let (to, call) = (contract.to_string(), "registerNode(string,uint256)");
    anvil.cast(&["send", &to, call, "GPU", "1", "--private-key", Anvil::key_hex(1)]);
    let domain = Domain { chain_id: CHAIN_ID, contract };
    let node = Speaker::new(Anvil::key(1), domain);
    let proxy = RpcProxy::start(&anvil.rpc_url);
    let program = Program::with(&[
        ("NATS_URL", &nats.url()),
        ("OPBNB_RPC_URL", proxy.url()),
        ("REPUTATION_CONTRACT_ADDRESS", &contract.to_string()),
        ("CHAIN_ID", &CHAIN_ID.to_string()),
    ]);
    proxy.set(Weather::Status(500, None));
    let args = ["submit", "--image", "img", "--pool", "p", "--job-id", "j", "--follow", "--json"];
    let mut submit = Running::start(program.command(&args).stdout(Stdio::piped()));
    let mut lines = BufReader::new(submit.0.stdout.take().expect("piped")).lines();
    let mut told = move || -> Value {
        let line = lines.next().expect("it goes on").expect("UTF-8");
        serde_json::from_str(&line).expect("a line of JSON")
    };
    let spec_hash = serde_json::from_value(told()["spec_hash"].clone()).expect("a hash");
    node.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&node.completed("j", 1, spec_hash)]);
    let unverified = told();
    assert_eq!(unverified["event"], "unverified", "{unverified}");
    let problem = unverified["problem"].as_str().expect("a problem");
    assert!(problem.contains("the chain could not be asked whether"), "{problem}");
    proxy.clear();
    let events: Vec<Value> = (0..3).map(|_| told()["event"].clone()).collect();
    assert_eq!(events, ["status", "receipt", "result"]);
    assert_eq!(ends(&mut submit, Duration::from_secs(20)).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_can_not_be_read_ends_no_following() {
    let (nats, program, node, _) = onlooker().await;
    let put = "
kv = await js.create_key_value(bucket='JOB_CLAIMS')
await kv.put('p.j', b'x')";
    nats.python(put, &[]);
    let args = ["submit", "--image", "img", "--pool", "p", "--job-id", "j", "--follow", "--json"];
    let mut submit = Running::start(program.command(&args).stdout(Stdio::piped()));
    let mut lines = BufReader::new(submit.0.stdout.take().expect("piped")).lines();
    let mut told = move || -> Value {
        let line = lines.next().expect("it goes on").expect("UTF-8");
        serde_json::from_str(&line).expect("a line of JSON")
    };
    let hash = serde_json::from_value(told()["spec_hash"].clone()).expect("a hash");
    say(&nats, &[&node.completed("j", 1, hash)]);
    let unverified = told();
    let problem = unverified["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("it cannot be found out who has the job"), "{unverified}");
    node.claim(&nats, "p", "j", hash);
    let events: Vec<Value> = (0..3).map(|_| told()["event"].clone()).collect();
    assert_eq!(events, ["status", "receipt", "result"]);
    // Who goes away from one that goes on is told how to come back, and that it was not the end.
    let mut idle = Running::start(
        program
            .command(&["submit", "--image", "i", "--pool", "p", "--follow", "--json"])
            .stdout(Stdio::piped()),
    );
    let mut lines = BufReader::new(idle.0.stdout.take().expect("piped")).lines();
    assert!(lines.next().expect("it goes on").expect("UTF-8").contains("submitted"));
    say(&nats, &rejections("nobodys", 1).iter().collect::<Vec<_>>());
    interrupt(&idle.0);
    assert_eq!(ends(&mut idle, Duration::from_secs(20)).code(), Some(130));
    assert!(lines.next().expect("it says so").expect("UTF-8").contains("detached"));
}
