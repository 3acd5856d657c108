//! A pool's job at the door: whether another agent has it, whether it can go at once here, and what
//! becomes of one that fits nobody.
//!
//! What must hold: a refusal is said only by who has written the job's claim before; a job that
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

/// A pool's job that would have to wait here is left to other agents for so many deliveries, which
/// is some two minutes.
const OFFERS_MAX: u64 = 5;

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Whether nobody else has a pool's job; where somebody has, its delivery is answered.
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

    /// What a delivery of a pool's job means, by the job's claim. `None` where it was answered: its
    /// holder is at work on it.
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
            // One that can't be read may be a later version's: the job is theirs.
            Err(err) if err.is_transient() || matches!(err, bus::Error::InvalidClaim { .. }) => {
                tracing::warn!(job.id = %id, "nobody says who has job {id}: {}", causes(&err));
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
            // Not before a holder that is cut off from now on has stopped.
            let stopped = goes_on * 5 / 4;
            self.settle(ack, Settle::Nak(ack.ack_wait().max(stopped))).await?;
            return Ok(None);
        }
        Ok(Some(arrival))
    }

    /// Whether another agent of the pool has this very body under its id.
    pub(super) async fn is_claimed_for(
        &self,
        pool: &PoolName,
        parsed: &Parsed,
    ) -> Result<bool, Error> {
        match self.jobs.effects.claim(pool, &parsed.spec.id).await {
            Ok(found) => Ok(found.is_some_and(|found| found.claim.spec_hash == parsed.spec_hash)),
            // Not to be told now: nothing is refused for good.
            Err(err) if err.is_transient() || matches!(err, bus::Error::InvalidClaim { .. }) => {
                Ok(true)
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Whether a pool's job can go now, or has waited long enough to stand in a line here; where
    /// not, its delivery is answered.
    pub(super) async fn has_room(
        &self,
        ahead: usize,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        let Some(ack) = &delivery.ack else { return Ok(true) };
        let board = &self.jobs.desk.board;
        // Taken meanwhile by a job of another source: an agent with a free slot is to have it.
        if !board.has_room(ahead) {
            self.settle(ack, Settle::Nak(Duration::ZERO)).await?;
            return Ok(false);
        }
        // Another agent may have all that it needs free at once. Where nobody has for long, it
        // stands in a line, so that smaller jobs can't starve it.
        // So may one whose cards all work.
        let waits = !matches!(board.verdict(&parsed.spec), Verdict::Now(_));
        if waits && ahead == 0 && delivery.delivered <= OFFERS_MAX {
            self.later(delivery).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// A job that can never run here: refused, but left for a pool's other nodes for a while.
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
        // Busy is not absent, and neither is broken: where one is there that it fits, it waits for that.
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

    /// Whether a node of the pool is there that could run the job, now or later, by its own word. Where
    /// nobody can tell, there is none. Nobody says which images it allows: one that this node does not is
    /// counted.
    async fn fits_another(&self, pool: &PoolName, spec: &JobSpec) -> bool {
        let there = match self.jobs.effects.neighbours(pool).await {
            Ok(there) => there,
            Err(err) => {
                tracing::debug!("nobody says who serves the pool {pool}: {}", causes(&err));
                return false;
            }
        };
        let images = &self.jobs.terms.images;
        there.iter().any(|one| {
            let terms = Terms { offer: one.offer(), images: images.clone() };
            terms.admit(spec).is_ok()
        })
    }

    /// A pool's job that fits nobody: put aside for whoever looks after the pool, and its requester
    /// is told.
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

/// Whether another node may be the right one.
const fn never_fits(reason: Reason) -> bool {
    use Reason::{ImageNotAllowed, NetworkNotAllowed, NoGpu, NoNodeFits};
    matches!(reason, NoGpu | NoNodeFits | NetworkNotAllowed | ImageNotAllowed)
}
