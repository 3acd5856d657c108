//! The board, as far as it says who has a job in hand: which task here, whose deliveries are to be
//! renewed, and which of them there is reason to doubt.
//!
//! What must hold: a renewal finds here all that it needs, so that it waits for no journal.

use std::time::Duration;

use super::super::leases;
use super::{Board, Entry};
use crate::bus::{AckHandle, PoolName};
use crate::ids::{Address, Hash, JobId};
use crate::job::Job;
use crate::job::claim::{Stand, Start};

/// Silent holders that are remembered, of jobs that were not taken too: one that is forgotten is
/// asked once more.
const SILENT_MAX: usize = 10_000;

/// A job in hand, as far as its lease goes: all that its renewal needs, so that no renewal waits for
/// the journal.
#[derive(Debug, Clone)]
pub struct InHand {
    /// Which.
    pub id: JobId,
    /// The node that has it.
    pub node: Address,
    /// The pool that it came from; `None` where it was sent to this node alone.
    pub pool: Option<PoolName>,
    /// Its present attempt.
    pub attempt: u32,
    /// The hash of its body.
    pub spec_hash: Hash,
    /// Whether its container has not exited yet: who has lost it must stop.
    pub can_stop: bool,
    /// How its delivery is answered for.
    pub delivery: AckHandle,
    /// How often there was reason to think that its lease is not what it was: it was delivered
    /// again, or another agent asked for it.
    pub doubts: u64,
}

impl Board {
    /// The jobs in hand whose deliveries are to be answered for. Not those that are given back: what
    /// was renewed would come to nobody else, however long this node takes to clear up.
    pub fn in_hand(&self) -> Vec<InHand> {
        let state = self.state();
        let in_hand = |(id, entry): (&JobId, &Entry)| {
            Some(InHand {
                id: id.clone(),
                node: entry.node,
                pool: entry.pool.clone(),
                attempt: entry.attempt,
                spec_hash: entry.spec_hash,
                can_stop: entry.wants_slot,
                delivery: entry.delivery.clone()?,
                doubts: entry.doubts,
            })
        };
        let held = state.entries.iter().filter(|(_, entry)| !entry.is_let_go);
        held.filter_map(in_hand).collect()
    }

    /// Puts what a job holds on the board before a task has it in hand, so that nobody else is given
    /// it meanwhile: [`Board::enter`] takes it over.
    pub fn hold(&self, job: &Job) {
        if self.enter(job, None).is_some() {
            self.abandon(job.id());
        }
    }

    /// The job's task ended by a defect. Where it holds cards its container may run: then it keeps
    /// them, until somebody takes the job over.
    pub fn abandon(&self, id: &JobId) {
        let mut state = self.state();
        match state.entries.get_mut(id) {
            Some(entry) if entry.holds.is_some() => entry.abandoned = true,
            _ => drop(state.entries.remove(id)),
        }
        state.tell();
        drop(state);
        self.notify();
    }

    /// How far this attempt of a job is with its claim; `None` where it is not in hand, or is given
    /// back.
    pub fn stand(&self, id: &JobId, attempt: u32) -> Option<Stand> {
        let state = self.state();
        let entry = state.entries.get(id).filter(|it| it.attempt == attempt && !it.is_let_go)?;
        Some(entry.stand)
    }

    /// Another agent was given this job and asks whether it is being worked on. Where it is: for how
    /// long it goes on without hearing of the server.
    pub fn asked_for(&self, id: &JobId) -> Option<Duration> {
        let mut state = self.state();
        let entry = state.entries.get_mut(id).filter(|entry| entry.stand.is_held())?;
        entry.doubts += 1;
        let ack_wait = entry.delivery.as_ref()?.ack_wait();
        state.doubts += 1;
        drop(state);
        self.notify();
        Some(leases::unconfirmed_max(ack_wait))
    }

    /// The holder of the claim on a job that was given to this agent did not answer.
    pub fn holder_is_silent(&self, id: &JobId, holder: Start) {
        let mut state = self.state();
        state.silent.insert(id.clone(), holder);
        if state.silent.len() > SILENT_MAX {
            state.silent.pop_first();
        }
    }

    /// Which holder was silent when the job was given to this agent.
    pub fn silent_holder(&self, id: &JobId) -> Option<Start> {
        self.state().silent.get(id).copied()
    }

    /// The server waits this long for signs of life from what this consumer delivers.
    pub fn ack_wait_is(&self, consumer: &str, ack_wait: Duration) {
        let ack_wait_ms = u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let deliveries = state.entries.values_mut().filter_map(|entry| entry.delivery.as_mut());
        for delivery in deliveries.filter(|delivery| delivery.consumer == consumer) {
            delivery.ack_wait_ms = ack_wait_ms;
        }
    }

    /// How many deliveries ever came into hand, or were doubted there.
    pub fn stirred(&self) -> u64 {
        let state = self.state();
        state.taken + state.doubts
    }

    /// Waits until that is more.
    pub async fn stirred_more_than(&self, seen: u64) {
        self.wait_for(|| (self.stirred() > seen).then_some(())).await;
    }

    /// The job was delivered again: from now on this is how it is acknowledged.
    pub fn redelivered(&self, id: &JobId, delivery: Option<AckHandle>) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.delivery = delivery;
        entry.doubts += 1;
        state.doubts += 1;
        drop(state);
        self.notify();
    }
}
