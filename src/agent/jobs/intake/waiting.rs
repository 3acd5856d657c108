//! Jobs that the node knows already: delivered again, resumed, or cancelled while they wait.
//!
//! What must hold: whoever moves a job that waits does so alone; a pool's job that another agent
//! has, or has ended, does not go on here; one that nobody has does.

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
    /// A known job was delivered again.
    pub(super) async fn again(
        &self,
        known: Known,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (id, ack) = (&parsed.spec.id, delivery.ack.clone());
        if !known.open {
            // Who ended it elsewhere may not have said so yet: their message stays until they have.
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
        // What is on its way back to the pool goes back as it began: under a newer delivery its fault
        // would be counted again. This one goes to another node.
        if known.job.as_ref().is_some_and(|job| is_on_its_way_back(&job.phase)) {
            return self.later(delivery).await;
        }
        let waiting = known.job.filter(|job| job.phase == Phase::Waiting);
        if let Some(job) = &waiting
            && let Some(pool) = job.pool().and_then(|pool| pool.parse().ok())
        {
            // Another agent may have had it since, or have it still.
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

/// Whether a pool's job is about to be another agent's, whatever is delivered here.
const fn is_on_its_way_back(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Unable { .. } | Phase::Returning { .. } | Phase::Yielded | Phase::LettingGo
    )
}
