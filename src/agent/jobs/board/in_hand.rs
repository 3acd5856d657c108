//! The board's view of leases: which jobs a task has in hand, which deliveries must be renewed, and
//! which of them are in doubt.
//!
//! Invariant: a renewal finds everything it needs here, so that it never waits for the journal.

use std::time::Duration;

use super::super::leases;
use super::{Board, Entry};
use crate::bus::{AckHandle, PoolName};
use crate::ids::{Address, Hash, JobId};
use crate::job::Job;
use crate::job::claim::{Stand, Start};

/// How many silent holders are remembered, including those of jobs that were not taken. A
/// forgotten one keeps its job: the job is redelivered, and the holder asked again.
const SILENT_MAX: usize = 10_000;

/// A job in hand, with all that the renewal of its lease needs.
#[derive(Debug, Clone)]
pub struct InHand {
    /// The job's id.
    pub id: JobId,
    /// The node that has it.
    pub node: Address,
    /// The pool that it came from; `None` if it was sent to this node alone.
    pub pool: Option<PoolName>,
    /// Its present attempt.
    pub attempt: u32,
    /// The hash of its body.
    pub spec_hash: Hash,
    /// Whether its container has not exited yet, so that it must stop if the lease is lost.
    pub can_stop: bool,
    /// The handle that renews its delivery.
    pub delivery: AckHandle,
    /// How often its lease came into doubt: the job was redelivered, or another agent asked
    /// whether this one has it.
    pub doubts: u64,
}

impl Board {
    /// The jobs in hand whose leases must be renewed, sorted by id. Not those being given back: as
    /// long as they were renewed, no other agent would get them, however long the cleanup takes.
    pub fn in_hand(&self) -> Vec<InHand> {
        let state = self.seen();
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

    /// Reserves what a job holds before a task has it in hand, so that no other job is given it
    /// meanwhile. [`Board::enter`] takes the entry over.
    pub fn hold(&self, job: &Job) {
        if self.enter(job, None).is_some() {
            self.abandon(job.id());
        }
    }

    /// The job's task ended by a defect. If the job holds resources its container may run: then it
    /// keeps them until another task takes it over.
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

    /// How far this attempt of a job is with its claim; `None` if it is not in hand or was given
    /// back.
    pub fn stand(&self, id: &JobId, attempt: u32) -> Option<Stand> {
        let state = self.seen();
        let entry = state.entries.get(id).filter(|it| it.attempt == attempt && !it.is_let_go)?;
        Some(entry.stand)
    }

    /// Answers another agent that was given this job and asks whether this one is working on it:
    /// how long it would go on without hearing from the server, or `None` if it is not. Puts the
    /// lease in doubt, so that it is renewed soon.
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

    /// Records that the claim holder of a job delivered to this agent did not answer.
    pub fn holder_is_silent(&self, id: &JobId, holder: Start) {
        let mut state = self.state();
        state.silent.insert(id.clone(), holder);
        if state.silent.len() > SILENT_MAX {
            state.silent.pop_first();
        }
    }

    /// The holder that was silent when the job was delivered to this agent.
    pub fn silent_holder(&self, id: &JobId) -> Option<Start> {
        self.seen().silent.get(id).copied()
    }

    /// Sets the ack wait of all deliveries of this consumer.
    pub fn ack_wait_is(&self, consumer: &str, ack_wait: Duration) {
        let ack_wait_ms = u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let deliveries = state.entries.values_mut().filter_map(|entry| entry.delivery.as_mut());
        for delivery in deliveries.filter(|delivery| delivery.consumer == consumer) {
            delivery.ack_wait_ms = ack_wait_ms;
        }
    }

    /// A counter of the deliveries that came into hand or into doubt.
    pub fn stirred(&self) -> u64 {
        let state = self.seen();
        state.taken + state.doubts
    }

    /// Waits until that counter exceeds `seen`.
    pub async fn stirred_more_than(&self, seen: u64) {
        self.wait_for(|| (self.stirred() > seen).then_some(())).await;
    }

    /// The job was redelivered: replaces the handle that acknowledges it.
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
