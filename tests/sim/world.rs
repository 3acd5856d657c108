//! What lies outside the agents: the queue, the claims, the statuses that were heard, the hosts
//! with their engines and folders, the store. Whatever breaks a promise is written down here.

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
use super::plant::Plant;
use super::time::{HostClock, Time};

/// The exit code that an engine invents for what ran when its host went down.
pub(crate) const GONE_DARK: i32 = 255;

/// How long a delivery stays an agent's, and a pool's, until somebody edits it.
pub(crate) const ACK_WAIT_MS: (u64, u64) = (30_000, 120_000);

/// How long a host may take, once it can, to stop what is not its own any more: a third of an ack
/// wait until it asks, and the stop itself.
pub(crate) const AMENDS_MS: u64 = 100_000;

/// The world of one day. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) time: Time,
    state: Arc<Mutex<State>>,
    /// Calls that take effect later, whoever lives then, by when.
    late: Arc<Mutex<BTreeMap<(u64, u64), Late>>>,
    /// Rung when a message may be there for somebody.
    pub(crate) queued: Arc<Notify>,
    /// Rung when a process died, or a promise was broken.
    pub(crate) news: Arc<Notify>,
}

/// A call on its way, and the host whose engine it goes to, if any.
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
    /// The stream of statuses: the first body said of each number.
    pub(crate) statuses: BTreeMap<(Address, JobId), BTreeMap<u64, Value>>,
    pub(crate) dead: Vec<Value>,
    pub(crate) store: BTreeSet<Cid>,
    pub(crate) store_refuses_until_ms: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) broken: Option<String>,
    /// What happened, for whoever looks into a failed day; empty unless it is looked at.
    pub(crate) trace: Option<Vec<String>>,
    /// A number that any other order of events would change.
    pub(crate) fingerprint: u64,
    pub(crate) clocks_were_set: bool,
    /// Jobs whose claim an operator removed, or put back to what it was.
    pub(crate) unclaimed: BTreeSet<JobId>,
    /// Jobs whose message left the queue unanswered.
    pub(crate) gone: BTreeSet<JobId>,
    /// Until when a job may be given to another agent though one has it: somebody answered for it
    /// late, or an operator changed the queue.
    pub(crate) loose_until_ms: BTreeMap<JobId, u64>,
    /// The starts of pools' jobs that count, as their claims have them: by whom, and which attempt.
    pub(crate) starts: BTreeMap<JobId, BTreeSet<(Address, u32)>>,
    /// How often each status was said.
    pub(crate) said: BTreeMap<(Address, JobId, u64), u32>,
    /// Whose jobs these are.
    pub(crate) targets: BTreeMap<JobId, Target>,
    /// The defect that is planted.
    pub(crate) plant: Plant,
    /// Whether each step is held against the journal.
    pub(crate) strict: bool,
    /// Whether a call took effect late.
    pub(crate) was_late: bool,
    /// Names of the writes that were made.
    pub(crate) writes: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: BTreeMap<u64, Message>,
    pub(crate) last_seq: u64,
    /// The highest number that any queue of the day has given.
    pub(crate) top_seq: u64,
    pub(crate) created_ns: i64,
    pub(crate) away_until_ms: u64,
    /// Until when the server says that nobody leads.
    pub(crate) leaderless_until_ms: u64,
    /// As an operator edited it.
    pub(crate) pools_ack_wait_ms: Option<u64>,
}

/// How a host is cut off from the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing goes through.
    Both,
    /// What it asks arrives, and no answer comes back.
    Deaf,
    /// Nothing that it asks arrives.
    Mute,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
    pub(crate) delivered: u64,
    /// From when on it is given to somebody (again).
    pub(crate) free_at_ms: u64,
    /// Which host it was given to last, and in which life of its process.
    pub(crate) held_by: Option<(usize, u64)>,
}

/// One machine with its engine, its folders and its journal.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) agent: Address,
    pub(crate) disk: Disk,
    /// Which life of the process is the present one; `None` while there is none.
    pub(crate) life: Option<u64>,
    pub(crate) lives: u64,
    /// When the present life began.
    pub(crate) began_ms: u64,
    pub(crate) engine_away_until_ms: u64,
    pub(crate) cut: Option<(Cut, u64)>,
    pub(crate) journal_slow_until_ms: u64,
    /// Until when what it should have stopped may still run there.
    pub(crate) hindered_until_ms: u64,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) folders: BTreeSet<JobId>,
    /// Outputs that are synced to the disk.
    pub(crate) sealed: BTreeSet<(JobId, u32)>,
    /// How often it lost its power.
    pub(crate) boots: u32,
    /// In which of these lives the inputs of an attempt were fetched.
    pub(crate) fetched: BTreeMap<(JobId, u32), u32>,
    /// Every container that was ever started here.
    pub(crate) runs: Vec<RunRecord>,
    /// Outputs that are written, and in which of these lives.
    pub(crate) written: BTreeMap<(JobId, u32), u32>,
    /// When each message was given to it first.
    pub(crate) given_ms: BTreeMap<u64, u64>,
    /// When it last said an end again.
    pub(crate) said_again_ms: BTreeMap<JobId, u64>,
    /// The body that it was given last under an id.
    pub(crate) asks: BTreeMap<JobId, Hash>,
    /// Which jobs were asked to be cancelled.
    pub(crate) cancelled: BTreeSet<JobId>,
    pub(crate) slots: usize,
    /// What its present process has in hand.
    pub(crate) board: Option<Board>,
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) gpus: Vec<GpuUuid>,
    pub(crate) created_at: Timestamp,
    /// By when the node should have stopped it, by true time.
    pub(crate) due_ms: u64,
    pub(crate) state: Doing,
    /// Its place in [`Host::runs`].
    pub(crate) run: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Created,
    Running { since: Timestamp, until_ms: u64, code: i32 },
    Exited { since: Timestamp, at: Timestamp, code: i32 },
}

/// A container's life, kept for the judgement.
#[derive(Debug, Clone)]
pub(crate) struct RunRecord {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    /// The exit code, where it ended.
    pub(crate) code: Option<i32>,
    /// Whether the node stopped it.
    pub(crate) stopped: bool,
    /// Whether it was taken away by somebody else, or by a power cut.
    pub(crate) stolen: bool,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool, time: Time, disks: Vec<Disk>, plant: Plant) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = Weather::of(&mut rng);
        let hosts = disks.into_iter().zip(1..).map(|(disk, number)| Host {
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
            slots: rng.usize(1..=2),
            board: None,
        });
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

    /// Writes down what happened.
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

    /// Writes down a promise that was broken; the day ends.
    pub(crate) fn broken(&self, what: String) {
        self.note(None, || format!("BROKEN: {what}"));
        self.state().broken.get_or_insert(what);
        self.news.notify_one();
    }

    /// Whether a fault of this kind happens now.
    pub(crate) fn happens(&self, kind: impl Fn(&Weather) -> u32) -> bool {
        let mut state = self.state();
        let one_in = kind(&state.weather);
        one_in > 0 && state.rng.u32(..one_in) == 0
    }

    /// A number below `limit`.
    pub(crate) fn roll(&self, limit: u64) -> u64 {
        self.state().rng.u64(..limit.max(1))
    }

    /// Whether this life of the process still goes on.
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

    /// The moment by a host's clock.
    pub(crate) fn now_on(&self, host: usize) -> Timestamp {
        self.time.now_on(host)
    }

    /// What keeps a host from stopping in time what it should, until then and a while longer.
    pub(crate) fn hinder(&self, host: usize, until_ms: u64) {
        let one = &mut self.state().hosts[host];
        one.hindered_until_ms = one.hindered_until_ms.max(until_ms + AMENDS_MS);
    }

    /// A call takes effect in so long. `engine_of`: whose engine it went to; that one forgets it
    /// with its power.
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

    /// When the next of these is due.
    pub(crate) fn next_late(&self) -> Option<u64> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.first_key_value().map(|((due, _), _)| *due)
    }

    /// Lets those take effect whose time has come.
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

    /// The process of a host ends here and now; with it the power, where `dark`.
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
                // What it left was not synced: nobody can say that it is whole.
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

    /// What an agent answers that is asked whether it is at work on a job; nothing where none runs.
    pub(crate) fn answer_of(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let ms = self.time.ms();
        let state = self.state();
        let host = state.hosts.iter().find(|host| host.agent == holder)?;
        if host.cut.is_some_and(|(_, until_ms)| until_ms > ms) {
            return None;
        }
        host.board.as_ref().filter(|_| host.life.is_some())?.asked_for(job)
    }

    /// Lets containers end whose time has come.
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
    /// Somebody else removes a container.
    pub(crate) fn steal(&mut self, name: &str) {
        if let Some(container) = self.containers.remove(name)
            && let Some(run) = container.run
        {
            self.runs[run].stolen = true;
        }
    }
}

impl Queue {
    /// How long a delivery of this target stays whose it is.
    pub(crate) const fn ack_wait_ms(&self, target: &Target) -> u64 {
        match (target, self.pools_ack_wait_ms) {
            (Target::Agent(_), _) => ACK_WAIT_MS.0,
            (Target::Pool(_), Some(edited)) => edited,
            (Target::Pool(_), None) => ACK_WAIT_MS.1,
        }
    }
}

impl Message {
    /// The id of the job, where it is one.
    pub(crate) fn job(&self) -> Option<JobId> {
        lamda_node::job::spec::parse(&self.body).ok().map(|parsed| parsed.spec.id)
    }
}

impl State {
    /// A message that leaves the queue unanswered, or comes back to it as it was: from now on its
    /// job may be given to anybody.
    pub(crate) fn disturb(&mut self, job: JobId, until_ms: u64) {
        self.loose_until_ms.insert(job, until_ms);
    }

    /// Whether a container of a pool's job may run on a host that has not its claim.
    pub(crate) fn may_overlap(&self, host: usize, job: &JobId, ms: u64) -> bool {
        let one = &self.hosts[host];
        // Dead, or not yet at the point where recovery could have stopped it.
        let dead = one.life.is_none() || ms < one.began_ms + AMENDS_MS;
        let hindered = ms < one.hindered_until_ms;
        let loose = self.loose_until_ms.get(job).is_some_and(|until| ms < *until);
        dead || hindered || loose || self.unclaimed.contains(job)
    }
}
