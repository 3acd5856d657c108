//! Looks at the host again and again, so that jobs are taken only while they could be run
//! ([`crate::node::fitness`] decides).
//!
//! What must hold: every look ends; what a job met that a look may explain is looked at at once, but
//! no more often than `PAUSE` allows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::readiness::{NotReady, Readiness};
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::gpu::GpuProbe;
use crate::host;
use crate::node::GpuUuid;
use crate::node::fitness::{Disk, Look};
use crate::supervise::{Failure, chain};

/// Between two looks where nothing happens.
const EVERY: Duration = Duration::from_secs(10);

/// Between two looks where much does.
const PAUSE: Duration = Duration::from_secs(1);

/// Cards that are probed in one look: a probe is a container that is made and removed.
const PROBES_MAX: usize = 4;

/// A probe of a card that gave no answer in so long failed.
const PROBE: Duration = Duration::from_mins(1);

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
    /// Looks as long as the node runs; a service that never ends.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        loop {
            let seen = self.board.symptoms();
            let look = self.look().await;
            self.board.looked(look, self.clock.monotonic());
            self.clock.sleep(PAUSE).await;
            tokio::select! {
                () = self.board.more_symptoms_than(seen) => {}
                () = self.clock.sleep(self.until_next()) => {}
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
        let mut probes = BTreeMap::new();
        if engine.is_none() {
            let due = self.board.to_probe(self.clock.monotonic());
            for uuid in due.into_iter().take(PROBES_MAX) {
                let failure = self.probe(&uuid).await;
                probes.insert(uuid, failure);
            }
        }
        Look {
            engine,
            cards: cards.map(|cards| cards.map_err(NotReady::words)),
            probes,
            disk: self.too_little_disk(),
        }
    }

    /// Why the engine does not hand the card to a container; `None` where it does.
    async fn probe(&self, uuid: &GpuUuid) -> Option<String> {
        let runtime = &self.readiness.runtime;
        let probed = tokio::time::timeout(PROBE, runtime.gpu_ready(std::slice::from_ref(uuid)));
        match probed.await {
            Ok(Ok(())) => {
                tracing::info!(%uuid, "the GPU {uuid} works again");
                None
            }
            Ok(Err(err)) => Some(chain(&err)),
            Err(_) => Some(format!("no answer in {} s", PROBE.as_secs())),
        }
    }

    fn too_little_disk(&self) -> Option<Disk> {
        let free_mib = host::disk_free_mib(&self.data_dir).ok()?;
        let min_mib = self.disk_free_min_mib;
        (free_mib < min_mib).then_some(Disk { free_mib, min_mib })
    }
}
