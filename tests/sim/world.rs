//! The simulated world around the agents: the queue, the claims, the published statuses, the hosts with
//! their engines and folders, and the store. It also records the first broken promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use lamda_node::agent::jobs::board::Board;
use lamda_node::bus::{PoolName, Target};
use lamda_node::clock::Timestamp;
use lamda_node::ids::{Address, Cid, Hash, JobId};
use lamda_node::job::claim::Claim;
use lamda_node::node::GpuUuid;
use lamda_node::sql::Disk;
use serde_json::Value;
use tokio::sync::Notify;

use super::dice::Weather;
use super::leave::Leaving;
use super::plant::Plant;
use super::time::{HostClock, Time};

/// The exit code that an engine reports for a container that ran when its host went down.
pub(crate) const GONE_DARK: i32 = 255;

/// The ack waits of an agent's own queue and, unless an operator edits it, of a pool's.
pub(crate) const ACK_WAIT_MS: (u64, u64) = (30_000, 120_000);

/// How long a host that is able to act may take to stop a job that it has lost: a third of an ack wait
/// until it asks, and the stop itself.
pub(crate) const AMENDS_MS: u64 = 100_000;

/// The world of one day. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) time: Time,
    state: Arc<Mutex<State>>,
    /// Calls that take effect later even if their caller has died, by due time and order.
    late: Arc<Mutex<BTreeMap<(u64, u64), Late>>>,
    /// Notified when a message may be ready for delivery.
    pub(crate) queued: Arc<Notify>,
    /// Notified when a process died, a late call was queued, or a promise was broken.
    pub(crate) news: Arc<Notify>,
}

/// A call in flight, and the host whose engine it goes to, if any.
struct Late {
    engine_of: Option<usize>,
    act: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("engine_of", &self.engine_of).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) queue: Queue,
    pub(crate) claims: BTreeMap<(PoolName, JobId), (Claim, u64)>,
    pub(crate) revision: u64,
    /// The stream of statuses: the first body published under each sequence number.
    pub(crate) statuses: BTreeMap<(Address, JobId), BTreeMap<u64, Value>>,
    pub(crate) dead: Vec<Value>,
    pub(crate) store: BTreeSet<Cid>,
    pub(crate) store_refuses_until_ms: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) broken: Option<String>,
    /// The events of a traced day, for debugging.
    pub(crate) trace: Option<Vec<String>>,
    /// A hash of all events in their order.
    pub(crate) fingerprint: u64,
    pub(crate) clocks_were_set: bool,
    /// Jobs whose claim an operator removed or replaced by an older one.
    pub(crate) unclaimed: BTreeSet<JobId>,
    /// Jobs whose message left the queue without an ack.
    pub(crate) gone: BTreeSet<JobId>,
    /// Until when a job may be delivered to a second agent while one has it, because of a nak for an
    /// outdated delivery or a change by an operator.
    pub(crate) loose_until_ms: BTreeMap<JobId, u64>,
    /// The starts of pools' jobs that their claims count, by agent and attempt.
    pub(crate) starts: BTreeMap<JobId, BTreeSet<(Address, u32)>>,
    /// How often each status was published.
    pub(crate) said: BTreeMap<(Address, JobId, u64), u32>,
    /// The queue to which each job was sent.
    pub(crate) targets: BTreeMap<JobId, Target>,
    /// The planted defect.
    pub(crate) plant: Plant,
    /// Whether each step is compared with the journal.
    pub(crate) strict: bool,
    /// Whether any call took effect late.
    pub(crate) was_late: bool,
    /// The names of the journal's writes that were requested.
    pub(crate) writes: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: BTreeMap<u64, Message>,
    pub(crate) last_seq: u64,
    /// The highest sequence number that any queue of the day has assigned.
    pub(crate) top_seq: u64,
    pub(crate) created_ns: i64,
    pub(crate) away_until_ms: u64,
    /// Until when the server reports that there is no leader.
    pub(crate) leaderless_until_ms: u64,
    /// The ack wait of pools, if an operator edited it.
    pub(crate) pools_ack_wait_ms: Option<u64>,
}

/// How a host is cut off from the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing gets through.
    Both,
    /// Requests arrive, but no answer or message comes back.
    Deaf,
    /// No request arrives.
    Mute,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
    pub(crate) delivered: u64,
    /// From when on it may be delivered (again).
    pub(crate) free_at_ms: u64,
    /// The host of its last delivery, and which life of the host's process received it.
    pub(crate) held_by: Option<(usize, u64)>,
}

/// One machine with its engine, its folders and its journal.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) agent: Address,
    pub(crate) disk: Disk,
    /// The number of the running process; `None` if none runs.
    pub(crate) life: Option<u64>,
    pub(crate) lives: u64,
    /// When the running process started.
    pub(crate) began_ms: u64,
    pub(crate) engine_away_until_ms: u64,
    pub(crate) cut: Option<(Cut, u64)>,
    pub(crate) journal_slow_until_ms: u64,
    /// Until when containers that should have been stopped may still run.
    pub(crate) hindered_until_ms: u64,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) folders: BTreeSet<JobId>,
    /// The outputs that are synced to the disk, by job and attempt.
    pub(crate) sealed: BTreeSet<(JobId, u32)>,
    /// How often the host lost power: the number of the present boot.
    pub(crate) boots: u32,
    /// The boot in which an attempt's inputs were fetched.
    pub(crate) fetched: BTreeMap<(JobId, u32), u32>,
    /// All starts of containers on this host.
    pub(crate) runs: Vec<RunRecord>,
    /// The boot in which an attempt's output was written.
    pub(crate) written: BTreeMap<(JobId, u32), u32>,
    /// When each message was first delivered to it, by sequence number.
    pub(crate) given_ms: BTreeMap<u64, u64>,
    /// When it last repeated a job's terminal status.
    pub(crate) said_again_ms: BTreeMap<JobId, u64>,
    /// The hash of the body last delivered to it under an id.
    pub(crate) asks: BTreeMap<JobId, Hash>,
    /// The jobs that it was asked to cancel.
    pub(crate) cancelled: BTreeSet<JobId>,
    pub(crate) slots: usize,
    /// The jobs in hand of its running process.
    pub(crate) board: Option<Board>,
    /// What its owner last asked of a running process.
    pub(crate) leaving: Option<Leaving>,
}

impl Host {
    /// A host that nothing has happened to.
    fn new(number: u8, disk: Disk, slots: usize) -> Self {
        Self {
            agent: Address::new([number; 20]),
            disk,
            life: None,
            lives: 0,
            began_ms: 0,
            engine_away_until_ms: 0,
            cut: None,
            journal_slow_until_ms: 0,
            hindered_until_ms: 0,
            containers: BTreeMap::new(),
            folders: BTreeSet::new(),
            sealed: BTreeSet::new(),
            boots: 0,
            fetched: BTreeMap::new(),
            runs: Vec::new(),
            written: BTreeMap::new(),
            given_ms: BTreeMap::new(),
            said_again_ms: BTreeMap::new(),
            asks: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            slots,
            board: None,
            leaving: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) gpus: Vec<GpuUuid>,
    pub(crate) created_at: Timestamp,
    /// By when the node must have stopped it, in true time.
    pub(crate) due_ms: u64,
    pub(crate) state: Doing,
    /// Its index in [`Host::runs`], once started.
    pub(crate) run: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Created,
    Running { since: Timestamp, until_ms: u64, code: i32 },
    Exited { since: Timestamp, at: Timestamp, code: i32 },
}

/// One start of a container, kept for the checks after the container is gone.
#[derive(Debug, Clone)]
pub(crate) struct RunRecord {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    /// The exit code, if it exited.
    pub(crate) code: Option<i32>,
    /// Whether the node stopped it.
    pub(crate) stopped: bool,
    /// Whether somebody else removed it, or a power cut came before its output was synced.
    pub(crate) stolen: bool,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool, time: Time, disks: Vec<Disk>, plant: Plant) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = Weather::of(&mut rng);
        let hosts = disks.into_iter().zip(1..);
        let hosts = hosts.map(|(disk, number)| Host::new(number, disk, rng.usize(1..=2)));
        let hosts = hosts.collect();
        let state = State {
            rng,
            weather,
            queue: Queue { created_ns: 1, ..Queue::default() },
            claims: BTreeMap::new(),
            revision: 0,
            statuses: BTreeMap::new(),
            dead: Vec::new(),
            store: BTreeSet::new(),
            store_refuses_until_ms: 0,
            hosts,
            broken: None,
            trace: traced.then(Vec::new),
            fingerprint: seed,
            clocks_were_set: false,
            unclaimed: BTreeSet::new(),
            gone: BTreeSet::new(),
            loose_until_ms: BTreeMap::new(),
            starts: BTreeMap::new(),
            said: BTreeMap::new(),
            targets: BTreeMap::new(),
            plant,
            strict: plant != Plant::Nothing || seed.is_multiple_of(4),
            was_late: false,
            writes: BTreeSet::new(),
        };
        Self {
            time,
            late: Arc::default(),
            state: Arc::new(Mutex::new(state)),
            queued: Arc::default(),
            news: Arc::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event in the fingerprint and, if the day is traced, in the trace.
    pub(crate) fn note(&self, host: Option<usize>, what: impl FnOnce() -> String) {
        let ms = self.time.ms();
        let mut state = self.state();
        let text = what();
        let mut print = state.fingerprint ^ ms;
        for byte in text.bytes() {
            print = (print ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.fingerprint = print;
        if let Some(trace) = &mut state.trace {
            let who = host.map_or_else(|| "world".to_owned(), |host| format!("host {host}"));
            trace.push(format!("{:>5}.{:03} {who}: {text}", ms / 1000, ms % 1000));
        }
    }

    /// Records a broken promise, which ends the day. Only the first is kept.
    pub(crate) fn broken(&self, what: String) {
        self.note(None, || format!("BROKEN: {what}"));
        self.state().broken.get_or_insert(what);
        self.news.notify_one();
    }

    /// Draws whether a fault of this kind happens now.
    pub(crate) fn happens(&self, kind: impl Fn(&Weather) -> u32) -> bool {
        let mut state = self.state();
        let one_in = kind(&state.weather);
        one_in > 0 && state.rng.u32(..one_in) == 0
    }

    /// Draws a number below `limit`, which counts as at least 1.
    pub(crate) fn roll(&self, limit: u64) -> u64 {
        self.state().rng.u64(..limit.max(1))
    }

    /// Whether this life of the host's process still runs.
    pub(crate) fn lives(&self, host: usize, life: u64) -> bool {
        self.state().hosts[host].life == Some(life)
    }

    /// Whether this defect is planted.
    pub(crate) fn has(&self, plant: Plant) -> bool {
        self.state().plant == plant
    }

    /// The clock of a host.
    pub(crate) fn clock(&self, host: usize) -> HostClock {
        HostClock { time: self.time.clone(), host }
    }

    /// The wall-clock time that a host's clock shows.
    pub(crate) fn now_on(&self, host: usize) -> Timestamp {
        self.time.now_on(host)
    }

    /// Excuses a host for not stopping containers in time, until `until_ms` plus [`AMENDS_MS`].
    pub(crate) fn hinder(&self, host: usize, until_ms: u64) {
        let one = &mut self.state().hosts[host];
        one.hindered_until_ms = one.hindered_until_ms.max(until_ms + AMENDS_MS);
    }

    /// Lets a call take effect in `in_ms`. A call to an engine names its host in `engine_of`, and is lost
    /// if that host loses power before.
    pub(crate) fn later(
        &self,
        in_ms: u64,
        engine_of: Option<usize>,
        act: impl FnOnce() + Send + 'static,
    ) {
        let due = self.time.ms() + in_ms;
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = late.len() as u64;
        while late.contains_key(&(due, place)) {
            place += 1;
        }
        late.insert((due, place), Late { engine_of, act: Box::new(act) });
        drop(late);
        self.news.notify_one();
    }

    /// When the next late call is due, in milliseconds since the day began.
    pub(crate) fn next_late(&self) -> Option<u64> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.first_key_value().map(|((due, _), _)| *due)
    }

    /// Carries out the late calls that are due.
    pub(crate) fn settle_late(&self) {
        while self.next_late().is_some_and(|due| due <= self.time.ms()) {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            let first = late.pop_first();
            drop(late);
            if let Some((_, late)) = first {
                self.note(None, || "a call takes effect late".to_owned());
                self.state().was_late = true;
                (late.act)();
            }
        }
    }

    /// Kills the process of a host and, if `dark`, cuts the host's power.
    pub(crate) fn kill(&self, host: usize, dark: bool) {
        self.note(Some(host), || {
            format!("killed{}", if dark { ", and the power is gone" } else { "" })
        });
        self.settle_containers(host);
        if dark {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.retain(|_, late| late.engine_of != Some(host));
        }
        let now = self.now_on(host);
        let mut state = self.state();
        let one = &mut state.hosts[host];
        one.life = None;
        if dark {
            one.disk.lose_power().expect("a disk in memory");
            one.boots += 1;
            for container in one.containers.values_mut() {
                // Its output was not synced and may be incomplete, so a new attempt is allowed.
                let synced = one.sealed.contains(&(container.job.clone(), container.attempt));
                if let Some(run) = container.run.filter(|_| !synced) {
                    one.runs[run].stolen = true;
                }
                if let Doing::Running { since, .. } = container.state {
                    container.state = Doing::Exited { since, at: now, code: GONE_DARK };
                }
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// An agent's answer to the question whether it holds a job; `None` if it is down or cut off.
    pub(crate) fn answer_of(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let ms = self.time.ms();
        let state = self.state();
        let host = state.hosts.iter().find(|host| host.agent == holder)?;
        if host.cut.is_some_and(|(_, until_ms)| until_ms > ms) {
            return None;
        }
        host.board.as_ref().filter(|_| host.life.is_some())?.asked_for(job)
    }

    /// Ends the containers whose run time is over.
    pub(crate) fn settle_containers(&self, host: usize) {
        let (ms, now) = (self.time.ms(), self.now_on(host));
        let mut state = self.state();
        let one = &mut state.hosts[host];
        for container in one.containers.values_mut() {
            if let Doing::Running { since, until_ms, code } = container.state
                && until_ms <= ms
            {
                let at = Timestamp::from_unix_ms(now.unix_ms() - (ms - until_ms));
                container.state = Doing::Exited { since, at: at.max(since), code };
                if let Some(run) = container.run {
                    one.runs[run].code = Some(code);
                }
            }
        }
    }
}

impl Host {
    /// Removes a container as somebody other than the node.
    pub(crate) fn steal(&mut self, name: &str) {
        if let Some(container) = self.containers.remove(name)
            && let Some(run) = container.run
        {
            self.runs[run].stolen = true;
        }
    }
}

impl Queue {
    /// The ack wait of the target's consumer, in milliseconds.
    pub(crate) const fn ack_wait_ms(&self, target: &Target) -> u64 {
        match (target, self.pools_ack_wait_ms) {
            (Target::Agent(_), _) => ACK_WAIT_MS.0,
            (Target::Pool(_), Some(edited)) => edited,
            (Target::Pool(_), None) => ACK_WAIT_MS.1,
        }
    }
}

impl Message {
    /// The job's id, if the body is a valid job.
    pub(crate) fn job(&self) -> Option<JobId> {
        lamda_node::job::spec::parse(&self.body).ok().map(|parsed| parsed.spec.id)
    }
}

impl State {
    /// Excuses deliveries of the job to a second agent until `until_ms`: its message may be delivered
    /// while an agent still has it.
    pub(crate) fn disturb(&mut self, job: JobId, until_ms: u64) {
        self.loose_until_ms.insert(job, until_ms);
    }

    /// Whether a container of a pool's job may run on a host that does not hold the claim.
    pub(crate) fn may_overlap(&self, host: usize, job: &JobId, ms: u64) -> bool {
        let one = &self.hosts[host];
        // No process, or one so young that its recovery could not have stopped the container yet.
        let dead = one.life.is_none() || ms < one.began_ms + AMENDS_MS;
        let hindered = ms < one.hindered_until_ms;
        let loose = self.loose_until_ms.get(job).is_some_and(|until| ms < *until);
        dead || hindered || loose || self.unclaimed.contains(job)
    }
}
