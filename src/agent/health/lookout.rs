//! Looks at the host again and again, so that jobs are taken only while they could be run
//! ([`crate::node::fitness`] decides).
//!
//! What must hold: every look ends; what a job met that a look may explain is looked at at once, but
//! no more often than `PAUSE` allows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::readiness::{NotReady, Readiness};
use crate::agent::jobs::board::Board;
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Error};
use crate::gpu::GpuProbe;
use crate::host;
use crate::node::GpuUuid;
use crate::node::fitness::{Disk, Look, Probed, Unfit};
use crate::report::causes;
use crate::supervise::Failure;

/// Between two looks where nothing happens.
const EVERY: Duration = Duration::from_secs(10);

/// Between two looks where much does.
const PAUSE: Duration = Duration::from_secs(1);

/// Cards that are probed in one round: a probe is a container that is made and removed.
const PROBES_MAX: usize = 4;

/// Who looks.
#[derive(Debug)]
pub struct Lookout<R, G, C> {
    /// The engine and the cards.
    pub readiness: Arc<Readiness<R, G>>,
    /// Who is told.
    pub board: Board,
    /// Where the free disk is measured.
    pub data_dir: PathBuf,
    /// `DISK_FREE_MIN_MIB`.
    pub disk_free_min_mib: u64,
    /// The time.
    pub clock: C,
}

impl<R: ContainerRuntime, G: GpuProbe, C: Clock> Lookout<R, G, C> {
    /// Looks as long as the node runs; a service that never ends. Probes have a round of their own: one
    /// that hangs keeps nobody from seeing what else is the matter.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        // No container is made before the engine was seen to be the right one.
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

    /// Gives how often jobs had met what it may explain, before it.
    async fn look_once(&self) -> u64 {
        let seen = self.board.symptoms();
        let look = self.look().await;
        self.board.looked(look, self.clock.monotonic());
        seen
    }

    /// When a card that failed is due is said by looks; one that was not tried yet always is. What was
    /// found is told card by card: one that hangs keeps nobody from the others.
    async fn probe_again_and_again(&self) {
        loop {
            let is_away = matches!(self.board.unfit(), Some(Unfit::Engine(_)));
            let due = self.board.to_probe(self.clock.monotonic());
            let due = if is_away { Vec::new() } else { due };
            let mut was_first = false;
            for uuid in due.into_iter().take(PROBES_MAX) {
                let is_first = !self.board.was_tried(&uuid);
                if let Some(probed) = self.probe(&uuid).await {
                    was_first |= is_first;
                    self.board.probed(BTreeMap::from([(uuid, probed)]), self.clock.monotonic());
                }
            }
            // All cards are tried at the start without a pause between.
            if !was_first {
                self.clock.sleep(PAUSE).await;
            }
        }
    }

    /// A node that takes no jobs is looked at more often: somebody may have mended it.
    fn until_next(&self) -> Duration {
        if self.board.unfit().is_some() { PAUSE * 2 } else { EVERY }
    }

    async fn look(&self) -> Look {
        let engine = self.readiness.engine().await.err().map(NotReady::words);
        let cards = self.readiness.driver().await;
        Look {
            engine,
            cards: cards.map(|cards| cards.map_err(NotReady::words)),
            disk: self.too_little_disk(),
        }
    }

    /// Whether the engine hands the card to a container; `None` where it is the engine that is away.
    ///
    /// No deadline here: the runtime has one for each call. One that cut it short would leave the
    /// probe's container.
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

    fn too_little_disk(&self) -> Option<Disk> {
        let free_mib = host::disk_free_mib(&self.data_dir).ok()?;
        let min_mib = self.disk_free_min_mib;
        (free_mib < min_mib).then_some(Disk { free_mib, min_mib })
    }
}
