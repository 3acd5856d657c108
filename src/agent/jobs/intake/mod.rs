//! Intake of deliveries: each becomes a job in hand, a refusal, or a repeated answer.
//!
//! Invariants: a delivery is journaled before it is answered. A job id runs once, however often it
//! is delivered. No content of a message can end this loop.

mod pool;
mod refusal;
mod requester;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::effects::{Deliveries, Effects};
use super::hand::{Error, Jobs};
use crate::agent::link::Link;
use crate::agent::settings::JobAuth;
use crate::bus::{self, Delivery, Settle, Target};
use crate::clock::Clock;
use crate::host;
use crate::ids::{Address, Domain};
use crate::job::phase::Asked;
use crate::job::spec::{Parsed, parse};
use crate::job::{Job, Reason};
use crate::supervise::Failure;

use refusal::{duplicate, refused};
use requester::{Unfit, is_owners};

/// Redelivery delay of a delivery that could not be journaled.
const AGAIN: Duration = Duration::from_secs(5);

/// Everything that the intake of jobs needs.
#[derive(Debug)]
pub struct Intake<E, C> {
    /// The jobs of this node; accepted ones are started here.
    pub jobs: Arc<Jobs<E, C>>,
    /// Whose jobs are accepted.
    pub auth: JobAuth,
    /// The node's owner, if there is one: not a stranger.
    pub owner: Option<Address>,
    /// The domain of the requesters' signatures; `None` until the chain has answered.
    pub domain: watch::Receiver<Option<Domain>>,
    /// The folder whose file system must have free space.
    pub data_dir: PathBuf,
    /// No job is accepted while less than this is free there, in MiB.
    pub disk_free_min_mib: u64,
    /// How many sources are being read.
    pub open: watch::Sender<usize>,
}

/// How long the intake waits for the trials at the start. A card that hangs takes longer, and is
/// out of use meanwhile.
const TRIALS_MAX: Duration = Duration::from_secs(15);

/// Counts a source as being read as long as this value lives.
struct Open<'a>(&'a watch::Sender<usize>);

impl<'a> Open<'a> {
    fn of(open: &'a watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Takes jobs of one source whenever there is room, until the node drains. A service. `ahead`:
    /// how many jobs are taken beyond the free slots, to be prepared.
    pub async fn run(
        self: Arc<Self>,
        link: Link,
        source: Target,
        ahead: usize,
    ) -> Result<(), Failure> {
        let again = |err: bus::Error| Failure::Again(err.into());
        let bus = tokio::select! {
            online = link.bus() => online,
            () = self.jobs.desk.board.drained() => return Ok(()),
        };
        let mut deliveries = Some(bus.intake(&source).await.map_err(again)?);
        tokio::select! {
            () = self.jobs.desk.board.tried() => {}
            () = self.jobs.desk.clock.sleep(TRIALS_MAX) => {}
            () = self.jobs.desk.board.drained() => return Ok(()),
        }
        tracing::info!(source = %source, "waiting for jobs on {}", source.subject());
        while !self.jobs.desk.board.is_draining() {
            let deliveries = match deliveries.take() {
                Some(deliveries) => deliveries,
                None => bus.intake(&source).await.map_err(again)?,
            };
            self.read(deliveries, &source, ahead).await?;
            tokio::select! {
                () = self.jobs.desk.board.becomes_fit(true) => {}
                () = self.jobs.desk.board.drained() => {}
            }
        }
        Ok(())
    }

    /// Takes what a source delivers, until the node drains or is not fit: then closes the source,
    /// so that no deliveries are held back by a node that can't run them.
    pub async fn read(
        &self,
        mut deliveries: impl Deliveries,
        source: &Target,
        ahead: usize,
    ) -> Result<(), Failure> {
        let _open = Open::of(&self.open);
        loop {
            let next = async {
                let room = self.jobs.desk.board.wait_for_room(ahead).await;
                deliveries.next(room).await
            };
            let delivery = tokio::select! {
                biased;
                () = self.jobs.desk.board.drained() => break,
                () = self.jobs.desk.board.becomes_fit(false) => break,
                delivery = next => delivery.map_err(|err| Failure::Again(err.into()))?,
            };
            let ack = delivery.ack.clone();
            if let Err(err) = Box::pin(self.take(source, ahead, delivery)).await {
                // Give it back at once: the node can't journal it.
                if let Some(ack) = ack {
                    self.settle(&ack, Settle::Nak(AGAIN)).await.ok();
                }
                deliveries.close().await;
                return Err(Failure::Again(err.into()));
            }
        }
        // Gives back what the server has sent ahead and nobody has looked at.
        deliveries.close().await;
        Ok(())
    }

    /// Waits until no source is being read.
    pub async fn closed(&self) {
        // Can't fail: the sender lives in `self`.
        self.open.subscribe().wait_for(|open| *open == 0).await.ok();
    }

    /// Handles one delivery: when this returns `Ok`, it is in the journal or back in the queue.
    pub async fn take(
        &self,
        source: &Target,
        ahead: usize,
        delivery: Delivery,
    ) -> Result<(), Error> {
        let target = Target::of_subject(&delivery.subject).unwrap_or_else(|| source.clone());
        let parsed = match parse(&delivery.body) {
            Ok(parsed) => parsed,
            // If jobs must be signed, nobody has proved yet that they may use up this id.
            Err(refused) => {
                let proven = self.auth == JobAuth::Open;
                return self.refuse(refused, proven, &delivery).await;
            }
        };
        let known = self.jobs.desk.journal.lookup(&parsed.spec.id).await?;
        if let Some(known) = known.clone().filter(|known| known.unproven_seq.is_none()) {
            if known.body_hash != parsed.spec_hash {
                // In the pool the id may belong to this body, although here another body has it.
                if let Target::Pool(pool) = &target
                    && self.is_claimed_for(pool, &parsed).await?
                {
                    return self.later(&delivery).await;
                }
                let refused = duplicate(&parsed.spec.id, &delivery.body);
                return self.refuse(refused, true, &delivery).await;
            }
            return self.again(known, &parsed, &delivery).await;
        }
        match self.authorize(&parsed, &target) {
            Ok(()) => {}
            Err(Unfit::Later) => return self.later(&delivery).await,
            Err(Unfit::Unproven(reason, error)) => {
                let refused = refused(parsed, reason, error);
                return self.refuse(refused, false, &delivery).await;
            }
        }
        let pool = match &target {
            Target::Pool(pool) => Some(pool),
            Target::Agent(_) => None,
        };
        if let Some(pool) = pool
            && !self.is_free(pool, &parsed, &delivery).await?
        {
            return Ok(());
        }
        if let Err((reason, error)) = self.fits(&parsed) {
            let spec = parsed.spec.clone();
            let refused = refused(parsed, reason, error);
            return self.misfit(&target, &spec, refused, &delivery).await;
        }
        if pool.is_some() && !self.has_room(ahead, &parsed, &delivery).await? {
            return Ok(());
        }
        if self.is_closed_now() {
            return self.later(&delivery).await;
        }
        let after_seq = known.and_then(|known| known.unproven_seq).unwrap_or(0);
        self.accept(parsed, &target, delivery, after_seq).await
    }

    /// Whether nothing can be taken just now, though the delivery was requested before that was known.
    fn is_closed_now(&self) -> bool {
        if self.jobs.desk.board.unfit().is_some() {
            return true;
        }
        let Some(free) = self.too_little_disk() else { return false };
        let min = self.disk_free_min_mib;
        tracing::warn!(free, min, "no job is taken: {free} MiB of disk are free, {min} must stay");
        true
    }

    async fn accept(
        &self,
        parsed: Parsed,
        target: &Target,
        delivery: Delivery,
        after_seq: u64,
    ) -> Result<(), Error> {
        let Parsed { spec, spec_hash } = parsed;
        let now = self.jobs.desk.clock.now();
        let asked = Asked { spec, spec_hash, target: target.to_string() };
        let taken = Job::accept(asked, self.jobs.node, after_seq, now);
        let handle = delivery.ack.as_ref().and_then(|ack| serde_json::to_string(ack).ok());
        self.jobs.desk.journal.admit(&taken, delivery.body.to_vec(), handle).await?;
        self.jobs.desk.events.job_taken(&taken);
        self.jobs.desk.outbox.notify_one();
        let id = taken.job.id().clone();
        tracing::info!(job.id = %id, image = taken.job.spec.image, "job {id} accepted");
        self.jobs.start(taken.job, delivery.ack);
        Ok(())
    }

    /// `Err` with the reason if the node can never run the job.
    fn fits(&self, parsed: &Parsed) -> Result<(), (Reason, String)> {
        let spec = &parsed.spec;
        if spec.deadline.is_some_and(|deadline| deadline <= self.jobs.desk.clock.now()) {
            let error = "the job's deadline had passed when it came".to_owned();
            return Err((Reason::DeadlinePassed, error));
        }
        let board = &self.jobs.desk.board;
        board.admit(spec).map_err(|fault| (fault.reason, fault.error))?;
        // `authorize` has checked the signature if there is one.
        if is_owners(spec, self.owner) || !board.bars_stranger(spec) {
            return Ok(());
        }
        // Not which version it is: everybody could read what this node is open to.
        let error =
            "this node hands GPUs to no stranger's job: its NVIDIA container toolkit is not safe";
        Err((Reason::ToolkitUnsafe, error.to_owned()))
    }

    /// The free disk space in MiB if it is too little to accept a job.
    fn too_little_disk(&self) -> Option<u64> {
        let free = host::disk_free_mib(&self.data_dir).ok()?;
        (free < self.disk_free_min_mib).then_some(free)
    }
}
