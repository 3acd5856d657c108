//! One job per place: the node dies there, starts again, and takes the job to its end.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::witness::Witness;
use crate::support::nats::Beside;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, shell};

/// The input of every job.
pub(super) const INPUT: &str = "input of ";

/// Copies the input to the output, appends the job's id, and leaves a log.
pub(super) const WORK: &str = "echo working; (cat /input/input; echo $JOB_ID) > /output/output";

/// The setting with which the node serves the pool that the jobs are sent to.
pub(super) const IN_POOL: (&str, &str) = ("AGENT_POOLS", "cpu");

/// The phases of a job whose end is in the journal.
const ENDS: [&str; 6] = ["ended", "cleaned", "buried", "settled", "rejected", "ended_elsewhere"];

/// The requester, in nats-py: it carries out one request for each line of its input.
const REQUESTER: &str = "
print('ready')
loop = asyncio.get_running_loop()
while line := await loop.run_in_executor(None, sys.stdin.readline):
    how, subject, body = json.loads(line)
    if how == 'queue':
        await js.publish(subject, body.encode())
    elif how == 'claim':
        kv = await js.key_value('JOB_CLAIMS')
        try:
            claim = json.loads((await kv.get(subject)).value)
        except nats.js.errors.KeyNotFoundError:
            claim = {}
        await kv.put(subject, json.dumps(claim | json.loads(body)).encode())
    elif how == 'patience':
        config = (await js.consumer_info('JOBS', subject)).config
        config.ack_wait = int(body)
        await js.add_consumer('JOBS', config)
    elif how == 'count':
        print((await js.stream_info(subject)).state.messages)
        continue
    elif how == 'silence':
        for _ in range(1000):
            asked = sum([one.num_waiting or 0 for one in await js.consumers_info(subject)])
            if asked == 0:
                break
            await asyncio.sleep(0.01)
        else:
            print('somebody still asks')
            continue
    elif how == 'tell':
        await nc.publish(subject, body.encode(), reply='nobody')
        await nc.flush()
    elif how == 'ask':
        try:
            print((await nc.request(subject, body.encode(), timeout=10)).data.decode())
            continue
        except nats.errors.NoRespondersError:
            pass
    print('done')";

/// The expected end of a job.
#[derive(Debug)]
struct Expected {
    status: &'static str,
    starts: usize,
}

/// A walk through many places in one world.
pub(super) struct Walk {
    pub(super) world: World,
    input: String,
    settings: Vec<(&'static str, &'static str)>,
    witness: Witness,
    requester: Beside,
    expected: BTreeMap<String, Expected>,
}

impl Walk {
    /// Starts a world; the node will run in it with these settings.
    pub(super) async fn start(settings: &[(&'static str, &'static str)]) -> Self {
        let world = World::start().await;
        let witness = Witness::of(&world.engine);
        let mut requester = world.nats.python_beside(REQUESTER, &[]);
        assert_eq!(requester.line(), "ready");
        let input = world.pin(INPUT.as_bytes()).await;
        let mut settings = settings.to_vec();
        // One job at a time, so that the job that passes a place is the intended one.
        settings.push(("JOB_SLOTS", "1"));
        let expected = BTreeMap::new();
        let walk = Self { world, input, settings, witness, requester, expected };
        // Makes the streams and registers the node before the first crash.
        let agent = walk.world.agent(&walk.settings);
        agent.wait_for("heartbeat sent");
        walk
    }

    /// Has the requester do something, and returns its answer or `done`. `how`: `queue` puts a message into
    /// the queue, `tell` and `ask` send one outside all streams, `claim` sets some keys of a claim,
    /// `patience` sets a consumer's ack wait, `count` counts a stream's messages, `silence` waits until no
    /// client has a pull request open on a stream.
    pub(super) fn request(&mut self, how: &str, subject: &str, body: &str) -> String {
        self.requester.tell(&json!([how, subject, body]).to_string());
        self.requester.line()
    }

    /// As [`Walk::request`]; the answer must be `done`.
    pub(super) fn send(&mut self, how: &str, subject: &str, body: &str) {
        assert_eq!(self.request(how, subject, body), "done", "{how} {subject} {body}");
    }

    /// Publishes a job with this script to the node, or to the pool `cpu` if the node serves it.
    pub(super) fn publish(&mut self, id: &str, script: &str) {
        let mut job = shell(script);
        job["job_id"] = id.into();
        job["image_name"] = "busybox:test".into();
        job["input_file_cid"] = self.input.as_str().into();
        let to = format!("jobs.dispatch.{}", World::agent_address());
        let pool = self.settings.contains(&IN_POOL);
        let to = if pool { "jobs.pool.cpu" } else { &to };
        self.send("queue", to, &job.to_string());
    }

    /// Starts a node that dies at this place.
    pub(super) fn arm(&mut self, place: &str) -> Agent {
        self.arm_with(place, &[])
    }

    /// As [`Walk::arm`], with these further settings.
    pub(super) fn arm_with(&mut self, place: &str, more: &[(&str, &str)]) -> Agent {
        self.see_the_last_one_off();
        let armed = [("LAMDA_FAILPOINT", place)];
        self.world.start_agent(&[&self.settings[..], more, &armed].concat())
    }

    /// Starts a node that does not die.
    pub(super) fn go_on(&mut self) -> Agent {
        self.see_the_last_one_off();
        self.world.start_agent(&self.settings)
    }

    /// Waits until the server knows that the last node is gone. Otherwise the next job could be delivered to
    /// it, and to nobody else before the ack wait is over.
    fn see_the_last_one_off(&mut self) {
        self.send("silence", "JOBS", "");
    }

    /// Waits until the node has died at its place by SIGKILL. Asserts that the job's message is still in the
    /// queue, unless the journal has the job's end.
    pub(super) fn wait_for_death(&mut self, mut agent: Agent, place: &str, id: &str) {
        let child = &mut agent.running.0;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(place, PATIENCE, || child.try_wait().expect("it is our child"))
        }));
        let log = agent.log();
        let Ok(status) = ended else { panic!("{place}: the node does not die there:\n{log}") };
        assert_eq!(status.signal(), Some(9), "{place}: {status}\n{log}");
        let has_ended = self.phase(id).is_some_and(|phase| ENDS.contains(&phase.as_str()));
        let queued = self.request("count", "JOBS", "");
        assert!(has_ended || queued != "0", "{place}: acknowledged before its end\n{log}");
    }

    /// Waits until the journal has a job as completely done.
    pub(super) fn wait_until_done(&self, agent: &Agent, id: &str) {
        let done = "SELECT (SELECT open FROM jobs WHERE job_id = ?1
                 UNION ALL SELECT 0 FROM done WHERE job_id = ?1) = 0
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE sent <> 1)
             AND NOT EXISTS (SELECT 1 FROM done WHERE again = 1)";
        let what = format!("job {id} is done");
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&what, PATIENCE, || self.journal(done, id).filter(|done| *done));
        }));
        assert!(found.is_ok(), "{what}; the log:\n{}", agent.log());
    }

    /// The job's phase in the journal.
    pub(super) fn phase(&self, id: &str) -> Option<String> {
        let sql = "SELECT phase FROM jobs WHERE job_id = ?1
             UNION ALL SELECT phase FROM done WHERE job_id = ?1";
        self.journal(sql, id)
    }

    /// The journal's answer to a query about a job.
    pub(super) fn journal<T: rusqlite::types::FromSql>(&self, sql: &str, id: &str) -> Option<T> {
        let file = self.world.dir.path().join("data/journal.db");
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let mut query = db.prepare(sql).ok()?;
        query.query_row([id], |row| row.get::<_, Option<T>>(0)).ok()?
    }

    /// Expects this job to have this end, with so many containers, at the end of the walk.
    pub(super) fn expect(&mut self, id: &str, status: &'static str, starts: usize) {
        self.expected.insert(id.to_owned(), Expected { status, starts });
    }

    /// Asserts that everything is as expected: for each job one terminal status, the right one, gapless
    /// statuses, the right output, no container twice or beside another, and nothing left behind.
    pub(super) async fn check(mut self) {
        let _agent = self.go_on();
        self.world.wait_until_clean().await;
        let mut said: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for status in self.world.statuses("*") {
            let id = status["job_id"].as_str().expect("an id").to_owned();
            said.entry(id).or_default().push(status);
        }
        let mut starts = self.witness.starts();
        for (id, expected) in std::mem::take(&mut self.expected) {
            let statuses = said.remove(&id).unwrap_or_default();
            self.check_statuses(&id, &statuses, expected.status).await;
            let started = starts.remove(&id).unwrap_or(0);
            assert_eq!(started, expected.starts, "job {id}: containers started: {statuses:?}");
        }
        assert_eq!(said, BTreeMap::new(), "of no job that was published");
        assert_eq!(starts, BTreeMap::new(), "of no job that was published");
        self.check_leftovers().await;
    }

    async fn check_statuses(&self, id: &str, statuses: &[Value], expected: &str) {
        let seqs: Vec<_> = statuses.iter().filter_map(|status| status["seq"].as_u64()).collect();
        let gapless: Vec<_> = (1..=statuses.len() as u64).collect();
        assert_eq!(seqs, gapless, "job {id}: {statuses:?}");
        let ends: Vec<_> =
            statuses.iter().filter(|status| status["status"] != "processing").collect();
        if expected == "processing" {
            assert!(ends.is_empty(), "job {id}: {statuses:?}");
            return;
        }
        assert_eq!(ends.len(), 1, "job {id}: {statuses:?}");
        assert_eq!(statuses.last(), ends.first().copied(), "job {id}: it is the last");
        assert_eq!(ends[0]["status"], expected, "job {id}: {statuses:?}");
        if expected == "completed" {
            let output = self.world.content(ends[0]["output_cid"].as_str().expect("a CID")).await;
            assert_eq!(String::from_utf8_lossy(&output), format!("{INPUT}{id}\n"));
            let log = self.world.content(ends[0]["log_cid"].as_str().expect("a CID")).await;
            assert_eq!(String::from_utf8_lossy(&log), "working\n", "job {id}");
        }
    }

    /// Asserts that there is no further network, no claim in force, and nothing open in the journal.
    async fn check_leftovers(&self) {
        let networks = self.world.engine.client().list_networks(None).await.expect("networks");
        let mut names: Vec<_> = networks.into_iter().filter_map(|network| network.name).collect();
        names.sort();
        assert_eq!(names, ["bridge", "host", "none"]);
        let claims = "
try:
    kv = await js.key_value('JOB_CLAIMS')
    keys = await kv.keys()
except (nats.js.errors.BucketNotFoundError, nats.js.errors.NoKeysError):
    keys = []
for key in keys:
    value = json.loads((await kv.get(key)).value)
    if value['state'] == 'claimed':
        print(key, value)";
        assert_eq!(self.world.nats.python(claims, &[]), "", "claims that are still held");
        let open = "SELECT group_concat(job_id) FROM jobs WHERE open = 1 AND ?1 = ''";
        assert_eq!(self.journal::<String>(open, ""), None, "open jobs");
    }
}
