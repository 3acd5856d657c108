//! What lies outside the agents: the queue, the claims, the statuses that were heard, the hosts
//! with their engines and folders, the store. Whatever breaks a promise is written down here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use lamda_node::agent::board::Board;
use lamda_node::bus::{PoolName, Target};
use lamda_node::clock::Timestamp;
use lamda_node::job::claim::Claim;
use lamda_node::job::{Cid, JobId};
use lamda_node::journal::Disk;
use lamda_node::node::{Address, GpuUuid};
use serde_json::Value;
use tokio::sync::Notify;

use super::dice::Weather;
use super::time::Time;

/// The exit code that an engine invents for what ran when its host went down.
pub(crate) const GONE_DARK: i32 = 255;

/// How long a delivery stays an agent's.
pub(crate) const ACK_WAIT_MS: (u64, u64) = (30_000, 120_000);

/// The world of one day. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) time: Time,
    state: Arc<Mutex<State>>,
    /// Rung when a message may be there for somebody.
    pub(crate) queued: Arc<Notify>,
    /// Rung when a process died, or a promise was broken.
    pub(crate) news: Arc<Notify>,
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
    pub(crate) hosts: Vec<Host>,
    pub(crate) broken: Option<String>,
    /// What happened, for whoever looks into a failed day; empty unless it is looked at.
    pub(crate) trace: Option<Vec<String>>,
    /// A number that any other order of events would change.
    pub(crate) fingerprint: u64,
    pub(crate) clocks_were_set: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: BTreeMap<u64, Message>,
    pub(crate) last_seq: u64,
    pub(crate) created_ns: i64,
    pub(crate) away_until_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
    pub(crate) delivered: u64,
    /// From when on it is given to somebody (again).
    pub(crate) free_at_ms: u64,
}

/// One machine with its engine, its folders and its journal.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) agent: Address,
    pub(crate) disk: Disk,
    /// Which life of the process is the present one; `None` while there is none.
    pub(crate) life: Option<u64>,
    pub(crate) lives: u64,
    pub(crate) engine_away_until_ms: u64,
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
    pub(crate) fn new(seed: u64, traced: bool, time: Time, disks: Vec<Disk>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = Weather::of(&mut rng);
        let hosts = disks.into_iter().zip(1..).map(|(disk, number)| Host {
            agent: Address::new([number; 20]),
            disk,
            life: None,
            lives: 0,
            engine_away_until_ms: 0,
            containers: BTreeMap::new(),
            folders: BTreeSet::new(),
            sealed: BTreeSet::new(),
            boots: 0,
            fetched: BTreeMap::new(),
            runs: Vec::new(),
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
            hosts,
            broken: None,
            trace: traced.then(Vec::new),
            fingerprint: seed,
            clocks_were_set: false,
        };
        Self {
            time,
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

    /// The process of a host ends here and now; with it the power, where `dark`.
    pub(crate) fn kill(&self, host: usize, dark: bool) {
        self.note(Some(host), || {
            format!("killed{}", if dark { ", and the power is gone" } else { "" })
        });
        self.settle_containers(host);
        let now = self.now();
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
    pub(crate) fn asks(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let state = self.state();
        let host = state.hosts.iter().find(|host| host.agent == holder)?;
        host.board.as_ref().filter(|_| host.life.is_some())?.asked_for(job)
    }

    /// The moment by the hosts' clocks.
    pub(crate) fn now(&self) -> Timestamp {
        use lamda_node::clock::Clock as _;
        self.time.now()
    }

    /// Lets containers end whose time has come.
    pub(crate) fn settle_containers(&self, host: usize) {
        let (ms, now) = (self.time.ms(), self.now());
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

impl Message {
    pub(crate) fn ack_wait_ms(&self) -> u64 {
        match self.target {
            Target::Agent(_) => ACK_WAIT_MS.0,
            Target::Pool(_) => ACK_WAIT_MS.1,
        }
    }
}
