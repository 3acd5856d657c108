//! The cards of this host: NVIDIA's from the driver's library, or from its tool if the library can't be
//! loaded, and those of other makers from the PCI bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::nvml::Nvml;
use super::smi::Smi;
use super::toolkit::Toolkit;
use super::{Error, GpuProbe, pci};
use crate::node::card::{Happened, Reading, Round};
use crate::node::toolkit::Verdict;
use crate::node::{GpuInventory, GpuUuid};
use crate::report::causes;

/// Asks all sources: library, tool and bus.
#[derive(Debug, Clone)]
pub struct Host {
    nvml: Nvml,
    tool: Smi,
    devices: PathBuf,
    toolkit: Toolkit,
}

impl Host {
    /// Uses the library at `lib_path`, or the host's own without one. Opens nothing yet.
    pub fn new(lib_path: Option<PathBuf>) -> Self {
        Self {
            nvml: Nvml::new(lib_path),
            tool: Smi::new(None),
            devices: pci::DEVICES.into(),
            toolkit: Toolkit::default(),
        }
    }

    /// Uses this tool instead of the host's `nvidia-smi`.
    #[must_use]
    pub fn with_tool(self, path: PathBuf) -> Self {
        Self { tool: Smi::new(Some(path)), ..self }
    }

    /// Reads this folder instead of [`pci::DEVICES`].
    #[must_use]
    pub fn with_devices(self, devices: PathBuf) -> Self {
        Self { devices, ..self }
    }

    /// Asks this toolkit for its version.
    #[must_use]
    pub fn with_toolkit(self, toolkit: Toolkit) -> Self {
        Self { toolkit, ..self }
    }

    /// Sets the deadline for an answer of each source; the default is 10 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        let (nvml, tool) = (self.nvml.with_deadline(deadline), self.tool.with_deadline(deadline));
        Self { nvml, tool, ..self }
    }

    /// The tool, if it may stand in for a library that failed with this error.
    fn stand_in(&self, err: Error) -> Result<(&Path, Error), Error> {
        match (&err, self.tool.found()) {
            (Error::NoLibrary { .. }, Some(tool)) => Ok((tool, err)),
            _ => Err(err),
        }
    }
}

impl GpuProbe for Host {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        let mut inventory = match self.nvml.inventory().await {
            Ok(inventory) => inventory,
            Err(err) => {
                let (tool, err) = self.stand_in(err)?;
                let told = self.tool.inventory(tool).await;
                let why = format!("{}; {} tells the cards instead", causes(&err), tool.display());
                let told = told.map_err(|reason| Error::Tool { reason, library: Box::new(err) })?;
                GpuInventory { stand_in: Some(why), ..told }
            }
        };
        inventory.others = pci::others(&self.devices);
        Ok(inventory)
    }

    async fn sample(&self) -> Result<Round, Error> {
        let err = match self.nvml.sample().await {
            Ok(round) => return Ok(round),
            Err(err) => err,
        };
        let (tool, err) = self.stand_in(err)?;
        let told = self.tool.sample(tool).await;
        told.map_err(|reason| Error::Tool { reason, library: Box::new(err) })
    }

    async fn energy(&self, cards: &[GpuUuid]) -> Result<BTreeMap<GpuUuid, Reading<u64>>, Error> {
        // The tool does not tell it.
        self.nvml.energy(cards).await
    }

    /// The events of the library, the only source that has any.
    fn events(&self) -> mpsc::Receiver<Happened> {
        self.nvml.events()
    }

    async fn toolkit(&self) -> Verdict {
        self.toolkit.look().await
    }
}
