//! Redeliveries of jobs that the node knows already.
//!
//! Invariants: a finished job gets its terminal status sent again. A pool's job that another agent
//! has, or has ended, is not resumed here.

use super::Intake;
use crate::agent::jobs::effects::Effects;
use crate::agent::jobs::hand::Error;
use crate::bus::Delivery;
use crate::clock::Clock;
use crate::job::claim::Arrival;
use crate::job::phase::{Event, Phase};
use crate::job::spec::Parsed;
use crate::journal::Known;

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Handles a redelivery of a known job.
    pub(super) async fn again(
        &self,
        known: Known,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (id, ack) = (&parsed.spec.id, delivery.ack.clone());
        if !known.open {
            // The agent that ended it may not have published that yet: leave it the message.
            if let Some(job) = known.job.filter(|job| job.phase == Phase::EndedElsewhere)
                && let Some(pool) = job.pool().and_then(|pool| pool.parse().ok())
                && self.arrival(&pool, id, parsed.spec_hash, ack.as_ref()).await?
                    == Some(Arrival::Later)
            {
                return self.later(delivery).await;
            }
            self.jobs.desk.journal.send_again(id).await?;
            self.jobs.desk.outbox.notify_one();
            return self.acknowledge(ack.as_ref()).await;
        }
        // A job being given back keeps the delivery that it failed with: under a newer one its
        // fault would be counted twice. This delivery goes to another node.
        if known.job.as_ref().is_some_and(|job| is_on_its_way_back(&job.phase)) {
            return self.later(delivery).await;
        }
        let waiting = known.job.filter(|job| job.phase == Phase::Waiting);
        if let Some(job) = &waiting
            && let Some(pool) = job.pool().and_then(|pool| pool.parse().ok())
        {
            // Another agent may have taken it since.
            let arrival = self.arrival(&pool, id, parsed.spec_hash, ack.as_ref()).await?;
            let Some(arrival) = arrival else { return Ok(()) };
            match arrival {
                Arrival::Open => {}
                Arrival::Duplicate => {
                    self.jobs.leave_waiting(id, Event::Outbid, None).await?;
                    return self.acknowledge(ack.as_ref()).await;
                }
                Arrival::Later | Arrival::OtherBody => return self.later(delivery).await,
            }
        }
        let handle = ack.as_ref().and_then(|ack| serde_json::to_string(ack).ok());
        self.jobs.desk.journal.redelivered(id, handle, self.jobs.desk.clock.now()).await?;
        self.jobs.desk.board.redelivered(id, ack.clone());
        if waiting.is_some() {
            self.jobs.leave_waiting(id, Event::Resumed, ack).await?;
        }
        Ok(())
    }
}

/// Whether a pool's job is being given back or yielded, so that a delivery can't resume it here.
const fn is_on_its_way_back(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Unable { .. } | Phase::Returning { .. } | Phase::Yielded | Phase::LettingGo
    )
}
