//! Several nodes on one pool, with nats-py as the client: each job is run by a node with a free slot, is
//! taken over if its node is gone, and ends once.

mod fitting;
pub(crate) mod handover;
mod once;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::ids::Address;
use serde_json::{Value, json};

use crate::support::anvil::Anvil;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, job};

mod sick;

/// Runs until the test removes `/output/held`, and ends at once on SIGTERM.
const HELD: &str = "trap 'exit 143' TERM; touch /output/held; \
    while [ -e /output/held ]; do sleep 0.1; done; echo x > /output/output";

const SHORT: &str = "echo x > /output/output";

/// A world whose nodes serve the pool `it`.
struct Pool {
    world: World,
}

/// One of the engine's events about a job's containers: what happened, and on which node.
#[derive(Debug, PartialEq, Eq)]
struct Happened {
    action: String,
    node: Address,
}

impl Pool {
    /// Starts the parts; the pool's consumer already exists, with this ack wait.
    async fn start(ack_wait_s: u32) -> Self {
        let world = World::start().await;
        world.nats.add_consumer("pool-it", &["jobs.pool.it"], ack_wait_s);
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

    /// The host's path of `/output/held` in a job's first attempt on this node.
    fn held(&self, account: usize, id: &str) -> PathBuf {
        let jobs = self.world.dir.path().join(format!("data-{account}/jobs"));
        jobs.join(id).join("1/output/held")
    }

    /// Waits until a job of [`HELD`] runs on this node.
    fn wait_until_held(&self, account: usize, id: &str) {
        let held = self.held(account, id);
        eventually(&format!("{id} runs on {account}"), PATIENCE, || held.exists().then_some(()));
    }

    fn release(&self, account: usize, id: &str) {
        std::fs::remove_file(self.held(account, id)).expect("it is held");
    }

    /// Waits until a job has ended and no job has left anything; returns each node's statuses of it.
    async fn outcome(&self, id: &str) -> BTreeMap<Address, Vec<Value>> {
        eventually(&format!("job {id} ends"), PATIENCE, || {
            self.world.statuses(id).iter().any(is_end).then_some(())
        });
        self.world.wait_until_clean().await;
        by_node(self.world.statuses(id))
    }

    /// The engine's events about a job's containers, in order.
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

    /// The nodes on which a job's containers were started, in order.
    async fn starts(&self, id: &str) -> Vec<Address> {
        let happened = self.happened(id).await.into_iter();
        happened.filter(|one| one.action == "start").map(|one| one.node).collect()
    }

    /// The number of messages not yet delivered, and of those delivered and not acked.
    fn consumer(&self) -> (u64, u64) {
        let script = "
info = await js.consumer_info('JOBS', 'pool-it')
print(info.num_pending, info.num_ack_pending)";
        let said = self.world.nats.python(script, &[]);
        let (pending, unanswered) = said.split_once(' ').expect("two numbers");
        (pending.parse().expect("a number"), unanswered.parse().expect("a number"))
    }

    /// The number of deliveries.
    fn given(&self) -> u64 {
        let script = "print((await js.consumer_info('JOBS', 'pool-it')).delivered.consumer_seq)";
        self.world.nats.python(script, &[]).parse().expect("a number")
    }

    /// The number of messages that were delivered more than once.
    fn redelivered(&self) -> u64 {
        let script = "print((await js.consumer_info('JOBS', 'pool-it')).num_redelivered)";
        self.world.nats.python(script, &[]).parse().expect("a number")
    }

    /// The claim on a job, if there is one.
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

/// A job's statuses by node; asserts that each node's are gapless and that all together have one end.
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

/// Stage and reason of the last status of a node.
fn last(said: &BTreeMap<Address, Vec<Value>>, account: usize) -> Value {
    let last = said.get(&address(account)).and_then(|statuses| statuses.last());
    last.map_or(Value::Null, |last| json!([last["stage"], last["reason_code"]]))
}

/// The dead letters of this address or pool.
fn dead_letters(world: &World, of: &str) -> Vec<Value> {
    let script = "
sub = await js.subscribe('jobs.dead.' + args[0], stream='DEAD', ordered_consumer=True)
info = await sub.consumer_info()
for _ in range(info.num_pending + info.delivered.consumer_seq):
    print((await sub.next_msg(timeout=10)).data.decode())";
    let lines = world.nats.python(script, &[of]);
    lines.lines().map(|line| serde_json::from_str(line).expect("a letter is JSON")).collect()
}
