//! Jobs that the node knows already: delivered again, resumed, or cancelled while they wait.
//!
//! What must hold: whoever moves a job that waits does so alone; a pool's job that another agent
//! has, or has ended, does not go on here; one that nobody has does.

use super::{Error, Intake};
use crate::agent::jobs::effects::Effects;
use crate::agent::jobs::pool_claim;
use crate::bus::{AckHandle, Delivery, Target};
use crate::clock::Clock;
use crate::ids::JobId;
use crate::job::Job;
use crate::job::claim::{Arrival, Orphan, orphan};
use crate::job::phase::{Event, Phase, StopCause};
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
            self.desk.journal.send_again(id).await?;
            self.desk.outbox.notify_one();
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
                    self.leave_waiting(id, Event::Outbid, None).await?;
                    return self.acknowledge(ack.as_ref()).await;
                }
                Arrival::Later | Arrival::OtherBody => return self.later(delivery).await,
            }
        }
        let handle = ack.as_ref().and_then(|ack| serde_json::to_string(ack).ok());
        self.desk.journal.redelivered(id, handle, self.desk.clock.now()).await?;
        self.desk.board.redelivered(id, ack.clone());
        if waiting.is_some() {
            self.leave_waiting(id, Event::Resumed, ack).await?;
        }
        Ok(())
    }

    /// A job that waits: where its message is in no queue any more, and nobody has its claim, it goes on
    /// here. Not while the node is drained: it goes on at its next start.
    pub(in crate::agent) async fn own(&self, job: &Job) -> Result<(), Error> {
        let id = job.id();
        let known = self.desk.journal.lookup(id).await?;
        let ack = known.and_then(|known| known.delivery);
        let Some(Ok(ack)) = ack.map(|ack| serde_json::from_str::<AckHandle>(&ack)) else {
            return Ok(());
        };
        let (target, whose) = match job.pool().map(str::parse) {
            Some(Ok(pool)) => {
                let found = self.effects.claim(&pool, id).await?;
                let bid =
                    pool_claim::bid(self.node, &ack, job.attempt, job.spec_hash, &self.desk.clock);
                let whose = orphan(found.as_ref().map(|found| &found.claim), &bid);
                (Target::Pool(pool), whose)
            }
            Some(Err(_)) => return Ok(()),
            None => (Target::Agent(self.node), Orphan::Ours),
        };
        if whose == Orphan::Theirs || self.effects.is_queued(&ack, &target, id).await? {
            return Ok(());
        }
        if whose == Orphan::Over {
            tracing::info!(job.id = %id, "job {id} was ended by another agent of its pool");
            self.leave_waiting(id, Event::Outbid, None).await?;
        } else if !self.desk.board.is_draining() {
            tracing::warn!(job.id = %id, "the message of job {id} is gone: it goes on here");
            self.leave_waiting(id, Event::Resumed, Some(ack)).await?;
        }
        Ok(())
    }

    /// A job that was given back goes on.
    pub(in crate::agent) async fn resume_waiting(
        &self,
        id: &JobId,
        ack: Option<AckHandle>,
    ) -> Result<(), Error> {
        self.leave_waiting(id, Event::Resumed, ack).await.map(drop)
    }

    /// Cancels a job that was given back and waits; `false` where it does not wait.
    pub(in crate::agent) async fn cancel_waiting(&self, id: &JobId) -> Result<bool, Error> {
        let known = self.desk.journal.lookup(id).await?;
        let delivery = known.and_then(|known| known.delivery);
        let delivery = delivery.and_then(|delivery| serde_json::from_str(&delivery).ok());
        self.leave_waiting(id, Event::StopAsked { cause: StopCause::Cancelled }, delivery).await
    }

    /// Moves a job that waits; `false` where it does not wait, or not any more: whoever asks first
    /// decides.
    async fn leave_waiting(
        &self,
        id: &JobId,
        event: Event,
        delivery: Option<AckHandle>,
    ) -> Result<bool, Error> {
        let _alone = self.waiting.lock().await;
        let known = self.desk.journal.lookup(id).await?;
        let Some(job) = known.and_then(|known| known.job) else { return Ok(false) };
        // Its task may not have ended yet: then nobody could be given the job.
        if job.phase != Phase::Waiting || self.desk.board.has(id) {
            return Ok(false);
        }
        let now = self.desk.clock.now();
        let Ok(mut moved) = job.apply(event.clone(), now, &self.desk.rules) else {
            return Ok(false);
        };
        self.desk.notary.sign(&mut moved.statuses);
        self.desk.journal.record(&event, &moved, now).await?;
        self.desk.outbox.notify_one();
        if !moved.job.phase.is_done() {
            self.start(moved.job, delivery);
        }
        Ok(true)
    }
}

/// Whether a pool's job is about to be another agent's, whatever is delivered here.
const fn is_on_its_way_back(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Unable { .. } | Phase::Returning { .. } | Phase::Yielded | Phase::LettingGo
    )
}
