//! The jobs in hand: one task for each, and those that wait for redelivery.
//!
//! Invariants: a job has at most one task. Only one caller at a time moves a waiting job. A pool's
//! job that another agent has, or has ended, is not resumed here; one that nobody has is.

use std::sync::Arc;

use super::attempt::drive;
use super::desk::Desk;
use super::effects::Effects;
use super::pool_claim;
use super::terms::Terms;
use crate::bus::{self, AckHandle, Target};
use crate::clock::Clock;
use crate::ids::{Address, JobId};
use crate::job::Job;
use crate::job::claim::{Orphan, orphan};
use crate::job::phase::{Event, Phase, StopCause};
use crate::journal;
use crate::supervise::Crew;

/// The jobs of this node, and the state that they share.
#[derive(Debug)]
pub struct Jobs<E, C> {
    /// The address of this node.
    pub node: Address,
    /// What the node offers, and so what a job gets here.
    pub terms: Terms,
    /// Decides and journals the jobs' transitions.
    pub desk: Desk<C>,
    /// Carries out the jobs' steps.
    pub effects: Arc<E>,
    /// The tasks of the jobs in hand.
    pub crew: Crew,
    /// Held while a job leaves the phase `Waiting`.
    pub(super) waiting: tokio::sync::Mutex<()>,
}

/// Why a job was not moved or a delivery not answered; both are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal can't be read or written.
    #[error("the journal can't take a job down")]
    Journal(#[from] journal::Error),
    /// The bus failed in a way that a retry does not cure.
    #[error("a delivery can't be answered for")]
    Bus(#[from] bus::Error),
}

impl<E: Effects, C: Clock + Clone> Jobs<E, C> {
    /// The jobs of a node, with none in hand yet.
    pub fn new(node: Address, terms: Terms, desk: Desk<C>, effects: Arc<E>) -> Self {
        let (crew, waiting) = (Crew::default(), tokio::sync::Mutex::default());
        Self { node, terms, desk, effects, crew, waiting }
    }

    /// Spawns a task for the job, unless one has it in hand already.
    pub fn start(&self, job: Job, delivery: Option<AckHandle>) {
        let Some(stops) = self.desk.board.enter(&job, delivery) else { return };
        let (effects, desk) = (Arc::clone(&self.effects), self.desk.clone());
        let name = format!("job {}", job.id());
        self.crew.spawn(name, async move { drive(job, effects.as_ref(), &desk, stops).await });
    }

    /// Resumes a waiting job here if its message is in no queue any more and nobody has its claim.
    /// A draining node leaves that to its next start.
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

    /// Resumes a job that was given back and waits; does nothing if it does not wait.
    pub(in crate::agent) async fn resume_waiting(
        &self,
        id: &JobId,
        ack: Option<AckHandle>,
    ) -> Result<(), Error> {
        self.leave_waiting(id, Event::Resumed, ack).await.map(drop)
    }

    /// Cancels a job that was given back and waits; `false` if it does not wait.
    pub(in crate::agent) async fn cancel_waiting(&self, id: &JobId) -> Result<bool, Error> {
        let known = self.desk.journal.lookup(id).await?;
        let delivery = known.and_then(|known| known.delivery);
        let delivery = delivery.and_then(|delivery| serde_json::from_str(&delivery).ok());
        self.leave_waiting(id, Event::StopAsked { cause: StopCause::Cancelled }, delivery).await
    }

    /// Moves a job out of the phase `Waiting`; `false` if it is not in that phase, or not any more:
    /// the first caller wins.
    pub(super) async fn leave_waiting(
        &self,
        id: &JobId,
        event: Event,
        delivery: Option<AckHandle>,
    ) -> Result<bool, Error> {
        let _alone = self.waiting.lock().await;
        let known = self.desk.journal.lookup(id).await?;
        let Some(job) = known.and_then(|known| known.job) else { return Ok(false) };
        // While its previous task has not ended, no new one can take the job.
        if job.phase != Phase::Waiting || self.desk.board.has(id) {
            return Ok(false);
        }
        let Ok(moved) = self.desk.decide(&job, &event) else { return Ok(false) };
        self.desk.record(&event, &moved).await?;
        if !moved.job.phase.is_done() {
            self.start(moved.job, delivery);
        }
        Ok(true)
    }
}
