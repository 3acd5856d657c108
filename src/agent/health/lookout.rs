//! Looks at the host at intervals, so that jobs are taken only while they could run
//! ([`crate::node::fitness`] decides).
//!
//! Invariants: every look ends; a job's problem that a look may explain causes a look at once, but no more
//! often than `PAUSE` allows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::readiness::{NotReady, Readiness};
use crate::agent::jobs::board::Board;
use crate::agent::stock::{self, Keeper};
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Error};
use crate::gpu::GpuProbe;
use crate::host;
use crate::node::GpuUuid;
use crate::node::fitness::{Disk, Look, Probed, Unfit};
use crate::report::causes;
use crate::supervise::Failure;

/// Time between two looks while nothing happens.
const EVERY: Duration = Duration::from_secs(10);

/// Shortest time between two looks or rounds of probes.
const PAUSE: Duration = Duration::from_secs(1);

/// GPUs probed in one round: each probe creates and removes a container.
const PROBES_MAX: usize = 4;

/// The service that looks at the host.
#[derive(Debug)]
pub(in crate::agent) struct Lookout<R, G, C> {
    /// The checks of the engine and the GPUs.
    pub readiness: Arc<Readiness<R, G>>,
    /// The board that the findings go to.
    pub board: Board,
    /// A folder on the disk whose free space is measured.
    pub data_dir: PathBuf,
    /// `DISK_FREE_MIN_MIB`: with less free space, in MiB, no job is taken.
    pub disk_free_min_mib: u64,
    /// The service that keeps the disk within the owner's budget.
    pub keeper: Arc<Keeper<R>>,
    /// The clock; tests use their own.
    pub clock: C,
}

impl<R: ContainerRuntime, G: GpuProbe, C: Clock> Lookout<R, G, C> {
    /// Looks and probes as long as the node runs; a service that never ends. Probes have a loop of
    /// their own, so that one that hangs does not delay the other findings.
    pub(in crate::agent) async fn run(self: Arc<Self>) -> Result<(), Failure> {
        // Create no container before a look has shown that this is the right engine.
        let seen = self.look_once().await;
        tokio::join!(self.look_again_and_again(seen), self.probe_again_and_again());
        Ok(())
    }

    async fn look_again_and_again(&self, mut seen: u64) {
        loop {
            self.clock.sleep(PAUSE).await;
            tokio::select! {
                () = self.board.more_symptoms_than(seen) => {}
                () = self.clock.sleep(self.until_next()) => {}
            }
            seen = self.look_once().await;
        }
    }

    /// Looks once. Returns the number of problems that jobs had reported before the look.
    async fn look_once(&self) -> u64 {
        let seen = self.board.symptoms();
        let look = self.look().await;
        // Before the space is measured, so that files removed meanwhile are not missed.
        let is_settled = self.board.is_idle() && !self.keeper.trash.is_being_emptied();
        if let Ok(free_mib) = host::disk_free_mib(&self.data_dir) {
            let engines_room = stock::engines_room(self.readiness.runtime.as_ref()).await;
            self.board.disk(self.keeper.limits.for_jobs(free_mib, engines_room), is_settled);
        }
        self.board.looked(look, self.clock.monotonic());
        seen
    }

    /// Probes the GPUs that are due: failed ones as the board schedules them, untried ones at once.
    /// Each result is reported by itself, so that a probe that hangs holds back no other.
    async fn probe_again_and_again(&self) {
        let mut unanswered = BTreeSet::new();
        loop {
            let is_away = matches!(self.board.unfit(), Some(Unfit::Engine(_)));
            let due = self.board.to_probe(self.clock.monotonic());
            let mut due = if is_away { Vec::new() } else { due };
            // Cards whose trial got no answer go last, so that they delay no others.
            due.sort_by_key(|uuid| unanswered.contains(uuid));
            let mut was_first = false;
            for uuid in due.into_iter().take(PROBES_MAX) {
                let is_first = !self.board.was_tried(&uuid);
                let found = self.probe(&uuid).await;
                if found.is_none() && unanswered.insert(uuid.clone()) {
                    tracing::warn!(%uuid, "the GPU {uuid} can't be tried: the engine does not answer");
                }
                if let Some(probed) = found {
                    was_first |= is_first;
                    unanswered.remove(&uuid);
                    self.board.probed(BTreeMap::from([(uuid, probed)]), self.clock.monotonic());
                }
            }
            // At the start all GPUs are tried without a pause.
            if !was_first {
                self.clock.sleep(PAUSE).await;
            }
        }
    }

    /// The time until the next look: shorter for a node that takes no jobs, which may have been
    /// repaired.
    fn until_next(&self) -> Duration {
        if self.board.unfit().is_some() { PAUSE * 2 } else { EVERY }
    }

    async fn look(&self) -> Look {
        let engine = self.readiness.engine().await.err().map(NotReady::words);
        self.board.events().leans_on("engine", engine.is_none());
        let cards = self.readiness.driver().await;
        Look {
            engine,
            cards: cards.map(|cards| cards.map_err(NotReady::words)),
            disk: self.too_little_disk().await,
        }
    }

    /// Whether the engine hands the GPU to a container; `None` if the engine is away.
    ///
    /// Without a deadline of its own: the runtime has one for each call, and a shorter one would leave the
    /// probe's container behind.
    async fn probe(&self, uuid: &GpuUuid) -> Option<Probed> {
        let Readiness { runtime, node, .. } = self.readiness.as_ref();
        match runtime.gpu_ready(*node, uuid).await {
            Ok(()) => {
                if self.board.was_tried(uuid) {
                    tracing::info!(%uuid, "the GPU {uuid} works again");
                } else {
                    tracing::debug!(%uuid, "a container gets the GPU {uuid}");
                }
                Some(Probed::Well)
            }
            Err(Error::Unreachable { .. }) => None,
            Err(err @ Error::Driver { .. }) => Some(Probed::NoDriver(causes(&err))),
            Err(err) => Some(Probed::Failed(causes(&err))),
        }
    }

    /// What the disk of the data folder lacks, or the engine's, which may be another one.
    async fn too_little_disk(&self) -> Option<Disk> {
        let min_mib = self.disk_free_min_mib;
        let free = |folder: &Path| host::disk_free_mib(folder).ok();
        let engines = self.readiness.runtime.root_folder().await.ok().flatten();
        let frees = [free(&self.data_dir), engines.as_deref().and_then(free)];
        let free_mib = frees.into_iter().flatten().min()?;
        let disk = (free_mib < min_mib).then_some(Disk { free_mib, min_mib });
        disk.or(self.keeper.lack())
    }
}
