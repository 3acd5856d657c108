//! The board, as far as leases go: whose deliveries are to be renewed, and which of them there is
//! reason to doubt.
//!
//! What must hold: a renewal finds here all that it needs, so that it waits for no journal.

use std::time::Duration;

use super::super::leases;
use super::{Board, Entry};
use crate::bus::{AckHandle, PoolName};
use crate::job::claim::{Stand, Start};
use crate::job::{Hash, JobId};
use crate::node::Address;

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
    /// How far it is with its claim.
    pub stand: Stand,
    /// How its delivery is answered for.
    pub delivery: AckHandle,
    /// How often there was reason to think that its lease is not what it was: it was delivered
    /// again, or another agent asked for it.
    pub doubts: u64,
}

impl Board {
    /// The jobs in hand whose deliveries are to be answered for.
    pub fn in_hand(&self) -> Vec<InHand> {
        let state = self.state();
        let in_hand = |(id, entry): (&JobId, &Entry)| {
            Some(InHand {
                id: id.clone(),
                node: entry.node,
                pool: entry.pool.clone(),
                attempt: entry.attempt,
                spec_hash: entry.spec_hash,
                stand: entry.stand,
                delivery: entry.delivery.clone()?,
                doubts: entry.doubts,
            })
        };
        state.entries.iter().filter_map(in_hand).collect()
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
