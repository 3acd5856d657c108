//! The hardware that a node offers, and the decisions that depend on it.
//!
//! Pure: adapters query the host and pass the results in as these types. [`allocation`] decides which
//! GPUs a job gets, [`admission`] whether it can ever run here and whether now, [`fitness`] whether the
//! node should take any job, [`model`] whether a name means a GPU model, [`pools`] to which pools the
//! node belongs, [`presence`] what it publishes about all this. [`card`] is what a driver says of a card,
//! [`health`] whether it can be trusted, [`tenancy`] who else is on it. [`stock`] is what the node keeps on its
//! disks and what of it goes, [`public`] which addresses are the internet's, [`toolkit`] whether what hands cards to
//! containers has known ways out of them, [`visible`] whether a container has exactly its cards.

pub mod admission;
pub mod allocation;
pub mod card;
pub mod fitness;
pub mod health;
pub mod model;
pub mod pools;
pub mod presence;
pub mod public;
pub mod stock;
pub mod tenancy;
pub mod toolkit;
pub mod visible;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use card::Facts;

/// Chain ids of development chains: the only ones that a node without a GPU registers on.
pub const LOCAL_CHAINS: [u64; 2] = [1337, 31337];

/// A GPU's UUID as the driver gives it, such as `GPU-5f1a…`, or `MIG-…` for an instance of one. Stable over reboots, unlike its index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuUuid(String);

impl GpuUuid {
    /// Accepts the driver's text if it names one device in a device request (`GPU-` or `MIG-` and up to 92 more of
    /// `A-Za-z0-9-`); otherwise `None`. Other words mean something else there: `all`, or a number.
    pub fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"))?;
        let fits = (1..=92).contains(&rest.len());
        let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (fits && plain).then(|| Self(text.to_owned()))
    }

    /// The UUID as the driver gives it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One GPU as the node found it at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its UUID, by which a container gets it.
    pub uuid: GpuUuid,
    /// The driver's name of the model, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Total memory in MiB; the host's memory if the card has none of its own.
    pub vram_mib: u64,
}

/// All GPUs of this host, with the software that drives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuInventory {
    /// The driver's version, such as `550.54.15`.
    pub driver: String,
    /// The newest CUDA version that the driver supports, such as `12.4`.
    pub cuda: String,
    /// The cards, in the order of their UUIDs.
    pub gpus: Vec<Gpu>,
    /// The cards without memory of their own, which use the host's.
    pub share_memory: Vec<GpuUuid>,
    /// What each of the cards is, beside its model and memory.
    pub facts: BTreeMap<GpuUuid, Facts>,
    /// Cards that are present but can't be used: one sentence each, with the reason.
    pub left_out: Vec<String>,
    /// Cards of makers that the node doesn't support, one sentence each.
    pub others: Vec<String>,
    /// Why the cards are told by a tool instead of the driver's library; `None` if they are not.
    pub stand_in: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_one_device_is_a_gpus_uuid() {
        let long = format!("GPU-{}", "a".repeat(93));
        for text in [
            "",
            "all",
            "void",
            "0",
            "GPU-",
            "GPU",
            "gpu-1",
            "GPU-a,GPU-b",
            "GPU-a b",
            "GPU-a/../b",
            "GPU-ü",
            "GPU-a\n",
            long.as_str(),
        ] {
            assert_eq!(GpuUuid::new(text), None, "{text:?}");
        }
        for text in ["GPU-a3254cea-0000-4000-8000-000000000001", "MIG-1", &long[..96]] {
            assert!(GpuUuid::new(text).is_some(), "{text}");
        }
    }
}
