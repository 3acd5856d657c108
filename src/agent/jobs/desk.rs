//! Decides, signs, journals and announces the transitions of a job: the only way in which a job
//! moves on this node.
//!
//! Invariants: `job::transition` decides. A transition is journaled before anything acts on it, and
//! a terminal status is signed before it is journaled.

use std::sync::Arc;

use tokio::sync::Notify;

use super::board::Board;
use super::notary::Notary;
use crate::agent::events::Events;
use crate::clock::Clock;
use crate::job::Job;
use crate::job::phase::{Event, Misplaced, Outcome, Phase, Rules, Transition};
use crate::journal::{self, Journal};

/// What a job's task needs besides the effects.
#[derive(Debug, Clone)]
pub struct Desk<C> {
    /// Stores transitions and statuses.
    pub journal: Journal,
    /// The jobs in hand, and what they hold.
    pub board: Board,
    /// The time, real or simulated.
    pub clock: C,
    /// The owner's settings that decisions depend on.
    pub rules: Rules,
    /// Notified when there are statuses to publish.
    pub outbox: Arc<Notify>,
    /// Signs terminal statuses before they are journaled.
    pub notary: Notary,
    /// Where transitions are told.
    pub events: Events,
}

impl<C: Clock> Desk<C> {
    /// The transition that follows from `event`, with terminal statuses signed. `Err` if the event
    /// is not valid in the job's phase.
    pub(super) fn decide(&self, job: &Job, event: &Event) -> Result<Transition, Misplaced> {
        let mut moved = job.apply(event.clone(), self.clock.now(), &self.rules)?;
        self.notary.sign(&mut moved.statuses);
        Ok(moved)
    }

    /// Journals a transition, without retries, then updates the board and wakes the outbox.
    pub(super) async fn record(
        &self,
        event: &Event,
        moved: &Transition,
    ) -> Result<(), journal::Error> {
        self.journal.record(event, moved, self.clock.now()).await?;
        self.board.moved(&moved.job);
        self.events.job_moved(event, moved);
        if !moved.statuses.is_empty() {
            self.outbox.notify_one();
        }
        Ok(())
    }

    /// Decides and records the transition of a job that has no task. Returns the job afterwards, or
    /// unchanged if the event is not valid in its phase.
    pub(super) async fn advance(&self, job: &Job, event: Event) -> Result<Job, journal::Error> {
        let Ok(moved) = self.decide(job, &event) else { return Ok(job.clone()) };
        // The board learns of it when the job gets a task.
        self.journal.record(&event, &moved, self.clock.now()).await?;
        self.board.moved_aside(&job.phase, &moved.job);
        self.outbox.notify_one();
        self.events.job_moved(&event, &moved);
        Ok(moved.job)
    }
}

/// Logs a transition as one line, at a level that fits its importance.
pub(super) fn tell(job: &Job, event: &Event, moved: &Transition) {
    let (id, phase) = (job.id(), moved.job.phase.name());
    match (event, moved.job.phase.outcome()) {
        (Event::Failed { fault, .. }, None) => {
            let reason = fault.reason.code();
            let is_tried_again = moved.job.trouble.as_ref().is_some_and(|it| it.fault == *fault);
            let then = match &moved.job.phase {
                _ if is_tried_again => "tried again",
                Phase::Unable { .. } | Phase::Returning { .. } => {
                    "left to another node of its pool"
                }
                Phase::Accepted => "its image is pulled again",
                _ => "given up",
            };
            tracing::warn!(job.id = %id, reason, "job {id}: {}; {then}", fault.error);
        }
        (_, Some(outcome)) if !moved.statuses.is_empty() => {
            let (word, fault) = match outcome {
                Outcome::Completed => ("completed", None),
                Outcome::Failed(fault) => ("failed", Some(fault)),
                Outcome::TimedOut(fault) => ("timed out", Some(fault)),
                Outcome::Cancelled(fault) => ("was cancelled", Some(fault)),
            };
            let reason = fault.map(|fault| fault.reason.code());
            let error = fault.map(|fault| format!(": {}", fault.error)).unwrap_or_default();
            tracing::info!(job.id = %id, reason, "job {id} {word}{error}");
        }
        _ => tracing::debug!(job.id = %id, event = event.name(), phase, "job {id}: {phase}"),
    }
}
