//! `submit --follow`, `watch` and `logs` while strangers publish ends of the job.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lamda_node::chain::Key;
use lamda_node::ids::{Domain, Hash};
use serde_json::{Value, json};

use super::{STRANGER, onlooker};
use crate::support::anvil::{Anvil, CHAIN_ID};
use crate::support::nats::Nats;
use crate::support::program::Program;
use crate::support::rpc_proxy::{RpcProxy, Weather};
use crate::support::speaker::{Speaker, say, without_chain};
use crate::support::tools::{Running, eventually};

/// Longer than any of these commands takes to end, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

const SUBMIT: [&str; 9] =
    ["submit", "--image", "img", "--pool", "p", "--job-id", "j", "--follow", "--json"];

/// The program of a requester who can ask the chain.
fn requester(nats: &Nats, rpc_url: &str, domain: Domain) -> Program {
    Program::with(&[
        ("NATS_URL", &nats.url()),
        ("OPBNB_RPC_URL", rpc_url),
        ("REPUTATION_CONTRACT_ADDRESS", &domain.contract.to_string()),
        ("CHAIN_ID", &domain.chain_id.to_string()),
    ])
}

/// A running command with `--json`, read object by object.
struct Following {
    running: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(program: &Program, args: &[&str]) -> Self {
        let mut running = Running::start(program.command(args).stdout(Stdio::piped()));
        let lines = BufReader::new(running.0.stdout.take().expect("piped")).lines();
        Self { running, lines }
    }

    /// The next object that it prints.
    fn told(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("UTF-8");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    /// The next object, which must be this event.
    #[track_caller]
    fn event(&mut self, event: &str) -> Value {
        let object = self.told();
        assert_eq!(object["event"], event, "{object}");
        object
    }

    /// Its first event: the hash of the job that it submitted.
    fn submitted(&mut self) -> Hash {
        let object = self.event("submitted");
        serde_json::from_value(object["spec_hash"].clone()).expect("a hash")
    }

    /// The next event says that a status is not verified, for this reason.
    #[track_caller]
    fn doubts(&mut self, why: &str) {
        let object = self.event("unverified");
        let problem = object["problem"].as_str().expect("a problem");
        assert!(problem.contains(why), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_end_of_a_pools_job_is_passed_over_until_its_node_speaks() {
    let (nats, anvil) = (Nats::start(), Anvil::start());
    let domain = Domain { chain_id: CHAIN_ID, contract: anvil.deploy_with_node(1).await };
    let node = Speaker::new(Anvil::key(1), domain);
    let stranger = Speaker::new(Key::random(), domain);
    let program = requester(&nats, &anvil.rpc_url, domain);
    let mut submit = Following::start(&program, &SUBMIT);
    let spec_hash = submit.submitted();
    // A fresh key signs an end that is valid in itself.
    say(&nats, &[&stranger.completed("j", 1, spec_hash)]);
    submit.doubts("has not claimed the job");
    // No rejection is final while the job is in the queue.
    say(&nats, &[&stranger.status("j", 2, "rejected", &json!({"reason_code": "no_gpu"}))]);
    submit.doubts("which is still in the queue");
    // A stranger who can also write claims is still not registered as a node.
    stranger.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&stranger.completed("j", 3, spec_hash)]);
    submit.doubts("is no active node for the contract");
    node.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&stranger.completed("j", 4, spec_hash), &node.completed("j", 4, spec_hash)]);
    submit.doubts("has the job in the pool, not");
    let genuine = submit.event("status");
    assert_eq!(genuine["status"]["agent_address"], node.key.address().to_string());
    assert_eq!(submit.event("receipt")["valid"], true);
    assert_eq!(submit.event("result")["status"], "completed");
    assert_eq!(ends(&mut submit.running, LIMIT).code(), Some(0));
}

/// Sends SIGINT, as Ctrl-C does.
fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
}

fn ends(running: &mut Running, limit: Duration) -> ExitStatus {
    let child = &mut running.0;
    eventually("it ends", limit, || child.try_wait().expect("it can be waited for"))
}

/// Rejections of a job by `count` strangers, each with its own key.
fn rejections(job: &str, count: u64) -> Vec<Value> {
    let refused = json!({"reason_code": "no_gpu"});
    let stranger = || Speaker::new(Key::random(), without_chain());
    (1..=count).map(|seq| stranger().status(job, seq, "rejected", &refused)).collect()
}

/// Each rejection is checked for up to five seconds, so fifty in a row would take minutes.
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
    let mut watch = Following::start(&program, &args);
    for _ in 0..forged.len() {
        watch.told();
    }
    node.claim(&nats, "p", "j", hash);
    let told = Instant::now();
    say(&nats, &[&node.completed("j", 3, hash)]);
    assert_eq!(ends(&mut watch.running, LIMIT).code(), Some(0));
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
    // With `--agent`, only that agent's statuses are read, so only the other two report a doubt.
    for running in following.iter_mut().step_by(2) {
        let mut first = String::new();
        let said = running.0.stderr.as_mut().expect("piped");
        BufReader::new(said).read_line(&mut first).expect("it doubts one");
        assert!(first.contains(&format!("{address} has the job in the pool")), "{first}");
    }
    // Longer than the commands wait after an end that they believe.
    let begun = Instant::now();
    eventually("they go on", LIMIT, || {
        for running in &mut following {
            assert_eq!(running.0.try_wait().expect("it can be waited for"), None);
        }
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    node.claim(&nats, "p", "j", hash);
    say(&nats, &[&node.status("j", 2, "cancelled", &json!({"reason_code": "cancelled"}))]);
    let codes: Vec<_> = following.iter_mut().map(|one| ends(one, LIMIT).code()).collect();
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
    assert_eq!(ends(&mut logs, LIMIT).code(), Some(0));
    drop(floods);
    read.join().expect("it is read").expect("to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_does_not_answer_holds_an_end_back_until_it_does() {
    let (nats, anvil) = (Nats::start(), Anvil::start());
    let domain = Domain { chain_id: CHAIN_ID, contract: anvil.deploy_with_node(1).await };
    let node = Speaker::new(Anvil::key(1), domain);
    let proxy = RpcProxy::start(&anvil.rpc_url);
    let program = requester(&nats, proxy.url(), domain);
    proxy.set(Weather::Status(500, None));
    let mut submit = Following::start(&program, &SUBMIT);
    let spec_hash = submit.submitted();
    node.claim(&nats, "p", "j", spec_hash);
    say(&nats, &[&node.completed("j", 1, spec_hash)]);
    submit.doubts("the chain could not be asked whether");
    proxy.clear();
    for event in ["status", "receipt", "result"] {
        submit.event(event);
    }
    assert_eq!(ends(&mut submit.running, LIMIT).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_can_not_be_read_ends_no_following() {
    let (nats, program, node, _) = onlooker().await;
    let put = "
kv = await js.create_key_value(bucket='JOB_CLAIMS')
await kv.put('p.j', b'x')";
    nats.python(put, &[]);
    let mut submit = Following::start(&program, &SUBMIT);
    let hash = submit.submitted();
    say(&nats, &[&node.completed("j", 1, hash)]);
    submit.doubts("it cannot be found out who has the job");
    node.claim(&nats, "p", "j", hash);
    for event in ["status", "receipt", "result"] {
        submit.event(event);
    }
    // An interrupted `submit` says that it only detached: the job goes on.
    let args = ["submit", "--image", "i", "--pool", "p", "--follow", "--json"];
    let mut idle = Following::start(&program, &args);
    idle.event("submitted");
    say(&nats, &rejections("nobodys", 1).iter().collect::<Vec<_>>());
    interrupt(&idle.running.0);
    assert_eq!(ends(&mut idle.running, LIMIT).code(), Some(130));
    idle.event("detached");
}
