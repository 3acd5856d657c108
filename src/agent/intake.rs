//! Deliveries coming in: each becomes a job in hand, a refusal, or a repeated answer.
//!
//! What must hold: a delivery is written down before it is answered for; a job id runs once,
//! however often it is delivered; nothing that a message holds can end this loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::attempt::{Desk, drive};
use super::claims;
use super::effects::Effects;
use super::link::Link;
use super::post::dead_letter;
use super::settings::JobAuth;
use super::terms::Terms;
use crate::bus::{self, AckHandle, Delivery, PoolName, Settle, Target};
use crate::chain::key;
use crate::clock::Clock;
use crate::host;
use crate::job::claim::{Arrival, arrive};
use crate::job::phase::{Asked, Event, Phase, StopCause};
use crate::job::spec::{Parsed, Refused, parse};
use crate::job::{Domain, Hash, Job, JobId, Reason, Status};
use crate::journal::{self, History, Known};
use crate::node::Address;
use crate::node::admission::Verdict;
use crate::supervise::{Crew, Failure, chain};

/// A delivery that does not fit now comes back after this long, doubling to the longest.
const NAK_FIRST: Duration = Duration::from_secs(5);
const NAK_MAX: Duration = Duration::from_mins(5);

/// A pool's job that would have to wait here is left to other agents for so many deliveries, which
/// is some two minutes.
const OFFERS_MAX: u64 = 5;

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
    /// Held while a job leaves its wait.
    pub waiting: tokio::sync::Mutex<()>,
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

/// Why a delivery could not be answered for: it comes again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be written down.
    #[error("the journal can't take a job down")]
    Journal(#[from] journal::Error),
    /// The bus refused for good.
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
            let taken = Box::pin(self.take(&source, ahead, delivery)).await;
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

    /// Answers for one delivery: it is in the journal, or back in the queue, when this returns.
    pub async fn take(
        &self,
        source: &Target,
        ahead: usize,
        delivery: Delivery,
    ) -> Result<(), Error> {
        let target = Target::of_subject(&delivery.subject).unwrap_or_else(|| source.clone());
        let parsed = match parse(&delivery.body) {
            Ok(parsed) => parsed,
            // Where jobs must be signed, nobody has proved yet that the id is theirs to use up.
            Err(refused) => {
                let proven = self.auth == JobAuth::Open;
                return self.refuse(refused, proven, &delivery).await;
            }
        };
        let known = self.desk.journal.lookup(&parsed.spec.id).await?;
        if let Some(known) = known.clone().filter(|known| known.unproven_seq.is_none()) {
            if known.body_hash != parsed.spec_hash {
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
            let refused = refused(parsed, reason, error);
            return self.misfit(&target, refused, &delivery).await;
        }
        if pool.is_some() && !self.has_room(ahead, &parsed, &delivery).await? {
            return Ok(());
        }
        if let Some(free) = self.too_little_disk() {
            let min = self.disk_free_min_mib;
            tracing::warn!(
                free,
                min,
                "no job is taken: {free} MiB of disk are free, {min} must stay"
            );
            return self.later(&delivery).await;
        }
        let after_seq = known.and_then(|known| known.unproven_seq).unwrap_or(0);
        self.accept(parsed, &target, delivery, after_seq).await
    }

    /// Whether nobody else has a pool's job; where somebody has, its delivery is answered.
    async fn is_free(
        &self,
        pool: &PoolName,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        let id = &parsed.spec.id;
        match self.arrival(pool, id, parsed.spec_hash, delivery.ack.as_ref()).await? {
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

    /// What a delivery of a pool's job means, by the job's claim.
    async fn arrival(
        &self,
        pool: &PoolName,
        id: &JobId,
        spec_hash: Hash,
        ack: Option<&AckHandle>,
    ) -> Result<Arrival, Error> {
        let Some(ack) = ack else { return Ok(Arrival::Open) };
        let found = match self.effects.claim(pool, id).await {
            Ok(found) => found,
            // One that can't be read may be a later version's: the job is theirs.
            Err(err) if err.is_transient() || matches!(err, bus::Error::InvalidClaim { .. }) => {
                tracing::warn!(job.id = %id, "nobody says who has job {id}: {}", chain(&err));
                return Ok(Arrival::Later);
            }
            Err(err) => return Err(err.into()),
        };
        let bid = claims::bid(self.node, ack, 0, spec_hash, &self.desk.clock);
        Ok(arrive(found.as_ref().map(|found| &found.claim), &bid))
    }

    /// Whether a pool's job can go now, or has waited long enough to stand in a line here; where
    /// not, its delivery is answered.
    async fn has_room(
        &self,
        ahead: usize,
        parsed: &Parsed,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        let Some(ack) = &delivery.ack else { return Ok(true) };
        let board = &self.desk.board;
        // Taken meanwhile by a job of another source: an agent with a free slot is to have it.
        if !board.has_room(ahead) {
            self.settle(ack, Settle::Nak(Duration::ZERO)).await?;
            return Ok(false);
        }
        // Another agent may have all that it needs free at once. Where nobody has for long, it
        // stands in a line, so that smaller jobs can't starve it.
        let waits = matches!(board.verdict(&parsed.spec), Verdict::Later(_));
        if waits && ahead == 0 && delivery.delivered <= OFFERS_MAX {
            self.later(delivery).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// A job that can never run here: refused, but left for a pool's other nodes for a while.
    async fn misfit(
        &self,
        target: &Target,
        refused: Refused,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (Target::Pool(pool), Some(ack)) = (target, &delivery.ack) else {
            return self.refuse(refused, true, delivery).await;
        };
        let bid = claims::bid(self.node, ack, 0, refused.body_hash, &self.desk.clock);
        let (id, effects) = (&refused.id, self.effects.as_ref());
        let said = if never_fits(refused.reason) {
            claims::refuse(pool, id, &bid, effects).await
        } else {
            claims::reject(pool, id, &bid, effects).await
        };
        match said {
            Ok(true) if never_fits(refused.reason) => self.give_up(target, refused, delivery).await,
            Ok(true) => self.refuse(refused, true, delivery).await,
            Ok(false) => self.later(delivery).await,
            Err(err) if err.is_transient() => self.later(delivery).await,
            Err(err) => Err(err.into()),
        }
    }

    /// A pool's job that fits nobody: put aside for whoever looks after the pool, and its requester
    /// is told.
    async fn give_up(
        &self,
        target: &Target,
        refused: Refused,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let history = History { body: delivery.body.to_vec(), events: Vec::new() };
        let (letter, id) = (dead_letter(self.node, &history), format!("dead:{}", refused.id));
        self.effects.bury(target, letter, &id).await?;
        let error = format!("no node of the pool fits; the last one said: {}", refused.error);
        let refused = Refused { reason: Reason::NoNodeFits, error, ..refused };
        let status = Status::failed_unrun(self.node, &refused, self.desk.clock.now());
        self.write_refusal(refused, status, true, delivery).await
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
    async fn again(&self, known: Known, parsed: &Parsed, delivery: &Delivery) -> Result<(), Error> {
        let (id, ack) = (&parsed.spec.id, delivery.ack.clone());
        if !known.open {
            self.desk.journal.send_again(id).await?;
            self.desk.outbox.notify_one();
            return self.acknowledge(ack.as_ref()).await;
        }
        let waiting = known.job.filter(|job| job.phase == Phase::Waiting);
        if let Some(job) = &waiting
            && let Some(pool) = job.pool().and_then(|pool| pool.parse().ok())
        {
            // Another agent may have had it since, or have it still.
            match self.arrival(&pool, id, parsed.spec_hash, ack.as_ref()).await? {
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

    /// A job that was given back goes on.
    pub(super) async fn resume_waiting(&self, id: &JobId, ack: Option<AckHandle>) {
        if let Err(err) = self.leave_waiting(id, Event::Resumed, ack).await {
            tracing::error!("a job that waits can't go on: {}", chain(&err));
        }
    }

    /// Cancels a job that was given back and waits; `false` where it does not wait.
    pub(super) async fn cancel_waiting(&self, id: &JobId) -> Result<bool, Error> {
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
        if job.phase != Phase::Waiting {
            return Ok(false);
        }
        let now = self.desk.clock.now();
        let Ok(moved) = job.apply(event.clone(), now, &self.desk.rules) else { return Ok(false) };
        self.desk.journal.record(&event, &moved, now).await?;
        self.desk.outbox.notify_one();
        if !moved.job.phase.is_done() {
            self.start(moved.job, delivery);
        }
        Ok(true)
    }

    /// Writes a refusal down, says it, and has the message taken off the queue. `proven`: whether
    /// it uses the id up; where it doesn't, the id's owner can still use it.
    async fn refuse(
        &self,
        refused: Refused,
        proven: bool,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let status = Status::rejected(self.node, &refused, self.desk.clock.now());
        self.write_refusal(refused, status, proven, delivery).await
    }

    async fn write_refusal(
        &self,
        refused: Refused,
        status: Status,
        proven: bool,
        delivery: &Delivery,
    ) -> Result<(), Error> {
        let (mut refused, mut status) = (refused, status);
        let mut known = self.desk.journal.lookup(&refused.id).await?;
        if known.as_ref().is_some_and(|known| known.body_hash != refused.body_hash) {
            // Another message under a used id: answered under an id of its own.
            refused = duplicate(&refused.id, &delivery.body);
            status = Status::rejected(self.node, &refused, self.desk.clock.now());
            known = self.desk.journal.lookup(&refused.id).await?;
        }
        if known.is_some() {
            self.desk.journal.send_again(&refused.id).await?;
        } else {
            self.desk.journal.refuse(&refused, status, proven).await?;
            let (id, reason) = (&refused.id, refused.reason.code());
            tracing::info!(job.id = %id, reason, "job {id} rejected: {}", refused.error);
        }
        self.desk.outbox.notify_one();
        self.acknowledge(delivery.ack.as_ref()).await
    }

    async fn later(&self, delivery: &Delivery) -> Result<(), Error> {
        let Some(ack) = &delivery.ack else { return Ok(()) };
        let doublings = u32::try_from(delivery.delivered.saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = NAK_FIRST.saturating_mul(1 << doublings.min(10)).min(NAK_MAX);
        self.settle(ack, Settle::Nak(delay)).await
    }

    async fn acknowledge(&self, ack: Option<&AckHandle>) -> Result<(), Error> {
        let Some(ack) = ack else { return Ok(()) };
        self.settle(ack, Settle::Ack).await
    }

    /// An answer that could not be given is no loss: the message comes again and is answered then.
    async fn settle(&self, ack: &AckHandle, how: Settle) -> Result<(), Error> {
        match self.effects.settle(ack, how).await {
            Ok(()) | Err(bus::Error::StaleAck { .. }) => Ok(()),
            Err(err) if err.is_transient() => {
                tracing::debug!("a delivery was not answered for: {}", chain(&err));
                Ok(())
            }
            Err(err) => Err(err.into()),
        }
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
    fn fits(&self, parsed: &Parsed) -> Result<(), (Reason, String)> {
        let spec = &parsed.spec;
        if spec.deadline.is_some_and(|deadline| deadline <= self.desk.clock.now()) {
            let error = "the job's deadline had passed when it came".to_owned();
            return Err((Reason::DeadlinePassed, error));
        }
        self.terms.admit(spec).map_err(|fault| (fault.reason, fault.error))
    }

    /// What is free in MiB where that is too little to take a job.
    fn too_little_disk(&self) -> Option<u64> {
        let free = host::disk_free_mib(&self.data_dir).ok()?;
        (free < self.disk_free_min_mib).then_some(free)
    }
}

/// Why a job is nobody's yet.
enum Unfit {
    /// It can't be told yet: the chain's id, which signatures are made with, is not known.
    Later,
    /// Nobody has proved that it is the requester's.
    Unproven(Reason, String),
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
