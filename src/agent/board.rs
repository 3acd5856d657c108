//! Who is at work: the jobs in hand, the slots and the cards that they hold.
//!
//! What must hold: a card is held by at most one job, and never more jobs hold a slot than there
//! are slots; whoever waits longest at the highest priority goes first, so that no job is starved
//! by smaller ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use crate::bus::AckHandle;
use crate::job::phase::StopCause;
use crate::job::{Job, JobId};
use crate::node::allocation::{Wish, choose};
use crate::node::{Gpu, GpuUuid};

/// A request to stop a job; answered with whether it took effect.
#[derive(Debug)]
pub struct StopRequest {
    /// Why.
    pub cause: StopCause,
    /// Whether it was still possible.
    pub answer: oneshot::Sender<bool>,
}

/// The jobs in hand. Clones share one board.
#[derive(Debug, Clone)]
pub struct Board {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    gpus: Vec<Gpu>,
    slots: usize,
    entries: BTreeMap<JobId, Entry>,
    /// Who waits for a slot: priority first (negated), then arrival.
    queue: BTreeMap<(i32, u64), JobId>,
    arrivals: u64,
    /// No more jobs are taken in.
    draining: bool,
}

#[derive(Debug)]
struct Entry {
    stop: mpsc::Sender<StopRequest>,
    delivery: Option<AckHandle>,
    phase: &'static str,
    wants_slot: bool,
    started: bool,
    holds: Option<Vec<GpuUuid>>,
}

impl Board {
    /// An empty board for these cards and this many jobs at a time.
    pub fn new(gpus: Vec<Gpu>, slots: usize) -> Self {
        let state = State {
            gpus,
            slots,
            entries: BTreeMap::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            draining: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(watch::Sender::new(0)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Puts a job on the board, with the cards that it holds already. Returns where its requests to
    /// stop arrive, or `None` where it is there already.
    pub fn enter(
        &self,
        job: &Job,
        delivery: Option<AckHandle>,
    ) -> Option<mpsc::Receiver<StopRequest>> {
        let (stop, requests) = mpsc::channel(4);
        let mut state = self.state();
        if state.entries.contains_key(job.id()) {
            return None;
        }
        let entry =
            Entry { stop, delivery, phase: "", wants_slot: true, started: false, holds: None };
        state.entries.insert(job.id().clone(), entry);
        drop(state);
        self.moved(job);
        Some(requests)
    }

    /// The job is in another phase now.
    pub fn moved(&self, job: &Job) {
        if let Some(entry) = self.state().entries.get_mut(job.id()) {
            entry.phase = job.phase.name();
            entry.wants_slot = job.phase.wants_slot();
            entry.holds = job.phase.holds().map(<[GpuUuid]>::to_vec);
            entry.started |= entry.holds.is_some();
        }
        self.notify();
    }

    /// The job needs nothing more.
    pub fn leave(&self, id: &JobId) {
        self.state().entries.remove(id);
        self.notify();
    }

    /// Waits for a slot and for cards, and takes them. Dropping the future gives up the place.
    pub async fn reserve(&self, job: &Job, wish: Wish<'_>) -> Vec<GpuUuid> {
        let place = self.line_up(job);
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(gpus) = self.take(&place, &wish) {
                return gpus;
            }
            // The sender lives in `self`: it can't be gone.
            changed.changed().await.ok();
        }
    }

    fn line_up(&self, job: &Job) -> Place {
        let mut state = self.state();
        state.arrivals += 1;
        let key = (-job.spec.priority, state.arrivals);
        state.queue.insert(key, job.id().clone());
        Place { board: self.clone(), key, id: job.id().clone() }
    }

    /// Takes what the first in the line wants, where it is free now.
    fn take(&self, place: &Place, wish: &Wish<'_>) -> Option<Vec<GpuUuid>> {
        let mut state = self.state();
        let first = state.queue.keys().next() == Some(&place.key);
        let held: Vec<&Vec<GpuUuid>> =
            state.entries.values().filter_map(|entry| entry.holds.as_ref()).collect();
        if !first || held.len() >= state.slots {
            return None;
        }
        let taken: BTreeSet<GpuUuid> = held.into_iter().flatten().cloned().collect();
        let gpus = choose(&state.gpus, &taken, wish)?;
        state.entries.get_mut(&place.id)?.holds = Some(gpus.clone());
        Some(gpus)
    }

    /// How many more jobs may be taken in: the free slots, and `ahead` more to be made ready.
    pub fn room(&self, ahead: usize) -> usize {
        let state = self.state();
        if state.draining {
            return 0;
        }
        let wanting = state.entries.values().filter(|entry| entry.wants_slot).count();
        (state.slots + ahead).saturating_sub(wanting)
    }

    /// Takes no more jobs in, until the node starts again.
    pub fn drain(&self) {
        self.state().draining = true;
        self.notify();
    }

    /// Waits until [`Board::drain`] is called.
    pub async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_draining() {
            changed.borrow_and_update();
            if self.is_draining() {
                return;
            }
            // The sender lives in `self`: it can't be gone.
            changed.changed().await.ok();
        }
    }

    /// Whether [`Board::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Waits until there is room.
    pub async fn wait_for_room(&self, ahead: usize) -> usize {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let room = self.room(ahead);
            if room > 0 {
                return room;
            }
            changed.changed().await.ok();
        }
    }

    /// Asks a job to stop; `None` where it is not in hand, else whether it took effect.
    pub async fn stop(&self, id: &JobId, cause: StopCause) -> Option<bool> {
        let stop = self.state().entries.get(id)?.stop.clone();
        let (answer, answered) = oneshot::channel();
        stop.send(StopRequest { cause, answer }).await.ok()?;
        answered.await.ok()
    }

    /// The ids of the jobs in hand; with `started` only those whose container was (not) started.
    pub fn ids(&self, started: Option<bool>) -> Vec<JobId> {
        let state = self.state();
        let wanted = |entry: &Entry| started.is_none_or(|started| entry.started == started);
        let chosen = state.entries.iter().filter(|(_, entry)| wanted(entry));
        chosen.map(|(id, _)| id.clone()).collect()
    }

    /// Jobs in hand by the name of their phase.
    pub fn phases(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.state().entries.values() {
            *counts.entry(entry.phase.to_owned()).or_default() += 1;
        }
        counts
    }

    /// How each delivery in hand is acknowledged.
    pub fn deliveries(&self) -> Vec<(JobId, AckHandle)> {
        let state = self.state();
        let pairs = state.entries.iter();
        pairs.filter_map(|(id, entry)| Some((id.clone(), entry.delivery.clone()?))).collect()
    }

    /// How the job's delivery is acknowledged.
    pub fn delivery(&self, id: &JobId) -> Option<AckHandle> {
        self.state().entries.get(id)?.delivery.clone()
    }

    /// The job was delivered again: from now on this is how it is acknowledged.
    pub fn redelivered(&self, id: &JobId, delivery: Option<AckHandle>) {
        if let Some(entry) = self.state().entries.get_mut(id) {
            entry.delivery = delivery;
        }
    }

    /// Waits until the board is empty.
    pub async fn wait_until_empty(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.state().entries.is_empty() {
                return;
            }
            changed.changed().await.ok();
        }
    }
}

/// A place in the line; given up when dropped.
struct Place {
    board: Board,
    key: (i32, u64),
    id: JobId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.state().queue.remove(&self.key);
        self.board.notify();
    }
}
