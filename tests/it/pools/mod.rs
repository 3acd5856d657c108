//! Several nodes on one pool, with a client that we did not write: each job is run by whoever has
//! room, is taken over where its node is gone, and ends once.

mod sick;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::ids::Address;
use serde_json::{Value, json};

use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, job, shell};

/// Runs until the test takes away the file that holds it, and ends at once when it is asked to.
const HELD: &str = "trap 'exit 143' TERM; touch /output/held; \
    while [ -e /output/held ]; do sleep 0.1; done; echo x > /output/output";

const SHORT: &str = "echo x > /output/output";

/// A world whose nodes serve the pool `it`.
struct Pool {
    world: World,
}

/// What the engine says of a job's containers: when, what, of which node.
#[derive(Debug, PartialEq, Eq)]
struct Happened {
    action: String,
    node: Address,
}

impl Pool {
    /// The pool's consumer has this ack wait, as an administrator may have decided.
    async fn start(ack_wait_s: u32) -> Self {
        let world = World::start().await;
        let script = "
await js.add_stream(name='JOBS', subjects=['jobs.dispatch.*', 'jobs.pool.*'], retention='workqueue',
                    discard='new', max_age=604800, max_bytes=1 << 30)
await js.add_consumer('JOBS', ConsumerConfig(durable_name='pool-it', ack_wait=int(args[0]),
    ack_policy=AckPolicy.EXPLICIT, filter_subject='jobs.pool.it', max_ack_pending=10000))";
        world.nats.python(script, &[&ack_wait_s.to_string()]);
        Self { world }
    }

    /// Starts a node with one slot and the key of this account; it takes the pool's jobs when this
    /// returns.
    fn agent(&self, account: usize, settings: &[(&str, &str)]) -> Agent {
        let agent = self.start_agent(account, settings);
        agent.wait_for("waiting for jobs on jobs.pool.it");
        agent
    }

    fn start_agent(&self, account: usize, settings: &[(&str, &str)]) -> Agent {
        let beside = self.world.beside(account);
        let mut all = vec![("AGENT_POOLS", "it"), ("JOB_SLOTS", "1"), ("JOB_STOP_GRACE_S", "1")];
        all.extend(beside.iter().map(|(name, value)| (*name, value.as_str())));
        all.extend(settings);
        self.world.start_agent(&all)
    }

    fn publish(&self, id: &str, more: &Value) {
        self.world.publish_to("jobs.pool.it", &job(id, more).to_string());
    }

    /// What a job's first attempt on this node sees as `/output/held`.
    fn held(&self, account: usize, id: &str) -> PathBuf {
        let jobs = self.world.dir.path().join(format!("data-{account}/jobs"));
        jobs.join(id).join("1/output/held")
    }

    /// Waits until a job holds itself on this node.
    fn wait_until_held(&self, account: usize, id: &str) {
        let held = self.held(account, id);
        eventually(&format!("{id} runs on {account}"), PATIENCE, || held.exists().then_some(()));
    }

    fn release(&self, account: usize, id: &str) {
        std::fs::remove_file(self.held(account, id)).expect("it is held");
    }

    /// Waits until a job has ended and nothing is left of any; what each node said of it.
    async fn outcome(&self, id: &str) -> BTreeMap<Address, Vec<Value>> {
        eventually(&format!("job {id} ends"), PATIENCE, || {
            self.world.statuses(id).iter().any(is_end).then_some(())
        });
        self.world.wait_until_clean().await;
        by_node(self.world.statuses(id))
    }

    /// What the engine says of the containers of a job, in order.
    async fn happened(&self, id: &str) -> Vec<Happened> {
        let filters = [("label", vec![format!("lamda.job_id={id}")])];
        let until = SystemClock.now().unix_ms() / 1000 + 1;
        let options = EventsOptionsBuilder::default()
            .since("1")
            .until(&until.to_string())
            .filters(&filters.into())
            .build();
        let events = self.world.engine.client().events(Some(options));
        let happened = events.filter_map(async |event| {
            let event = event.expect("the engine answers");
            let node = event.actor?.attributes?.get("lamda.node")?.parse().ok()?;
            Some(Happened { action: event.action?, node })
        });
        happened.collect().await
    }

    /// On which nodes a job's containers were started, in order.
    async fn starts(&self, id: &str) -> Vec<Address> {
        let happened = self.happened(id).await.into_iter();
        happened.filter(|one| one.action == "start").map(|one| one.node).collect()
    }

    /// Messages that nobody was given, and messages that somebody has not answered for.
    fn consumer(&self) -> (u64, u64) {
        let script = "
info = await js.consumer_info('JOBS', 'pool-it')
print(info.num_pending, info.num_ack_pending)";
        let said = self.world.nats.python(script, &[]);
        let (pending, unanswered) = said.split_once(' ').expect("two numbers");
        (pending.parse().expect("a number"), unanswered.parse().expect("a number"))
    }

    /// How often a message was given to somebody.
    fn given(&self) -> u64 {
        let script = "print((await js.consumer_info('JOBS', 'pool-it')).delivered.consumer_seq)";
        self.world.nats.python(script, &[]).parse().expect("a number")
    }

    /// How many messages were given out more than once.
    fn redelivered(&self) -> u64 {
        let script = "print((await js.consumer_info('JOBS', 'pool-it')).num_redelivered)";
        self.world.nats.python(script, &[]).parse().expect("a number")
    }

    /// The claim on a job; `None` where there is none.
    fn claim(&self, id: &str) -> Option<Value> {
        let script = "
from nats.js.errors import KeyNotFoundError
try:
    print((await (await js.key_value('JOB_CLAIMS')).get(args[0])).value.decode())
except KeyNotFoundError:
    pass";
        let said = self.world.nats.python(script, &[&format!("it.{id}")]);
        (!said.is_empty()).then(|| serde_json::from_str(&said).expect("a claim is JSON"))
    }
}

fn address(account: usize) -> Address {
    Anvil::key(account).address()
}

/// What each node said of a job, checked to be gapless, and with one end over all of them.
fn by_node(statuses: Vec<Value>) -> BTreeMap<Address, Vec<Value>> {
    let mut said: BTreeMap<Address, Vec<Value>> = BTreeMap::new();
    for status in statuses {
        let node = status["agent_address"].as_str().and_then(|text| text.parse().ok());
        said.entry(node.expect("an address")).or_default().push(status);
    }
    let ends = said.values().flatten().filter(|status| is_end(status)).count();
    assert_eq!(ends, 1, "{said:?}");
    for statuses in said.values() {
        let seqs: Vec<u64> = statuses.iter().filter_map(|one| one["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{statuses:?}");
    }
    said
}

fn is_end(status: &Value) -> bool {
    status["status"] != "processing"
}

/// The last that a node said: its stage and its reason.
fn last(said: &BTreeMap<Address, Vec<Value>>, account: usize) -> Value {
    let last = said.get(&address(account)).and_then(|statuses| statuses.last());
    last.map_or(Value::Null, |last| json!([last["stage"], last["reason_code"]]))
}

/// What lies in `jobs.dead.…` for this address or pool.
fn dead_letters(world: &World, of: &str) -> Vec<Value> {
    let script = "
sub = await js.subscribe('jobs.dead.' + args[0], stream='DEAD', ordered_consumer=True)
info = await sub.consumer_info()
for _ in range(info.num_pending + info.delivered.consumer_seq):
    print((await sub.next_msg(timeout=10)).data.decode())";
    let lines = world.nats.python(script, &[of]);
    lines.lines().map(|line| serde_json::from_str(line).expect("a letter is JSON")).collect()
}

#[tokio::test]
async fn each_job_of_a_pool_runs_once_on_a_node_with_a_free_slot() {
    let pool = Pool::start(120).await;
    let _agents = [pool.agent(1, &[]), pool.agent(2, &[])];
    for id in ["long-a", "long-b"] {
        pool.publish(id, &shell(HELD));
    }
    // Each node has one of the two, whichever.
    let has = |account, id| pool.held(account, id).exists();
    let (first, second) = eventually("both nodes have a job", PATIENCE, || {
        let either = [("long-a", "long-b"), ("long-b", "long-a")];
        either.into_iter().find(|(first, second)| has(1, first) && has(2, second))
    });
    let short: Vec<String> = (0..6).map(|number| format!("short-{number}")).collect();
    for id in &short {
        pool.publish(id, &shell(SHORT));
    }
    assert_eq!(pool.consumer(), (6, 2), "nobody took what it has no slot for");
    pool.release(1, first);
    pool.release(2, second);
    let all = eventually("all have ended", PATIENCE, || {
        let all = pool.world.statuses("*");
        (all.iter().filter(|one| is_end(one)).count() >= 8).then_some(all)
    });
    pool.world.wait_until_clean().await;
    for id in short.iter().map(String::as_str).chain(["long-a", "long-b"]) {
        let said = by_node(all.iter().filter(|one| one["job_id"] == id).cloned().collect());
        assert_eq!(said.len(), 1, "one node spoke of it: {said:?}");
        let (node, statuses) = said.first_key_value().expect("a node");
        assert_eq!(statuses.last().expect("statuses")["stage"], "completed");
        assert_eq!(pool.starts(id).await, [*node]);
    }
}

#[tokio::test]
async fn agents_that_started_while_jetstream_was_away_end_a_job_once() {
    let mut pool = Pool::start(120).await;
    pool.world.nats.restart_without_jetstream();
    let first = pool.start_agent(1, &[]);
    first.wait_for("has no JetStream");
    pool.world.nats.restart_with_jetstream();
    let _second = pool.agent(2, &[]);
    first.wait_for("waiting for jobs on jobs.pool.it");
    pool.publish("once", &shell(SHORT));
    let said = pool.outcome("once").await;
    assert_eq!(said.len(), 1, "one node spoke of it: {said:?}");
    assert_eq!(pool.starts("once").await.len(), 1);
    assert!(first.log().contains("set NATS_MODE=core"), "{}", first.log());
}

#[tokio::test]
async fn the_job_of_a_node_that_was_killed_is_run_by_another() {
    let pool = Pool::start(5).await;
    let mut first = pool.agent(1, &[]);
    pool.publish("inherited", &shell(HELD));
    pool.wait_until_held(1, "inherited");
    let second = pool.agent(2, &[]);
    first.kill();
    pool.wait_until_held(2, "inherited");
    // It comes back to a container that runs on, of a job that is another's.
    let first = pool.agent(1, &[]);
    first.wait_for("job inherited went to another agent of its pool: it stops here");
    first.wait_for("job inherited: waiting");
    let stopped = Happened { action: "die".to_owned(), node: address(1) };
    assert!(pool.happened("inherited").await.contains(&stopped));
    pool.release(2, "inherited");
    let said = pool.outcome("inherited").await;
    assert_eq!(last(&said, 1), json!(["interrupted", "lease_lost"]));
    assert_eq!(last(&said, 2), json!(["completed", null]));
    assert_eq!(pool.starts("inherited").await, [address(1), address(2)]);
    assert!(!second.log().contains("ERROR"), "{}", second.log());
}

#[tokio::test]
async fn a_node_that_is_cut_off_stops_its_pools_job_before_another_starts_it() {
    let pool = Pool::start(10).await;
    let proxy = TcpProxy::start(pool.world.nats.port());
    let url = format!("nats://{}", proxy.address());
    let first = pool.agent(1, &[("NATS_URL", &url), ("JOB_SLOTS", "2")]);
    pool.world.publish_to(
        &format!("jobs.dispatch.{}", address(1)),
        &job("own", &shell(HELD)).to_string(),
    );
    pool.wait_until_held(1, "own");
    for id in ["cut", "silent"] {
        pool.publish(id, &shell(HELD));
        pool.wait_until_held(1, id);
        let _second = pool.agent(2, &[]);
        if id == "cut" {
            proxy.cut();
        } else {
            proxy.silence();
        }
        pool.wait_until_held(2, id);
        let happened = pool.happened(id).await;
        let at = |action: &str, account| {
            let what = Happened { action: action.to_owned(), node: address(account) };
            happened.iter().position(|one| *one == what)
        };
        let (stopped, taken) = (at("die", 1), at("start", 2));
        assert!(stopped.is_some_and(|at| Some(at) < taken), "{happened:?}");
        assert!(pool.held(1, "own").exists(), "its own job was stopped");
        proxy.mend();
        pool.release(2, id);
        first.wait_for(&format!("job {id}: waiting"));
        eventually("the job's end is said", PATIENCE, || {
            pool.world.statuses(id).iter().any(is_end).then_some(())
        });
    }
    pool.release(1, "own");
    let own = pool.outcome("own").await;
    assert_eq!(last(&own, 1), json!(["completed", null]));
    assert_eq!(pool.starts("own").await, [address(1)], "the bus stops no job of its own");
    for id in ["cut", "silent"] {
        let said = pool.outcome(id).await;
        assert_eq!(last(&said, 1), json!(["interrupted", "lease_lost"]), "{id}");
        assert_eq!(last(&said, 2), json!(["completed", null]), "{id}");
    }
}

#[tokio::test]
async fn an_ack_wait_that_is_edited_makes_no_job_go_from_hand_to_hand() {
    let pool = Pool::start(600).await;
    let first = pool.agent(1, &[]);
    pool.publish("edited", &shell(HELD));
    pool.wait_until_held(1, "edited");
    let second = pool.agent(2, &[]);
    let script = "
info = await js.consumer_info('JOBS', 'pool-it')
info.config.ack_wait = 10
await js.add_consumer('JOBS', info.config)";
    pool.world.nats.python(script, &[]);
    // The second one is given it, and asks the first one, which learns of the edit by that.
    second.wait_for("job edited of the pool it is kept by");
    let given = pool.given();
    // With the ack wait of before there would be one in minutes.
    let renewals = "
sub = await nc.subscribe('$JS.ACK.JOBS.pool-it.>')
for _ in range(3):
    assert (await sub.next_msg(timeout=30)).data == b'+WPI'";
    pool.world.nats.python(renewals, &[]);
    assert_eq!(pool.given(), given, "it is renewed as often as it has to be by now");
    let claim = pool.claim("edited").expect("a claim");
    assert_eq!((&claim["agent"], &claim["starts"]), (&json!(address(1)), &json!(1)));
    pool.release(1, "edited");
    let said = pool.outcome("edited").await;
    assert_eq!(last(&said, 1), json!(["completed", null]));
    assert_eq!(last(&said, 2), Value::Null, "the second one has nothing to say");
    assert_eq!(pool.starts("edited").await, [address(1)]);
    assert!(!first.log().contains("it stops here"), "{}", first.log());
}

/// Long enough for a server to notice that it has lost the others.
const CLUSTER_ACK_WAIT_S: u64 = 30;

/// Two of a cluster's three servers go down for longer than the ack wait, and nobody leads meanwhile.
pub(crate) async fn an_outage_of_jetstream_stops_no_job_of_a_pool() {
    let mut world = World::start().await;
    let [first, mut second, mut third] = Nats::cluster();
    world.nats = first;
    let script = "
async def until_made(make):
    while True:
        try:
            return await make()
        except Exception as err:
            await asyncio.sleep(0.2)
for name, subjects in [('JOBS', ['jobs.dispatch.*', 'jobs.pool.*']), ('STATUS', ['jobs.status.*.*']),
                       ('DEAD', ['jobs.dead.*'])]:
    kind = 'workqueue' if name == 'JOBS' else 'limits'
    await until_made(lambda: js.add_stream(name=name, subjects=subjects, retention=kind, num_replicas=3))
await until_made(lambda: js.create_key_value(bucket='JOB_CLAIMS', replicas=3))
await until_made(lambda: js.add_consumer('JOBS', ConsumerConfig(durable_name='pool-it',
    ack_wait=int(args[0]), ack_policy=AckPolicy.EXPLICIT, filter_subject='jobs.pool.it')))";
    world.nats.python(script, &[&CLUSTER_ACK_WAIT_S.to_string()]);
    let pool = Pool { world };
    let one = pool.agent(1, &[]);
    pool.publish("through", &shell(HELD));
    pool.wait_until_held(1, "through");
    let other = pool.agent(2, &[]);
    second.kill();
    third.kill();
    let (began, outage) = (Instant::now(), Duration::from_secs(2 * CLUSTER_ACK_WAIT_S));
    eventually("nobody leads for two ack waits", PATIENCE + outage, || {
        (began.elapsed() > outage).then_some(())
    });
    assert!(pool.held(1, "through").exists() && !one.log().contains("it stops here"));
    second.restart();
    third.restart();
    // The server gives out at once what nobody renewed meanwhile.
    other.wait_for("job through of the pool it is kept by");
    pool.release(1, "through");
    let said = pool.outcome("through").await;
    assert_eq!(last(&said, 1), json!(["completed", null]));
    assert_eq!(last(&said, 2), Value::Null, "the other one has nothing to say");
    assert_eq!(pool.starts("through").await, [address(1)]);
}

/// Between the claim and the journal, between that and the container, before the claim of the end,
/// and between that and the end.
const PLACES: [&str; 4] = ["starting.before", "starting.after", "concluding.after", "ended.before"];

#[tokio::test]
async fn a_node_that_is_killed_around_its_claims_goes_on_with_them() {
    let pool = Pool::start(120).await;
    for place in PLACES {
        let id = place.replace('.', "-");
        let mut agent = pool.start_agent(1, &[("LAMDA_FAILPOINT", place)]);
        agent.wait_for("waiting for jobs on jobs.pool.it");
        pool.publish(&id, &shell(SHORT));
        assert!(!agent.wait_for_end().success());
        let _agent = pool.agent(1, &[]);
        let said = pool.outcome(&id).await;
        assert_eq!(last(&said, 1), json!(["completed", null]), "{place}");
        assert_eq!(pool.starts(&id).await, [address(1)], "{place}");
        let claim = pool.claim(&id).expect("a claim");
        assert_eq!((&claim["state"], &claim["starts"]), (&json!("done"), &json!(1)), "{place}");
    }
}

#[tokio::test]
async fn what_a_node_was_killed_with_is_ended_by_one_of_two() {
    let pool = Pool::start(3).await;
    for place in PLACES {
        let id = place.replace('.', "-");
        let mut first = pool.agent(1, &[("LAMDA_FAILPOINT", place)]);
        pool.publish(&id, &shell(SHORT));
        assert!(!first.wait_for_end().success());
        let second = pool.agent(2, &[]);
        let claimed_end = place == "ended.before";
        if claimed_end {
            // The end is the first one's to say, and the other one is given the job meanwhile.
            eventually("the job is given out again", PATIENCE, || {
                (pool.redelivered() > 0).then_some(())
            });
        } else {
            second.wait_for(&format!("job {id} completed"));
        }
        let _first = pool.agent(1, &[]);
        let said = pool.outcome(&id).await;
        let (one, other) = (last(&said, 1), last(&said, 2));
        if claimed_end {
            assert_eq!((one, other), (json!(["completed", null]), Value::Null), "{place}");
        } else {
            assert_eq!(one, json!(["interrupted", "lease_lost"]), "{place}");
            assert_eq!(other, json!(["completed", null]), "{place}");
        }
        if place.starts_with("starting") {
            assert_eq!(pool.starts(&id).await, [address(2)], "{place}");
        }
    }
}

#[tokio::test]
async fn a_job_that_fits_no_node_of_its_pool_is_put_aside_and_its_requester_told() {
    let pool = Pool::start(120).await;
    let _agent = pool.agent(1, &[]);
    let claim = json!({
        "agent": address(3), "state": "refused", "stream_seq": 1, "delivered": 19, "attempt": 0,
        "starts": 0, "spec_hash": format!("0x{:064}", 0), "refusals": 19,
        "refused_first_at": SystemClock.now(), "at": SystemClock.now(),
    });
    let script = "
await (await js.key_value('JOB_CLAIMS')).put('it.too-big', args[0].encode())";
    pool.world.nats.python(script, &[&claim.to_string()]);
    pool.publish("too-big", &json!({"gpus": 1}));
    let said = pool.outcome("too-big").await;
    assert_eq!(last(&said, 1), json!(["failed", "no_node_fits"]));
    let letters = dead_letters(&pool.world, "it");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["job"]["job_id"], "too-big");
    assert_eq!(letters[0]["agent_address"], json!(address(1)));
}

#[tokio::test]
async fn a_job_that_fits_one_node_of_its_pool_is_run_there() {
    let pool = Pool::start(120).await;
    let first = pool.agent(1, &[]);
    let mut wanted = shell(SHORT);
    wanted["network"] = "bridge".into();
    pool.publish("fits-one", &wanted);
    let claim = eventually("the first one refuses", PATIENCE, || pool.claim("fits-one"));
    assert_eq!((&claim["state"], &claim["refusals"]), (&json!("refused"), &json!(1)));
    // Or it might be asked again, and refuse it again, before the other one is.
    let own = job("own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(1)), &own);
    pool.wait_until_held(1, "own");
    let _second = pool.agent(2, &[("JOB_NETWORK", "bridge")]);
    eventually("the other one runs it", PATIENCE, || {
        pool.world.statuses("fits-one").iter().any(is_end).then_some(())
    });
    pool.release(1, "own");
    let said = pool.outcome("fits-one").await;
    assert!(!first.log().contains("ERROR"), "{}", first.log());
    assert_eq!(last(&said, 1), Value::Null, "the first one has nothing to say");
    assert_eq!(last(&said, 2), json!(["completed", null]));
}

#[tokio::test]
async fn a_pools_job_that_is_published_again_does_not_run_again() {
    let pool = Pool::start(120).await;
    let _agents = [pool.agent(1, &[]), pool.agent(2, &[])];
    pool.publish("twice", &shell(HELD));
    let has = eventually("a node has it", PATIENCE, || {
        [1, 2].into_iter().find(|account| pool.held(*account, "twice").exists())
    });
    // The other one is given the same once more, and another job under its id.
    pool.publish("twice", &shell(HELD));
    let other = job("twice", &shell(SHORT)).to_string();
    pool.world.publish_to("jobs.pool.it", &other);
    let refused = eventually("the other body is refused", PATIENCE, || {
        pool.world.statuses("*").into_iter().find(|one| one["reason_code"] == "duplicate_job_id")
    });
    assert_eq!(refused["status"], "rejected");
    assert_ne!(refused["agent_address"], json!(address(has)));
    assert!(refused["job_id"].as_str().is_some_and(|id| id.starts_with("invalid-")), "{refused}");
    pool.release(has, "twice");
    let said = pool.outcome("twice").await;
    assert_eq!(last(&said, has), json!(["completed", null]));
    // And after its end.
    pool.publish("twice", &shell(HELD));
    let said_after = pool.outcome("twice").await;
    assert_eq!(said_after, said);
    assert_eq!(pool.starts("twice").await, [address(has)]);
}

#[tokio::test]
async fn a_job_that_takes_its_container_down_three_times_is_put_aside() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("deadly", &shell("sleep 600"));
    for attempt in 1..=3 {
        let running = eventually("it runs", PATIENCE, || {
            let statuses = world.statuses("deadly").into_iter();
            statuses.filter(|one| one["stage"] == "running").nth(attempt - 1)
        });
        assert_eq!(running["attempt"], json!(attempt));
        let name = format!("-deadly-{attempt}");
        let all = world.containers().await;
        let container = all.iter().find(|container| container.ends_with(&name)).expect("it runs");
        let force = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true);
        let client = world.engine.client();
        let removed =
            client.remove_container(container.trim_start_matches('/'), Some(force.build()));
        removed.await.expect("it is removed");
    }
    let statuses = world.outcome("deadly");
    let last = statuses.last().expect("statuses");
    assert_eq!(json!([last["stage"], last["reason_code"]]), json!(["failed", "poison"]));
    world.wait_until_clean().await;
    let letters = dead_letters(&world, &World::agent_address().to_string());
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!(letter["job"]["job_id"], "deadly");
    let history = letter["history"].as_array().expect("a history");
    let losses = history.iter().filter(|one| one["event"] == "lost").count();
    assert_eq!(losses, 3, "{letter}");
    assert!(history.iter().all(|one| one["at"].is_string()), "{letter}");
    assert!(!agent.log().contains("ERROR"), "{}", agent.log());
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_gives_its_pools_job_to_another_at_once() {
    // Long enough that nobody is given it without being handed it.
    let pool = Pool::start(600).await;
    let mut first = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
    pool.publish("handed-on", &shell(HELD));
    pool.wait_until_held(1, "handed-on");
    let _second = pool.agent(2, &[]);
    first.ask_to_end();
    pool.wait_until_held(2, "handed-on");
    assert!(first.wait_for_end().success());
    let claim = pool.claim("handed-on").expect("a claim");
    assert_eq!(claim["agent"], json!(address(2)));
    assert_eq!(claim["starts"], 1, "a start that a shutdown interrupted does not count");
    pool.release(2, "handed-on");
    let said = pool.outcome("handed-on").await;
    assert_eq!(last(&said, 1), json!(["interrupted", "node_shutdown"]));
    assert_eq!(last(&said, 2), json!(["completed", null]));
    let happened = pool.happened("handed-on").await;
    let order: Vec<&Happened> =
        happened.iter().filter(|one| ["start", "die"].contains(&one.action.as_str())).collect();
    let nodes: Vec<Address> = order.iter().map(|one| one.node).collect();
    assert_eq!(nodes, [address(1), address(1), address(2), address(2)], "{order:?}");
}

#[tokio::test]
async fn a_job_that_was_given_back_and_is_in_no_queue_any_more_is_run_by_who_gave_it_back() {
    let pool = Pool::start(120).await;
    let mut agent = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
    for id in ["purged", "swept"] {
        pool.publish(id, &shell(HELD));
        pool.wait_until_held(1, id);
        agent.ask_to_end();
        assert!(agent.wait_for_end().success());
        let said = pool.world.statuses(id);
        assert_eq!(said.last().expect("a status")["stage"], "interrupted");
        let script = "await js.purge_stream('JOBS')";
        let anew = "await js.delete_stream('JOBS')";
        pool.world.nats.python(if id == "purged" { script } else { anew }, &[]);
        agent = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
        let held = pool.world.dir.path().join(format!("data-1/jobs/{id}/2/output/held"));
        eventually(&format!("{id} runs again"), PATIENCE, || held.exists().then_some(()));
        std::fs::remove_file(held).expect("it is held");
        let said = pool.outcome(id).await;
        assert_eq!(last(&said, 1), json!(["completed", null]));
        let claim = pool.claim(id).expect("a claim");
        assert_eq!((&claim["state"], &claim["starts"]), (&json!("done"), &json!(1)), "{claim}");
    }
}

#[tokio::test]
async fn a_job_that_fits_a_node_that_is_busy_waits_for_it() {
    let pool = Pool::start(120).await;
    let small = pool.agent(1, &[]);
    let big = pool.agent(2, &[("JOB_NETWORK", "bridge")]);
    let own = job("own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(2)), &own);
    pool.wait_until_held(2, "own");
    // The last word of an hour in which the busy one never said that it is there.
    let claim = json!({
        "agent": address(3), "state": "refused", "stream_seq": 1, "delivered": 1, "attempt": 0,
        "starts": 0, "spec_hash": format!("0x{:064}", 0), "refusals": 19,
        "refused_first_at": SystemClock.now(), "at": SystemClock.now(),
    });
    let put = "await (await js.key_value('JOB_CLAIMS')).put('it.waits', args[0].encode())";
    pool.world.nats.python(put, &[&claim.to_string()]);
    let read = "
from nats.js.errors import NotFoundError, NoKeysError
try:
    kv = await js.key_value('NODES')
    print(json.dumps([json.loads((await kv.get(key)).value) for key in await kv.keys()]))
except (NotFoundError, NoKeysError):
    print('[]')";
    let there = eventually("both nodes are there", PATIENCE, || {
        let there: Vec<Value> =
            serde_json::from_str(&pool.world.nats.python(read, &[])).expect("JSON");
        (there.len() == 2).then_some(there)
    });
    let networks: Vec<&Value> = there.iter().map(|one| &one["networks"]).collect();
    assert!(networks.contains(&&json!(["none", "bridge"])), "{there:?}");
    assert!(there.iter().all(|one| one["ready"] == true && one["pools"] == json!(["it"])));
    let mut wanted = shell(SHORT);
    wanted["network"] = "bridge".into();
    pool.publish("waits", &wanted);
    eventually("the small one is given it", PATIENCE, || (pool.given() > 0).then_some(()));
    // Or it might be given the job again and again, each time for longer, before the other one is.
    let small_own = job("small-own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(1)), &small_own);
    pool.wait_until_held(1, "small-own");
    pool.release(2, "own");
    eventually("the other one runs it", PATIENCE, || {
        pool.world.statuses("waits").iter().any(is_end).then_some(())
    });
    pool.release(1, "small-own");
    let said = pool.outcome("waits").await;
    assert_eq!(last(&said, 1), Value::Null, "the small one let it be");
    assert_eq!(last(&said, 2), json!(["completed", null]));
    assert!(!small.log().contains("ERROR"), "{}", small.log());
    assert!(!big.log().contains("ERROR"), "{}", big.log());
}

#[tokio::test]
async fn who_submits_is_told_where_no_node_that_is_there_fits() {
    let pool = Pool::start(120).await;
    let _agent = pool.agent(1, &[]);
    let submit = |name: &str, more: &[&str]| {
        let arguments = ["submit", "--pool", name, "--image", "busybox:test", "--gpus", "0"];
        let said = pool.world.command(&[&arguments[..], more].concat()).output();
        String::from_utf8(said.expect("it runs").stdout).expect("text")
    };
    let unfit = "none of the 1 nodes of the pool it that are there fits the job";
    let large = ["--memory-mib", "60000000"];
    let said = eventually("the node says that it is there", PATIENCE, || {
        Some(submit("it", &large)).filter(|said| said.contains(unfit))
    });
    assert!(said.contains("is submitted to"), "{said}");
    let said = submit("other", &[]);
    assert!(said.contains("no node of the pool other is there now"), "{said}");
    let said = submit("it", &[]);
    assert!(said.contains("is submitted to") && !said.contains("of the pool"), "{said}");
}
