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
use crate::job::phase::{Event, Phase};
use crate::job::spec::{Parsed, Refused, parse};
use crate::job::{Domain, Job, JobId, Reason, Status};
use crate::journal::{self, Known};
use crate::node::Address;
use crate::node::admission::{Refusal, admit};
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
}

#[derive(Debug, thiserror::Error)]
enum Error {
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
        let (bus, mode) = link.bus().await;
        let mut deliveries = bus.intake(&source, mode).await.map_err(again)?;
        tracing::info!(source = %source, "waiting for jobs on {}", source.subject());
        loop {
            let room = self.desk.board.wait_for_room(ahead).await;
            let delivery = deliveries.next(room).await.map_err(again)?;
            let taken = Box::pin(self.take(&bus, &source, delivery)).await;
            taken.map_err(|err| Failure::Again(err.into()))?;
        }
    }

    async fn take(&self, bus: &Bus, source: &Target, delivery: Delivery) -> Result<(), Error> {
        let target = Target::of_subject(&delivery.subject).unwrap_or_else(|| source.clone());
        let Parsed { spec, spec_hash } = match parse(&delivery.body) {
            Ok(parsed) => parsed,
            Err(refused) => return self.refuse(bus, refused, &delivery).await,
        };
        if let Some(known) = self.desk.journal.lookup(&spec.id).await? {
            if known.body_hash != spec_hash {
                let refused = duplicate(&spec.id, &delivery.body);
                return self.refuse(bus, refused, &delivery).await;
            }
            return self.again(bus, &spec.id, known, delivery.ack).await;
        }
        let parsed = Parsed { spec, spec_hash };
        let allowed = match self.authorize(&parsed, &target).await {
            Ok(()) => self.fits(&parsed),
            refused => refused,
        };
        if let Err((reason, error)) = allowed {
            if matches!(target, Target::Pool(_)) && never_fits(reason) {
                if delivery.delivered < REFUSALS_MAX {
                    return later(bus, &delivery).await;
                }
                // Told once to whoever looks after the pool; the requester gets the status.
                bus.publish_dead(&target, delivery.body.clone(), parsed.spec.id.as_str()).await?;
            }
            let id = parsed.spec.id;
            let refused = Refused { id, body_hash: spec_hash, reason, error };
            return self.refuse(bus, refused, &delivery).await;
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
        self.accept(parsed, &target, delivery).await
    }

    async fn accept(
        &self,
        parsed: Parsed,
        target: &Target,
        delivery: Delivery,
    ) -> Result<(), Error> {
        let Parsed { spec, spec_hash } = parsed;
        let now = self.desk.clock.now();
        let taken = Job::accept((spec, spec_hash), target.to_string(), self.node, now);
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

    /// Writes a refusal down, says it, and has the message taken off the queue.
    async fn refuse(&self, bus: &Bus, refused: Refused, delivery: &Delivery) -> Result<(), Error> {
        let known = self.desk.journal.lookup(&refused.id).await?;
        match known {
            None => {
                let status = Status::rejected(self.node, &refused, self.desk.clock.now());
                self.desk.journal.refuse(&refused, status).await?;
                let (id, reason) = (&refused.id, refused.reason.code());
                tracing::info!(job.id = %id, reason, "job {id} rejected: {}", refused.error);
            }
            Some(known) if known.body_hash == refused.body_hash => {
                self.desk.journal.send_again(&refused.id).await?;
            }
            // Another message under a used id: answered under an id of its own.
            Some(_) => {
                let refused = duplicate(&refused.id, &delivery.body);
                if self.desk.journal.lookup(&refused.id).await?.is_some() {
                    self.desk.journal.send_again(&refused.id).await?;
                } else {
                    let status = Status::rejected(self.node, &refused, self.desk.clock.now());
                    self.desk.journal.refuse(&refused, status).await?;
                }
            }
        }
        self.desk.outbox.notify_one();
        acknowledge(bus, delivery.ack.as_ref()).await
    }

    async fn authorize(&self, parsed: &Parsed, target: &Target) -> Result<(), (Reason, String)> {
        let spec = &parsed.spec;
        let allowed = match &self.auth {
            JobAuth::Open if spec.signature.is_none() => return Ok(()),
            JobAuth::Open => None,
            JobAuth::Requesters(allowed) => Some(allowed),
        };
        let (Some(signature), Some(requester)) = (spec.signature, spec.requester) else {
            let error = "this node takes signed jobs only: `requester`, `deadline` and `signature`";
            return Err((Reason::RequesterNotAllowed, error.to_owned()));
        };
        if allowed.is_some_and(|allowed| !allowed.contains(&requester)) {
            let error = format!("{requester} is not on this node's list of requesters");
            return Err((Reason::RequesterNotAllowed, error));
        }
        let mut domain = self.domain.clone();
        let domain = domain.wait_for(Option::is_some).await.ok().and_then(|domain| *domain);
        let digest = domain.map(|domain| domain.job_digest(&target.to_string(), parsed.spec_hash));
        let signer = digest.and_then(|digest| key::recover(&digest.0, &signature.0).ok());
        if signer == Some(requester) {
            Ok(())
        } else {
            let error = format!("the signature is not {requester}'s over this job for {target}");
            Err((Reason::SignatureInvalid, error))
        }
    }

    fn fits(&self, parsed: &Parsed) -> Result<(), (Reason, String)> {
        let spec = &parsed.spec;
        if spec.deadline.is_some_and(|deadline| deadline <= self.desk.clock.now()) {
            let error = "the job's deadline had passed when it came".to_owned();
            return Err((Reason::DeadlinePassed, error));
        }
        admit(&self.terms.offer, &self.terms.demand(spec)).map_err(|refusal| match refusal {
            Refusal::NoGpu => {
                (Reason::NoGpu, "the job wants GPUs and this node has none".to_owned())
            }
            Refusal::TooLarge(text) => (Reason::NoNodeFits, text),
            Refusal::Network(network) => (
                Reason::NetworkNotAllowed,
                format!("the job wants the network `{network}`, which this node does not offer"),
            ),
        })
    }

    /// What is free in MiB where that is too little to take a job.
    fn too_little_disk(&self) -> Option<u64> {
        let free = host::disk_free_mib(&self.data_dir).ok()?;
        (free < self.disk_free_min_mib).then_some(free)
    }
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
