//! The jobs that wait to reserve what they need: who may go now, and with which cards.
//!
//! Invariants: what was decided for the line stands until anything but a start out of it changes; who starts takes
//! what was set aside for it, so that the verdicts on the others stay the same.

use std::collections::BTreeMap;

use super::{Board, Entry, GpuUuid, Job, JobId, State};
use crate::node::admission::{Demand, Held, round};

impl State {
    /// The jobs of the queue that may go now, with their cards.
    fn round(&self) -> BTreeMap<(i32, u64), Vec<GpuUuid>> {
        let held: Vec<Held<'_>> = self.entries.values().filter_map(Entry::held).collect();
        let mut offer = self.offer();
        // A card that has not been tried yet is offered to nobody; a job that needs it waits.
        // Nor is one that a job has left and that was not seen free.
        let is_free =
            |card: &GpuUuid| self.fitness.was_tried(card) && !self.left.contains_key(card);
        offer.gpus.retain(|gpu| is_free(&gpu.uuid));
        let waiting = self.queue.iter();
        let line: Vec<((i32, u64), &Demand)> =
            waiting.filter_map(|(key, id)| Some((*key, &self.entries.get(id)?.demand))).collect();
        let starts = round(&offer, &held, line.iter().map(|(_, demand)| *demand));
        starts.into_iter().map(|(place, cards)| (line[place].0, cards)).collect()
    }
}

impl Board {
    /// Waits until the job may go, and reserves what it needs. Dropping the future gives up its
    /// place in the queue.
    pub async fn reserve(&self, job: &Job) -> Vec<GpuUuid> {
        let place = self.line_up(job);
        self.wait_for(|| self.take(&place)).await
    }

    pub(super) fn line_up(&self, job: &Job) -> Place {
        let mut state = self.state();
        state.arrivals += 1;
        let key = (-job.spec.priority, state.arrivals);
        state.queue.insert(key, job.id().clone());
        Place { board: self.clone(), key, id: job.id().clone() }
    }

    /// Reserves what the job at this place needs, if it may go now. That changes no verdict on the others: what
    /// it takes was set aside for it.
    pub(super) fn take(&self, place: &Place) -> Option<Vec<GpuUuid>> {
        let mut state = self.lock();
        let mut round = state.round.take().unwrap_or_else(|| state.round());
        // A job that can't run here any more waits for a restart with other hardware, its deadline
        // or a cancellation; `recover` fails those that are not ready yet.
        let gpus = round.remove(&place.key);
        state.round = Some(round);
        let gpus = gpus?;
        state.entries.get_mut(&place.id)?.holds = Some(gpus.clone());
        state.queue.remove(&place.key);
        Some(gpus)
    }
}

/// A place in the queue; given up when dropped.
pub(super) struct Place {
    board: Board,
    key: (i32, u64),
    pub(super) id: JobId,
}

impl Drop for Place {
    fn drop(&mut self) {
        // A job that was served has left the queue already.
        if self.board.seen().queue.contains_key(&self.key) {
            self.board.state().queue.remove(&self.key);
            self.board.notify();
        }
    }
}
