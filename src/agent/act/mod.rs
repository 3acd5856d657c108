//! Performs one step of one job on the real engine, gateways, store, bus and chain, and reports
//! what happened.
//!
//! Invariants: nothing here decides the next step; every step is repeatable; a failure is reported
//! once, as a [`Fault`] with a sentence for people and a [`Retry`] that says whether to try again.

mod base;
mod container;
pub(super) mod disk;
pub(super) mod log_book;
mod output;
mod place;
mod pull;
mod refusal;
mod room;
mod usage;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::health::sight::Sight;
use super::jobs::board::Board;
use super::jobs::effects::Effects;
use super::jobs::folders::Folders;
use super::jobs::terms::{self, Terms};
use super::jobs::{holds, reserve};
use super::link::Link;
use super::presence::Neighbours;
use super::stock::{self, DiskLimits};
use crate::artifact::{Gateways, Pinata, for_strangers};
use crate::bus::claims::Found as FoundClaim;
use crate::bus::{self, AckHandle, MessageIds, PoolName, Settle, Target};
use crate::chain::key::Key;
use crate::clock::Clock;
use crate::container::{self as engine, ContainerRuntime, Found};
use crate::ids::{Address, Domain, JobId};
use crate::job::claim::Claim;
use crate::job::phase::{Event, Fault, Phase, Retry};
use crate::job::plan::Step;
use crate::job::spec::JobSpec;
use crate::job::{Job, LateResult, Reason};
use crate::journal::{Outgoing, OutgoingKind};
use crate::node::presence::Presence;
use crate::report::causes;
use crate::{failpoint, host};

pub(super) use base::{Base, Memory};
pub(super) use output::Uploads;
pub(super) use usage::Watcher;

/// Bytes left for a message's headers when its body is shortened to the server's limit.
const HEADERS_BYTES: usize = 512;
/// Attempts to remove a container that the engine refuses to remove.
const REMOVALS_MAX: u32 = 5;

/// The [`Effects`] on the real world.
#[derive(Debug)]
pub(super) struct Act<R, C> {
    /// What the act shares with the other parts of the node.
    pub base: Base,
    /// The container engine that runs the jobs.
    pub runtime: Arc<R>,
    /// The IPFS gateways that inputs are fetched from.
    pub gateways: Gateways,
    /// The store that outputs and logs are uploaded to.
    pub pinata: Pinata,
    /// The folders of the jobs' files.
    pub folders: Folders,
    /// The owner's limits of the disk.
    pub disk: DiskLimits,
    /// Derives the ids of published messages.
    pub ids: MessageIds,
    /// The node's key, which signs receipts.
    pub key: Arc<Key>,
    /// The time between a container's stop signal and its kill.
    pub stop_grace: Duration,
    /// The clock; tests use their own.
    pub clock: C,
    /// The other nodes that are there.
    pub neighbours: Neighbours,
    /// What this process remembers of its jobs.
    pub memory: Memory,
    /// Whether the engine sees the node's files.
    pub sight: Arc<Sight>,
    /// The way to the monitor; `None` if nothing is watched.
    pub watcher: Option<Watcher>,
}

impl<R: ContainerRuntime, C: Clock> Effects for Act<R, C> {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        if step != Step::Pull {
            self.memory.pulls.end(job.id());
        }
        match step {
            Step::Pull => self.pull(job).await,
            Step::Fetch => self.fetch(job).await,
            Step::Reserve => self.reserve(job).await,
            Step::Create => self.create(job).await,
            Step::Start => self.start(job).await,
            Step::Follow { until } => self.follow(job, until).await,
            Step::Stop => self.stop(job).await,
            Step::Collect => self.collect(job).await,
            Step::Publish => self.publish(job).await,
            Step::Attest => self.attest(job).await,
            Step::Remove => self.remove(job).await,
            // These are messages, sent by the methods below; `drive` does not pass them here.
            Step::Claim
            | Step::Conclude
            | Step::Bury
            | Step::Ack
            | Step::HandBack
            | Step::Return => {
                let error = format!("the step {} is a message", step.name());
                let fault = Fault::new(Reason::NodeFault, error);
                Event::Failed { fault, retry: Retry::Always }
            }
        }
    }

    async fn settle(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        let bus = self.base.link.bus().await;
        bus.settle(delivery, how).await
    }

    async fn say(&self, status: &Outgoing) -> Result<(), bus::Error> {
        let bus = self.base.link.bus().await;
        let body = status.body.clone().into();
        match status.kind {
            OutgoingKind::New => {
                let (agent, job) = (self.key.address(), &status.job_id);
                bus.publish_status(&self.ids, agent, job, status.seq, body).await
            }
            OutgoingKind::Again => bus.repeat_status(body).await,
        }
    }

    async fn say_late(&self, result: &LateResult) -> Result<(), bus::Error> {
        let bus = self.base.link.bus().await;
        let body = serde_json::to_vec(result).unwrap_or_default().into();
        bus.publish_result(&self.ids, result.agent_address, &result.job_id, body).await
    }

    async fn said(&self) -> Result<(), bus::Error> {
        let bus = self.base.link.bus().await;
        bus.flush().await
    }

    async fn is_queued(
        &self,
        delivery: &AckHandle,
        source: &Target,
        job: &JobId,
    ) -> Result<bool, bus::Error> {
        let bus = self.base.link.bus().await;
        Ok(bus.find_delivered(delivery, source, job).await? != bus::Search::Absent)
    }

    async fn bury(&self, target: &Target, body: Vec<u8>, id: &str) -> Result<(), bus::Error> {
        let bus = self.base.link.bus().await;
        match bus.publish_dead(&self.ids, target, body.clone().into(), id).await {
            // The server will never accept a message of this size, so send a shortened one.
            Err(bus::Error::TooLarge { bytes_max, .. }) => {
                let short = super::jobs::messages::shortened(
                    &body,
                    bytes_max.saturating_sub(HEADERS_BYTES),
                );
                bus.publish_dead(&self.ids, target, short.into(), id).await.map(drop)
            }
            put => put.map(drop),
        }
    }

    async fn claim(&self, pool: &PoolName, job: &JobId) -> Result<Option<FoundClaim>, bus::Error> {
        let bus = self.base.link.bus().await;
        match bus.claim(pool, job).await {
            Err(bus::Error::NoClaims) => Ok(None),
            found => found,
        }
    }

    async fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> Result<bool, bus::Error> {
        let bus = self.base.link.bus().await;
        match bus.put_claim(pool, job, claim, over).await {
            Err(bus::Error::NoClaims) => Ok(true),
            written => written,
        }
    }

    async fn keeps(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let bus = self.base.link.bus().await;
        holds::ask(&bus, holder, job, self.clock.now()).await
    }

    async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, bus::Error> {
        let bus = self.base.link.bus().await;
        bus.ack_wait(delivery).await
    }

    async fn neighbours(&self, pool: &PoolName) -> Result<Vec<Presence>, bus::Error> {
        let bus = self.base.link.bus().await;
        self.neighbours.of(pool, &bus).await
    }

    async fn containers(&self) -> Result<Vec<Found>, engine::Error> {
        self.runtime.list(self.key.address()).await
    }

    async fn discard(&self, container: &Found) -> Result<(), engine::Error> {
        self.runtime.remove(&container.id).await
    }

    async fn withdraw(&self, container: &Found) -> Result<bool, engine::Error> {
        self.runtime.withdraw(&container.id).await
    }

    fn remembers(&self, job: &Job) -> bool {
        self.folders.of(job).is_of_this_boot()
    }

    async fn disk_max_mib(&self) -> u64 {
        let engines = stock::engines_size(&*self.runtime).await;
        let own = host::disk_size_mib(self.folders.root()).unwrap_or(u64::MAX);
        self.disk.for_jobs(own, engines)
    }

    async fn remove_folder(&self, job: &Job) -> std::io::Result<()> {
        let folders = self.folders.of(job);
        let removed = tokio::task::spawn_blocking(move || folders.remove()).await;
        self.memory.uploads().remove(job.id());
        removed.unwrap_or_else(|err| Err(std::io::Error::other(err)))
    }

    async fn sweep(&self, keep: &[JobId]) -> std::io::Result<usize> {
        let (folders, keep) = (self.folders.clone(), keep.to_vec());
        let swept = tokio::task::spawn_blocking(move || folders.sweep(&keep)).await;
        swept.unwrap_or_else(|err| Err(std::io::Error::other(err)))
    }
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    /// Reserves GPUs. A job whose GPUs failed waits for others only if the working ones could run
    /// it.
    async fn reserve(&self, job: &Job) -> Event {
        if let Some(trouble) = job.trouble.as_ref()
            && trouble.fault.reason == Reason::GpuFailed
            && !self.base.board.may_go(&job.spec)
        {
            return Event::Failed { fault: trouble.fault.clone(), retry: Retry::Patiently };
        }
        Event::Reserved { gpus: self.base.board.reserve(job).await }
    }

    async fn fetch(&self, job: &Job) -> Event {
        let folders = self.folders.of(job);
        if let Err(err) = folders.prepare() {
            return disk_failed(&err);
        }
        // Discard partial inputs of an earlier process.
        let inputs = folders.inputs();
        if !self.memory.fetched().keys().any(|path| path.starts_with(&inputs))
            && let Err(err) = folders.clear_inputs()
        {
            return disk_failed(&err);
        }
        let mut left = terms::disk_bytes(&job.spec);
        let first = job.spec.input.iter().map(|cid| (cid, "/input/input"));
        let further = job.spec.inputs.iter().map(|extra| (&extra.cid, extra.path.as_str()));
        for (cid, path) in first.chain(further) {
            let dest = folders.input(path);
            // Trust only what this process verified: a power cut may have truncated older files.
            let fetched = self.memory.fetched().get(&dest).copied();
            if let Some(bytes) = fetched {
                left = left.saturating_sub(bytes);
                continue;
            }
            if let Err(err) = folders.make_way_to(&dest) {
                return disk_failed(&err);
            }
            match self.gateways.fetch(cid, &dest, left, |_| {}).await {
                Ok(fetched) => {
                    left = left.saturating_sub(fetched.bytes);
                    self.memory.fetched().insert(dest, fetched.bytes);
                }
                Err(err) => {
                    refusal::log_words(job, &err);
                    return fetch_failed(&err, path, &job.spec, self.gateways.is_lone());
                }
            }
        }
        match folders.note_boot() {
            Ok(()) => Event::Fetched,
            Err(err) => disk_failed(&err),
        }
    }

    async fn remove(&self, job: &Job) -> Event {
        if let Err(err) = self.remove_containers(job, job.attempt).await {
            let tries = job.trouble.as_ref().map_or(0, |trouble| trouble.failures) + 1;
            // The engine answers but can't: the layer's tree may be too deep. Finish the job
            // anyway; each start of the node tries again.
            if !matches!(err, engine::Error::Engine { .. }) || tries < REMOVALS_MAX {
                return self.engine_failed(job, &err);
            }
            let id = job.id();
            tracing::error!(job.id = %id, "a container of job {id} is left: {}", causes(&err));
        }
        let folders = self.folders.of(job);
        let job_folder = folders.inputs();
        let keeps = matches!(&job.phase, Phase::Ended { outcome } if outcome.keeps_output());
        let remove = move || if keeps { folders.keep_output() } else { folders.remove() };
        failpoint::hit("remove_folders", ".before");
        let removed = tokio::task::spawn_blocking(remove).await;
        failpoint::hit("remove_folders", ".after");
        match removed.unwrap_or_else(|err| Err(std::io::Error::other(err))) {
            Ok(()) => {
                self.memory.lines().retain(|(id, _), _| id != job.id());
                self.memory.logs().retain(|(id, _), _| id != job.id());
                self.memory.fresh().retain(|(id, _)| id != job.id());
                self.memory.uploads().remove(job.id());
                self.memory.fetched().retain(|path, _| !path.starts_with(&job_folder));
                Event::Removed
            }
            Err(err) => disk_failed(&err),
        }
    }

    /// Removes the containers of attempts 1 to `attempt`: one given up as lost may still exist.
    async fn remove_containers(&self, job: &Job, attempt: u32) -> Result<(), engine::Error> {
        for attempt in 1..=attempt {
            let name = engine::ContainerId(terms::container_name(job, attempt));
            self.runtime.remove(&name).await?;
            self.unwatch(job, attempt);
            self.remove_group(&name.0);
        }
        Ok(())
    }
}

/// The event for a full or broken disk: a fault of the node that may pass. A full disk is retried
/// without limit, because another job filled it or the one that did is being stopped.
fn disk_failed(err: &std::io::Error) -> Event {
    let error = if err.kind() == std::io::ErrorKind::PermissionDenied {
        format!("the node has no right to the job's files: {err}")
    } else {
        format!("the node's disk failed the job: {err}")
    };
    let retry = if reserve::is_full(err) { Retry::Always } else { Retry::Patiently };
    Event::Failed { fault: Fault::new(Reason::NodeFault, error), retry }
}

/// The event for a failed fetch. Wrong bytes from a lone gateway are retried briefly; if all of
/// several gateways serve them, the input itself is taken to be wrong.
fn fetch_failed(err: &crate::artifact::Error, path: &str, spec: &JobSpec, is_lone: bool) -> Event {
    use crate::artifact::Error as E;
    let (reason, retry) = match err {
        E::Unverified { .. } if is_lone => (Reason::InputUnverified, Retry::Briefly),
        E::Unverified { .. } => (Reason::InputUnverified, Retry::Never),
        E::Unsupported { .. } => (Reason::InputUnsupported, Retry::Never),
        E::TooLarge { .. } => (Reason::InputTooLarge, Retry::Never),
        E::NoSpace | E::Io(_) => (Reason::NodeFault, Retry::Patiently),
        E::Refused { .. } => (Reason::InputUnavailable, Retry::Briefly),
        _ => (Reason::InputUnavailable, Retry::Patiently),
    };
    let error = match err {
        // Name `disk_mib`: the bytes left for this input are a number that nobody has set.
        E::TooLarge { .. } => format!(
            "the inputs together are larger than the job's disk_mib, {} MiB: no room for {path}",
            terms::disk_bytes(spec) / terms::MIB
        ),
        _ => format!("the input: {}", for_strangers(&causes(err))),
    };
    Event::Failed { fault: Fault::new(reason, error), retry }
}
