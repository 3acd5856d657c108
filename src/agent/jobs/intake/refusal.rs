//! Refusals of messages, and answers to the queue.
//!
//! Invariants: a refusal is journaled with its only status before the message leaves the queue. An
//! answer that gets lost does no harm.

use super::Intake;
use crate::agent::jobs::effects::Effects;
use crate::agent::jobs::hand::Error;
use crate::agent::jobs::messages::nak_delay;
use crate::bus::{self, AckHandle, Delivery, Settle};
use crate::clock::Clock;
use crate::ids::JobId;
use crate::job::spec::{Parsed, Refused};
use crate::job::{Reason, Status};
use crate::report::causes;
use crate::seldom::Seldom;

/// Refusals told in the log. Each message gets its answer, but anyone may send messages without end.
static REJECTED: Seldom = Seldom::new(60);

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Journals a refusal, publishes it and acknowledges the message. `proven`: whether the refusal
    /// uses the id up; if not, the id's rightful owner can still use it.
    pub(super) async fn refuse(
        &self,
        refused: Refused,
        proven: bool,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let status = Status::rejected(self.jobs.node, &refused, self.jobs.desk.clock.now());
        self.write_refusal(refused, status, proven, delivery).await
    }

    pub(super) async fn write_refusal(
        &self,
        refused: Refused,
        status: Status,
        proven: bool,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (mut refused, mut status) = (refused, status);
        let mut known = self.jobs.desk.journal.lookup(&refused.id).await?;
        if known.as_ref().is_some_and(|known| known.body_hash != refused.body_hash) {
            // Another message under a used id: refuse it under an id of its own.
            refused = duplicate(&refused.id, &delivery.body);
            status = Status::rejected(self.jobs.node, &refused, self.jobs.desk.clock.now());
            known = self.jobs.desk.journal.lookup(&refused.id).await?;
        }
        if known.is_some() {
            self.jobs.desk.journal.send_again(&refused.id).await?;
        } else {
            self.jobs.desk.notary.sign(std::slice::from_mut(&mut status));
            self.jobs.desk.journal.refuse(&refused, status.clone(), proven).await?;
            self.jobs.desk.events.refused(&status);
            self.jobs.desk.board.rejected();
            let (id, reason) = (&refused.id, refused.reason.code());
            if let Some(more) = REJECTED.line() {
                tracing::info!(job.id = %id, reason, "job {id} rejected: {}{more}", refused.error);
            }
        }
        self.jobs.desk.outbox.notify_one();
        self.acknowledge(delivery.ack.as_ref()).await
    }

    pub(super) async fn later(&self, delivery: &Delivery) -> Result<(), Error> {
        let Some(ack) = &delivery.ack else { return Ok(()) };
        self.settle(ack, Settle::Nak(nak_delay(delivery.delivered))).await
    }

    pub(super) async fn acknowledge(&self, ack: Option<&AckHandle>) -> Result<(), Error> {
        let Some(ack) = ack else { return Ok(()) };
        self.settle(ack, Settle::Ack).await
    }

    /// Answers a delivery. A transient failure is ignored: the message is redelivered, and answered
    /// then.
    pub(super) async fn settle(&self, ack: &AckHandle, how: Settle) -> Result<(), Error> {
        match self.jobs.effects.settle(ack, how).await {
            Ok(()) | Err(bus::Error::StaleAck { .. }) => Ok(()),
            Err(err) if err.is_transient() => {
                tracing::debug!("a delivery was not answered for: {}", causes(&err));
                Ok(())
            }
            Err(err) => Err(err.into()),
        }
    }
}

pub(super) fn refused(parsed: Parsed, reason: Reason, error: String) -> Refused {
    Refused { id: parsed.spec.id, body_hash: parsed.spec_hash, reason, error }
}

pub(super) fn duplicate(id: &JobId, body: &[u8]) -> Refused {
    let error = format!("the job id {id} was used by another message before");
    Refused::nameless(body, Reason::DuplicateJobId, error)
}
