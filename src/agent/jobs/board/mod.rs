//! The jobs in hand, and the slots, GPUs and share of the host that they hold.
//!
//! Invariants: only [`admission`] decides which job goes when, under one lock with everything that
//! the jobs hold. What a job holds counts as long as its phase says so, also across a restart.
//! While the node is not fit ([`fitness`]) no job is taken in.
//!
//! [`admission`]: crate::node::admission
//! [`fitness`]: crate::node::fitness

mod cards;
mod census;
mod fitness;
mod line;
mod look;
mod room;

mod in_hand;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

pub use cards::{Left, Tenancy};
pub use census::{Census, Sum, Tally};
pub use in_hand::InHand;
pub use look::Running;

use super::terms::{Terms, disk_bytes};
use crate::agent::events::Events;
use crate::bus::{AckHandle, PoolName};
use crate::ids::{Address, Hash, JobId};
use crate::job::claim::{Stand, Start};
use crate::job::phase::{Phase, Run, StopCause};
use crate::job::{Job, JobSpec, Reason};
use crate::node::GpuUuid;
use crate::node::admission::{Demand, Held, Offer, Share, Verdict, decide};
use crate::node::fitness::{Fitness, Unfit};

/// A request to stop a job.
#[derive(Debug)]
pub struct StopRequest {
    /// Why the job should stop.
    pub cause: StopCause,
    /// Receives whether the request took effect.
    pub answer: oneshot::Sender<bool>,
}

/// The jobs in hand. Clones share the same board.
#[derive(Debug, Clone)]
pub struct Board {
    state: Arc<Mutex<State>>,
    /// Notified at each change; wakes its waiters in the order in which they began to wait.
    changed: Arc<Notify>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the node by itself")]
struct State {
    terms: Terms,
    entries: BTreeMap<JobId, Entry>,
    /// Jobs that wait to reserve, keyed by negated priority, then by arrival.
    queue: BTreeMap<(i32, u64), JobId>,
    arrivals: u64,
    /// How many jobs have ever been entered.
    taken: u64,
    /// How often a delivery in hand was doubted.
    doubts: u64,
    /// Jobs delivered to this agent whose claim holders did not answer.
    silent: BTreeMap<JobId, Start>,
    /// No more jobs are taken in.
    draining: bool,
    /// The node is shutting down: no open job is resumed either.
    closed: bool,
    fitness: Fitness,
    /// The last verdict.
    unfit: Option<Unfit>,
    /// Whether the last log line about fitness says that no job is taken.
    is_unfit_told: bool,
    /// How many failures of jobs a look at the host may explain.
    symptoms: u64,
    /// How many jobs did not get their inputs.
    unfetched: u64,
    /// Whether it was taken in what an earlier process's jobs may have written.
    is_written_known: bool,
    /// Whether somebody looks at the cards that jobs leave.
    watches_cards: bool,
    /// Those that were not seen free yet.
    left: BTreeMap<GpuUuid, Left>,
    /// Cards that programs of the host use, and which.
    foreign: BTreeMap<GpuUuid, String>,
    /// Which jobs of the queue may go now, until anything else changes: each of a thousand waiting jobs asks at
    /// every change.
    round: Option<BTreeMap<(i32, u64), Vec<GpuUuid>>>,
    /// Whether no stranger's job gets a GPU.
    bars_strangers: bool,
    /// Where it is told whether jobs are taken.
    events: Events,
    tally: Tally,
}

/// The state, to be read.
struct Seen<'a>(MutexGuard<'a, State>);

impl Deref for Seen<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the job by itself")]
struct Entry {
    stop: mpsc::Sender<StopRequest>,
    delivery: Option<AckHandle>,
    phase: &'static str,
    node: Address,
    pool: Option<PoolName>,
    attempt: u32,
    spec_hash: Hash,
    stand: Stand,
    doubts: u64,
    demand: Demand,
    wants_slot: bool,
    started: bool,
    holds: Option<Vec<GpuUuid>>,
    process: Process,
    requester: Option<Address>,
    /// It holds resources, but no task has it in hand: its container may be running.
    abandoned: bool,
    /// It was given back, or may be another agent's: its lease is not renewed.
    is_let_go: bool,
    /// The store refuses uploads until the node's owner acts.
    refused: bool,
    /// It has run, and the store refuses this output alone: no reason to refuse other jobs.
    oversized: bool,
    /// It has run, and waits to retry a later step, such as publishing its output.
    rests: bool,
}

/// What is known about a job's container, ahead of the journal.
#[derive(Debug)]
enum Process {
    /// It is not known to run.
    None,
    /// It runs or may run; its start may not be journaled yet.
    Runs(Running),
    /// It runs until its stop has taken effect.
    Stops(Running),
    /// It has exited; that may not be journaled yet.
    Exited,
}

impl Process {
    /// The engine's id of the container, as long as a process of the job's may be left in it.
    fn container(&self) -> Option<&str> {
        match self {
            Self::Runs(running) | Self::Stops(running) => Some(&running.container),
            Self::None | Self::Exited => None,
        }
    }

    fn of(job: &Job) -> Self {
        match &job.phase {
            Phase::Starting { container: Some(container), .. }
            | Phase::Running { run: Run { container, .. } } => {
                Self::Runs(Running::of(job, container))
            }
            Phase::Stopping { run, .. } => Self::Stops(Running::of(job, &run.container)),
            _ => Self::None,
        }
    }

    /// Follows the job's phase, but keeps `Exited` as long as the phase only lags behind.
    fn moved(&mut self, job: &Job) {
        let seems_to_run = matches!(job.phase, Phase::Running { .. } | Phase::Stopping { .. });
        if !(matches!(self, Self::Exited) && seems_to_run) {
            *self = Self::of(job);
        }
    }
}

impl State {
    fn is_refused(&self) -> bool {
        self.entries.values().any(|entry| entry.refused)
    }

    /// What the node offers, without the cards that are missing or set aside.
    fn offer(&self) -> Offer {
        let mut offer = self.terms.offer.clone();
        let out = self.fitness.out();
        offer.gpus.retain(|gpu| !out.contains(&gpu.uuid));
        offer
    }
}

impl Entry {
    fn moved(&mut self, job: &Job) {
        self.phase = job.phase.name();
        let is_same = self.attempt == job.attempt;
        self.started = job.phase.may_have_started() || self.started && is_same;
        self.attempt = job.attempt;
        self.stand = job.phase.stand();
        self.wants_slot = job.phase.wants_slot();
        self.is_let_go = job.phase.is_let_go();
        self.process.moved(job);
        let has_exited = matches!(self.process, Process::Exited);
        let holds = job.phase.holds().filter(|_| !has_exited);
        self.holds = holds.map(<[GpuUuid]>::to_vec);
        self.wants_slot &= !has_exited;
        let trouble = job.trouble.as_ref();
        let is_of = |reason| trouble.is_some_and(|it| it.fault.reason == reason);
        self.refused = is_of(Reason::StoreRefused);
        self.oversized = is_of(Reason::OutputRefused);
        self.rests = !self.wants_slot && trouble.is_some();
    }

    fn held(&self) -> Option<Held<'_>> {
        Some(Held { gpus: self.holds.as_ref()?, share: self.demand.share })
    }
}

impl Board {
    /// An empty board of a node with these terms.
    pub fn new(terms: Terms) -> Self {
        let fitness = Fitness::of(terms.offer.gpus.len());
        let state = State {
            fitness,
            unfit: None,
            is_unfit_told: false,
            symptoms: 0,
            unfetched: 0,
            is_written_known: false,
            watches_cards: false,
            left: BTreeMap::new(),
            foreign: BTreeMap::new(),
            bars_strangers: false,
            tally: Tally::default(),
            terms,
            entries: BTreeMap::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            taken: 0,
            doubts: 0,
            silent: BTreeMap::new(),
            draining: false,
            closed: false,
            round: None,
            events: Events::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to be changed: what was decided for the jobs that wait is decided again.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.round = None;
        state
    }

    fn seen(&self) -> Seen<'_> {
        Seen(self.lock())
    }

    fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Enters a job, with the cards that it holds already. Returns the receiver of its stop
    /// requests, or `None` if a task has it in hand already. Takes over an abandoned one.
    pub fn enter(
        &self,
        job: &Job,
        delivery: Option<AckHandle>,
    ) -> Option<mpsc::Receiver<StopRequest>> {
        let (stop, requests) = mpsc::channel(4);
        let mut state = self.state();
        if state.entries.get(job.id()).is_some_and(|entry| !entry.abandoned) {
            return None;
        }
        let demand = state.terms.demand(&job.spec);
        // What it holds is set before the entry is visible, or another job could be given it.
        let mut entry = Entry {
            stop,
            delivery,
            phase: "",
            node: job.node,
            pool: job.pool().and_then(|pool| pool.parse().ok()),
            attempt: job.attempt,
            spec_hash: job.spec_hash,
            stand: Stand::Open,
            doubts: 0,
            demand,
            wants_slot: true,
            started: false,
            holds: None,
            process: Process::None,
            requester: job.spec.requester,
            abandoned: false,
            is_let_go: false,
            refused: false,
            oversized: false,
            rests: false,
        };
        entry.moved(job);
        state.entries.insert(job.id().clone(), entry);
        state.taken += 1;
        state.tell();
        drop(state);
        self.notify();
        Some(requests)
    }

    /// Updates the entry from the job's present phase.
    pub fn moved(&self, job: &Job) {
        let mut state = self.state();
        // A container that is lost leaves its cards as one that ends.
        if job.phase.holds().is_none() {
            state.leaves(job.id());
        }
        if let Some(entry) = state.entries.get_mut(job.id()) {
            let (before, held) = (entry.phase, entry.holds.clone().unwrap_or_default());
            entry.moved(job);
            state.tally.moved(before, job);
            state.learn(before, &held, job);
            state.tell();
        } else {
            state.tally.moved("", job);
        }
        drop(state);
        self.notify();
    }

    /// Removes the job: it needs nothing more.
    pub fn leave(&self, id: &JobId) {
        let mut state = self.state();
        state.entries.remove(id);
        state.silent.remove(id);
        state.tell();
        drop(state);
        self.notify();
    }

    /// Calls `look` again at each change, until it returns an answer.
    async fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            // Registered before the look, so that a change between the two is not missed.
            let changed = self.changed.notified();
            if let Some(answer) = look() {
                return answer;
            }
            changed.await;
        }
    }

    /// The verdict on a job that came now, behind all jobs in hand that hold nothing yet, whether
    /// they are queued already or still being prepared. A pool's job that would have to wait is
    /// better off with another agent.
    pub fn verdict(&self, spec: &JobSpec) -> Verdict {
        let state = self.seen();
        let left = state.just_left();
        let held = state.entries.values().filter_map(Entry::held);
        let left = (!left.is_empty()).then_some(Held { gpus: &left, share: Share::default() });
        let held: Vec<Held<'_>> = held.chain(left).collect();
        let to_come =
            state.entries.values().filter(|entry| entry.wants_slot && entry.holds.is_none());
        let ahead: Vec<&Demand> = to_come.map(|entry| &entry.demand).collect();
        decide(&state.offer(), &held, &ahead, &state.terms.demand(spec))
    }

    /// Asks a job to stop. `None` if it is not in hand, otherwise whether the request took effect.
    /// A job that has run is not asked: an upload would see the request only once it is done.
    pub async fn stop(&self, id: &JobId, cause: StopCause) -> Option<bool> {
        let asked = self.seen().entries.get(id).map(|it| (it.wants_slot, it.stop.clone()))?;
        let (true, stop) = asked else { return Some(false) };
        let (answer, answered) = oneshot::channel();
        stop.send(StopRequest { cause, answer }).await.ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests;
