//! Deliveries coming in: each becomes a job in hand, a refusal, or a repeated answer.
//!
//! What must hold: a delivery is written down before it is answered for; a job id runs once,
//! however often it is delivered; nothing that a message holds can end this loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::attempt::{Desk, Effects, drive};
use super::link::Link;
use super::settings::JobAuth;
use super::terms::Terms;
use crate::bus::{self, AckHandle, Bus, Delivery, Settle, Target};
use crate::chain::key;
use crate::clock::Clock;
use crate::host;
use crate::job::phase::{Asked, Event, Phase, StopCause};
use crate::job::spec::{Parsed, Refused, parse};
use crate::job::{Domain, Job, JobId, Reason, Status};
use crate::journal::{self, Known};
use crate::node::Address;
use crate::supervise::{Crew, Failure, chain};

/// A delivery that does not fit now comes back after this long, doubling to the longest.
const NAK_FIRST: Duration = Duration::from_secs(5);
const NAK_MAX: Duration = Duration::from_mins(5);

/// A pool's job that fits none of its nodes is refused for good after so many deliveries.
const REFUSALS_MAX: u64 = 20;

/// Everything that taking a job in needs.
#[derive(Debug)]
pub struct Intake<E, C> {
    /// This node.
    pub node: Address,
    /// Whose jobs are taken.
    pub auth: JobAuth,
    /// What the node offers.
    pub terms: Terms,
    /// Where signatures are checked; known once the chain has answered.
    pub domain: watch::Receiver<Option<Domain>>,
    /// Journal, board, clock.
    pub desk: Desk<C>,
    /// Where jobs are carried out.
    pub effects: Arc<E>,
    /// The jobs' tasks.
    pub crew: Crew,
    /// Where the free disk is measured.
    pub data_dir: PathBuf,
    /// No job is taken while less is free there.
    pub disk_free_min_mib: u64,
    /// How many sources are being read.
    pub open: watch::Sender<usize>,
}

/// Counts a source that is being read, as long as it lives.
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

/// Why a delivery could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the journal can't take a job down")]
    Journal(#[from] journal::Error),
    #[error("a delivery can't be answered for")]
    Bus(#[from] bus::Error),
}

impl<E: Effects, C: Clock + Clone> Intake<E, C> {
    /// Takes jobs of one source as long as there is room; a service that ends only when it fails.
    /// `ahead`: how many are taken beyond the free slots, to be made ready.
    pub async fn run(
        self: Arc<Self>,
        link: Link,
        source: Target,
        ahead: usize,
    ) -> Result<(), Failure> {
        let again = |err: bus::Error| Failure::Again(err.into());
        let _open = Open::of(&self.open);
        let (bus, mode) = tokio::select! {
            online = link.bus() => online,
            () = self.desk.board.drained() => return Ok(()),
        };
        let mut deliveries = bus.intake(&source, mode).await.map_err(again)?;
        tracing::info!(source = %source, "waiting for jobs on {}", source.subject());
        loop {
            let next = async {
                let room = self.desk.board.wait_for_room(ahead).await;
                deliveries.next(room).await
            };
            let delivery = tokio::select! {
                delivery = next => delivery.map_err(again)?,
                () = self.desk.board.drained() => break,
            };
            let taken = Box::pin(self.take(&bus, &source, delivery)).await;
            taken.map_err(|err| Failure::Again(err.into()))?;
        }
        // What the server has sent already, and nobody has looked at, goes back at once.
        deliveries.close().await;
        Ok(())
    }

    /// Waits until no source is read any more.
    pub async fn closed(&self) {
        // The sender lives in `self`: it can't be gone.
        self.open.subscribe().wait_for(|open| *open == 0).await.ok();
    }

    async fn take(&self, bus: &Bus, source: &Target, delivery: Delivery) -> Result<(), Error> {
        let target = Target::of_subject(&delivery.subject).unwrap_or_else(|| source.clone());
        let parsed = match parse(&delivery.body) {
            Ok(parsed) => parsed,
            // Where jobs must be signed, nobody has proved yet that the id is theirs to use up.
            Err(refused) => {
                let proven = self.auth == JobAuth::Open;
                return self.refuse(bus, refused, proven, &delivery).await;
            }
        };
        let known = self.desk.journal.lookup(&parsed.spec.id).await?;
        if let Some(known) = known.clone().filter(|known| known.unproven_seq.is_none()) {
            if known.body_hash != parsed.spec_hash {
                let refused = duplicate(&parsed.spec.id, &delivery.body);
                return self.refuse(bus, refused, true, &delivery).await;
            }
            return self.again(bus, &parsed.spec.id, known, delivery.ack).await;
        }
        match self.authorize(&parsed, &target).and_then(|()| self.fits(&parsed)) {
            Ok(()) => {}
            Err(Unfit::Later) => return later(bus, &delivery).await,
            Err(Unfit::Unproven(reason, error)) => {
                let refused = refused(parsed, reason, error);
                return self.refuse(bus, refused, false, &delivery).await;
            }
            Err(Unfit::Never(reason, error)) => {
                let refused = refused(parsed, reason, error);
                return self.misfit(bus, &target, refused, &delivery).await;
            }
        }
        if let Some(free) = self.too_little_disk() {
            let min = self.disk_free_min_mib;
            tracing::warn!(
                free,
                min,
                "no job is taken: {free} MiB of disk are free, {min} must stay"
            );
            return later(bus, &delivery).await;
        }
        let after_seq = known.and_then(|known| known.unproven_seq).unwrap_or(0);
        self.accept(parsed, &target, delivery, after_seq).await
    }

    /// A job that can never run here: refused, but left for a pool's other nodes for a while.
    async fn misfit(
        &self,
        bus: &Bus,
        target: &Target,
        refused: Refused,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        if matches!(target, Target::Pool(_)) && never_fits(refused.reason) {
            if delivery.delivered < REFUSALS_MAX {
                return later(bus, delivery).await;
            }
            // For whoever looks after the pool; the requester gets the status.
            bus.publish_dead(target, delivery.body.clone(), refused.id.as_str()).await?;
        }
        self.refuse(bus, refused, true, delivery).await
    }

    async fn accept(
        &self,
        parsed: Parsed,
        target: &Target,
        delivery: Delivery,
        after_seq: u64,
    ) -> Result<(), Error> {
        let Parsed { spec, spec_hash } = parsed;
        let now = self.desk.clock.now();
        let asked = Asked { spec, spec_hash, target: target.to_string() };
        let taken = Job::accept(asked, self.node, after_seq, now);
        let handle = delivery.ack.as_ref().and_then(|ack| serde_json::to_string(ack).ok());
        self.desk.journal.admit(&taken, delivery.body.to_vec(), handle).await?;
        self.desk.outbox.notify_one();
        let id = taken.job.id().clone();
        tracing::info!(job.id = %id, image = taken.job.spec.image, "job {id} accepted");
        self.start(taken.job, delivery.ack);
        Ok(())
    }

    /// Puts a job into the hands of a task of its own, unless it is in hand already.
    pub fn start(&self, job: Job, delivery: Option<AckHandle>) {
        let Some(stops) = self.desk.board.enter(&job, delivery) else { return };
        let (effects, desk) = (Arc::clone(&self.effects), self.desk.clone());
        let name = format!("job {}", job.id());
        self.crew.spawn(name, async move { drive(job, effects.as_ref(), &desk, stops).await });
    }

    /// A known job was delivered again.
    async fn again(
        &self,
        bus: &Bus,
        id: &JobId,
        known: Known,
        ack: Option<AckHandle>,
    ) -> Result<(), Error> {
        if !known.open {
            self.desk.journal.send_again(id).await?;
            self.desk.outbox.notify_one();
            return acknowledge(bus, ack.as_ref()).await;
        }
        let handle = ack.as_ref().and_then(|ack| serde_json::to_string(ack).ok());
        self.desk.journal.redelivered(id, handle).await?;
        self.desk.board.redelivered(id, ack.clone());
        match known.job {
            Some(job) if job.phase == Phase::Waiting => self.resume(job, ack).await,
            _ => Ok(()),
        }
    }

    /// A job that was given back goes on.
    pub(super) async fn resume_waiting(&self, job: Job, ack: Option<AckHandle>) {
        if let Err(err) = self.resume(job, ack).await {
            tracing::error!("a job that waits can't go on: {}", chain(&err));
        }
    }

    async fn resume(&self, job: Job, ack: Option<AckHandle>) -> Result<(), Error> {
        let now = self.desk.clock.now();
        let Ok(moved) = job.apply(Event::Resumed, now, &self.desk.rules) else { return Ok(()) };
        self.desk.journal.record(&Event::Resumed, &moved, now).await?;
        self.desk.outbox.notify_one();
        self.start(moved.job, ack);
        Ok(())
    }

    /// Cancels a job that was given back and waits; `false` where it does not wait.
    pub(super) async fn cancel_waiting(&self, id: &JobId) -> Result<bool, Error> {
        let event = Event::StopAsked { cause: StopCause::Cancelled };
        let known = self.desk.journal.lookup(id).await?;
        let Some(Known { job: Some(job), delivery, .. }) = known else { return Ok(false) };
        if job.phase != Phase::Waiting {
            return Ok(false);
        }
        let now = self.desk.clock.now();
        let Ok(moved) = job.apply(event.clone(), now, &self.desk.rules) else { return Ok(false) };
        self.desk.journal.record(&event, &moved, now).await?;
        self.desk.outbox.notify_one();
        let delivery = delivery.and_then(|delivery| serde_json::from_str(&delivery).ok());
        self.start(moved.job, delivery);
        Ok(true)
    }

    /// Writes a refusal down, says it, and has the message taken off the queue. `proven`: whether
    /// it uses the id up; where it doesn't, the id's owner can still use it.
    async fn refuse(
        &self,
        bus: &Bus,
        refused: Refused,
        proven: bool,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let mut refused = refused;
        let mut known = self.desk.journal.lookup(&refused.id).await?;
        if known.as_ref().is_some_and(|known| known.body_hash != refused.body_hash) {
            // Another message under a used id: answered under an id of its own.
            refused = duplicate(&refused.id, &delivery.body);
            known = self.desk.journal.lookup(&refused.id).await?;
        }
        if known.is_some() {
            self.desk.journal.send_again(&refused.id).await?;
        } else {
            let status = Status::rejected(self.node, &refused, self.desk.clock.now());
            self.desk.journal.refuse(&refused, status, proven).await?;
            let (id, reason) = (&refused.id, refused.reason.code());
            tracing::info!(job.id = %id, reason, "job {id} rejected: {}", refused.error);
        }
        self.desk.outbox.notify_one();
        acknowledge(bus, delivery.ack.as_ref()).await
    }

    /// Whether the job is its requester's, and the requester one of ours.
    fn authorize(&self, parsed: &Parsed, target: &Target) -> Result<(), Unfit> {
        let spec = &parsed.spec;
        let allowed = match &self.auth {
            JobAuth::Open if spec.signature.is_none() => return Ok(()),
            JobAuth::Open => None,
            JobAuth::Requesters(allowed) => Some(allowed),
        };
        let (Some(signature), Some(requester)) = (spec.signature, spec.requester) else {
            let error = "this node takes signed jobs only: `requester`, `deadline` and `signature`";
            return Err(Unfit::Unproven(Reason::RequesterNotAllowed, error.to_owned()));
        };
        if allowed.is_some_and(|allowed| !allowed.contains(&requester)) {
            let error = format!("{requester} is not on this node's list of requesters");
            return Err(Unfit::Unproven(Reason::RequesterNotAllowed, error));
        }
        let Some(domain) = *self.domain.borrow() else { return Err(Unfit::Later) };
        let digest = domain.job_digest(&target.to_string(), parsed.spec_hash);
        if key::recover(&digest.0, &signature.0) == Ok(requester) {
            Ok(())
        } else {
            let error = format!("the signature is not {requester}'s over this job for {target}");
            Err(Unfit::Unproven(Reason::SignatureInvalid, error))
        }
    }

    /// Whether the node can ever run the job.
    fn fits(&self, parsed: &Parsed) -> Result<(), Unfit> {
        let spec = &parsed.spec;
        if spec.deadline.is_some_and(|deadline| deadline <= self.desk.clock.now()) {
            let error = "the job's deadline had passed when it came".to_owned();
            return Err(Unfit::Never(Reason::DeadlinePassed, error));
        }
        self.terms.admit(spec).map_err(|fault| Unfit::Never(fault.reason, fault.error))
    }

    /// What is free in MiB where that is too little to take a job.
    fn too_little_disk(&self) -> Option<u64> {
        let free = host::disk_free_mib(&self.data_dir).ok()?;
        (free < self.disk_free_min_mib).then_some(free)
    }
}

/// Why a job is not taken.
enum Unfit {
    /// It can't be told yet: the chain's id, which signatures are made with, is not known.
    Later,
    /// Nobody has proved that it is the requester's.
    Unproven(Reason, String),
    /// It can never run here.
    Never(Reason, String),
}

fn refused(parsed: Parsed, reason: Reason, error: String) -> Refused {
    Refused { id: parsed.spec.id, body_hash: parsed.spec_hash, reason, error }
}

/// Whether another node may be the right one.
const fn never_fits(reason: Reason) -> bool {
    matches!(reason, Reason::NoGpu | Reason::NoNodeFits | Reason::NetworkNotAllowed)
}

fn duplicate(id: &JobId, body: &[u8]) -> Refused {
    let error = format!("the job id {id} was used by another message before");
    Refused::nameless(body, Reason::DuplicateJobId, error)
}

async fn later(bus: &Bus, delivery: &Delivery) -> Result<(), Error> {
    let Some(ack) = &delivery.ack else { return Ok(()) };
    let doublings = u32::try_from(delivery.delivered.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let delay = NAK_FIRST.saturating_mul(1 << doublings).min(NAK_MAX);
    answered(bus.settle(ack, Settle::Nak(delay)).await)
}

async fn acknowledge(bus: &Bus, ack: Option<&AckHandle>) -> Result<(), Error> {
    let Some(ack) = ack else { return Ok(()) };
    answered(bus.settle(ack, Settle::Ack).await)
}

/// An answer that could not be given is no loss: the message comes again and is answered then.
fn answered(result: Result<(), bus::Error>) -> Result<(), Error> {
    match result {
        Ok(()) | Err(bus::Error::StaleAck { .. }) => Ok(()),
        Err(err) if err.is_transient() => {
            tracing::debug!("a delivery was not answered for: {}", chain(&err));
            Ok(())
        }
        Err(err) => Err(err.into()),
    }
}
