//! Intake of a pool's job: whether another agent has it, whether it can go at once here, and what
//! happens to one that fits no node.
//!
//! Invariants: an agent publishes a refusal only after it has written the job's claim. A job that
//! could go at once elsewhere does not wait here.

use std::time::Duration;

use super::Intake;
use super::refusal::duplicate;
use crate::agent::jobs::effects::Effects;
use crate::agent::jobs::hand::Error;
use crate::agent::jobs::messages::dead_letter;
use crate::agent::jobs::pool_claim;
use crate::agent::jobs::terms::Terms;
use crate::bus::{self, AckHandle, Delivery, PoolName, Settle, Target};
use crate::clock::Clock;
use crate::ids::{Hash, JobId};
use crate::job::claim::{Arrival, Claim, arrive, holder_to_ask};
use crate::job::spec::{Parsed, Refused};
use crate::job::{JobSpec, Reason, Status};
use crate::journal::History;
use crate::node::admission::Verdict;
use crate::report::causes;

/// For how many deliveries (about two minutes) a pool's job that would have to wait here is left to
/// other agents.
const OFFERS_MAX: u64 = 5;

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Whether no other agent has a pool's job; if one has, answers the delivery.
    pub(super) async fn is_free(
        &self,
        pool: &PoolName,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        let id = &parsed.spec.id;
        let arrival = self.arrival(pool, id, parsed.spec_hash, delivery.ack.as_ref()).await?;
        let Some(arrival) = arrival else { return Ok(false) };
        match arrival {
            Arrival::Open => return Ok(true),
            Arrival::Later => self.later(delivery).await?,
            Arrival::Duplicate => {
                tracing::info!(job.id = %id, "job {id} of the pool {pool} has ended elsewhere");
                self.acknowledge(delivery.ack.as_ref()).await?;
            }
            Arrival::OtherBody => {
                self.refuse(duplicate(id, &delivery.body), true, delivery).await?;
            }
        }
        Ok(false)
    }

    /// What the job's claim says about a delivery of a pool's job. `None` if the delivery was
    /// answered here, since the holder is working on the job.
    pub(super) async fn arrival(
        &self,
        pool: &PoolName,
        id: &JobId,
        spec_hash: Hash,
        ack: Option<&AckHandle>,
    ) -> Result<Option<Arrival>, Error> {
        let Some(ack) = ack else { return Ok(Some(Arrival::Open)) };
        let found = match self.jobs.effects.claim(pool, id).await {
            Ok(found) => found,
            // A claim that can't be parsed may be a later version's: leave the job to its holder.
            Err(err) if err.is_transient() || matches!(err, bus::Error::InvalidClaim { .. }) => {
                tracing::warn!(job.id = %id, "the claim on job {id} can't be read: {}", causes(&err));
                return Ok(Some(Arrival::Later));
            }
            Err(err) => return Err(err.into()),
        };
        let bid = pool_claim::bid(self.jobs.node, ack, 0, spec_hash, &self.jobs.desk.clock);
        let claim = found.as_ref().map(|found| &found.claim);
        let arrival = arrive(claim, &bid);
        if arrival == Arrival::Open
            && let Some(holder) = holder_to_ask(claim, &bid)
        {
            let Some(goes_on) = self.jobs.effects.keeps(holder, id).await else {
                let silent = claim.map(Claim::start);
                silent.inspect(|silent| self.jobs.desk.board.holder_is_silent(id, *silent));
                return Ok(Some(arrival));
            };
            tracing::info!(job.id = %id, "job {id} of the pool {pool} is kept by {holder}");
            // By then the holder has stopped even if it is cut off from now on.
            let stopped = goes_on * 5 / 4;
            self.settle(ack, Settle::Nak(ack.ack_wait().max(stopped))).await?;
            return Ok(None);
        }
        Ok(Some(arrival))
    }

    /// Whether an agent of the pool has claimed the id for this very body.
    pub(super) async fn is_claimed_for(
        &self,
        pool: &PoolName,
        parsed: &Parsed,
    ) -> Result<bool, Error> {
        match self.jobs.effects.claim(pool, &parsed.spec.id).await {
            Ok(found) => Ok(found.is_some_and(|found| found.claim.spec_hash == parsed.spec_hash)),
            // Not known at present: don't refuse it for good.
            Err(err) if err.is_transient() || matches!(err, bus::Error::InvalidClaim { .. }) => {
                Ok(true)
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Whether to accept a pool's job: it can go now, or was left to others often enough to queue
    /// here. If not, answers the delivery.
    pub(super) async fn has_room(
        &self,
        ahead: usize,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        let Some(ack) = &delivery.ack else { return Ok(true) };
        let board = &self.jobs.desk.board;
        // Another source has taken the room meanwhile: leave it to an agent with a free slot.
        if !board.has_room(ahead) {
            self.settle(ack, Settle::Nak(Duration::ZERO)).await?;
            return Ok(false);
        }
        // Another agent may have all that it needs free at once, or more cards that work. If none
        // takes it for a while it queues here, so that smaller jobs can't starve it.
        let waits = !matches!(board.verdict(&parsed.spec), Verdict::Now(_));
        if waits && ahead == 0 && delivery.delivered <= OFFERS_MAX {
            self.later(delivery).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Answers a job that can never run here: refuses it, but leaves a pool's job to the pool's
    /// other nodes for a while.
    pub(super) async fn misfit(
        &self,
        target: &Target,
        spec: &JobSpec,
        refused: Refused,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (Target::Pool(pool), Some(ack)) = (target, &delivery.ack) else {
            return self.refuse(refused, true, delivery).await;
        };
        // A busy or unfit node counts as present: if one fits the job, the job waits for it.
        if never_fits(refused.reason) && self.fits_another(pool, spec).await {
            return self.later(delivery).await;
        }
        let bid = pool_claim::bid(self.jobs.node, ack, 0, refused.body_hash, &self.jobs.desk.clock);
        let (id, effects) = (&refused.id, self.jobs.effects.as_ref());
        let said = if never_fits(refused.reason) {
            pool_claim::refuse(pool, id, &bid, &self.jobs.desk.board, effects).await
        } else {
            pool_claim::reject(pool, id, &bid, effects).await
        };
        match said {
            Ok(true) if never_fits(refused.reason) => self.give_up(target, refused, delivery).await,
            Ok(true) => self.refuse(refused, true, delivery).await,
            Ok(false) => self.later(delivery).await,
            Err(err) if err.is_transient() => self.later(delivery).await,
            Err(err) => Err(err.into()),
        }
    }

    /// Whether a node that serves the pool could ever run the job, as it describes itself; `false`
    /// if the nodes are unknown. Nodes don't publish which images they allow, so this node's list
    /// is applied to all of them.
    async fn fits_another(&self, pool: &PoolName, spec: &JobSpec) -> bool {
        let there = match self.jobs.effects.neighbours(pool).await {
            Ok(there) => there,
            Err(err) => {
                tracing::debug!("the nodes of the pool {pool} are unknown: {}", causes(&err));
                return false;
            }
        };
        let images = &self.jobs.terms.images;
        there.iter().any(|one| {
            let terms = Terms {
                offer: one.offer(),
                images: images.clone(),
                sandbox: self.jobs.terms.sandbox,
            };
            terms.admit(spec).is_ok()
        })
    }

    /// Gives up a pool's job that fits no node: publishes a dead letter for the pool's
    /// administrator and a terminal status for the requester.
    pub(super) async fn give_up(
        &self,
        target: &Target,
        refused: Refused,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let history = History { body: delivery.body.to_vec(), events: Vec::new() };
        let (letter, id) = (dead_letter(self.jobs.node, &history), format!("dead:{}", refused.id));
        self.jobs.effects.bury(target, letter, &id).await?;
        let error = format!("no node of the pool fits; the last one said: {}", refused.error);
        let refused = Refused { reason: Reason::NoNodeFits, error, ..refused };
        let status = Status::failed_unrun(self.jobs.node, &refused, self.jobs.desk.clock.now());
        self.write_refusal(refused, status, true, delivery).await
    }
}

/// Whether the job never fits this node but may fit another one.
const fn never_fits(reason: Reason) -> bool {
    use Reason::{ImageNotAllowed, NetworkNotAllowed, NoGpu, NoNodeFits, ToolkitUnsafe};
    matches!(reason, NoGpu | NoNodeFits | NetworkNotAllowed | ImageNotAllowed | ToolkitUnsafe)
}
