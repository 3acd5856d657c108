//! What the host has, as it is found at the start.
//!
//! Invariant: a node without a GPU starts only where its owner allowed that.

use super::{Error, Node};
use crate::gpu::GpuProbe;
use crate::node::card::Facts;
use crate::node::{Gpu, GpuInventory};

/// What the host has, as it was found at the start.
pub(super) struct Hardware {
    pub(super) gpus: Vec<Gpu>,
    /// Driver and CUDA version, as receipts name them.
    pub(super) driver: String,
}

impl<R, G: GpuProbe, Ch, C> Node<R, G, Ch, C> {
    /// Asks the driver for the cards. Fails where there is none and the owner did not allow that.
    pub(super) async fn find_gpus(&self) -> Result<Hardware, Error> {
        let inventory = if self.settings.without_gpu {
            tracing::warn!("GPU_MODE=none: running without GPUs");
            GpuInventory::default()
        } else {
            self.gpu.inventory().await.map_err(|err| Error::NoGpu(Some(err)))?
        };
        if inventory.gpus.is_empty() && !self.settings.without_gpu {
            return Err(Error::NoGpu(None));
        }
        let GpuInventory { driver, cuda, gpus, facts, others, stand_in, .. } = inventory;
        stand_in.iter().chain(&others).for_each(|note| tracing::warn!("{note}"));
        for gpu in &gpus {
            let (uuid, vram_mib, model) = (&gpu.uuid, gpu.vram_mib, &gpu.model);
            let facts = facts.get(uuid).map_or_else(String::new, Facts::in_brackets);
            tracing::info!(%uuid, vram_mib, driver, cuda, "found {model} with {vram_mib} MiB{facts}");
        }
        Ok(Hardware { gpus, driver: format!("CUDA {cuda} (driver {driver})") })
    }
}
