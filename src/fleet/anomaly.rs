//! What a rule can call odd about the jobs of a node (`when.anomaly`).

use serde::{Deserialize, Serialize};

/// What is odd about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// It holds cards and does nothing on them: the node's own event `gpu.held_idle`.
    HeldIdle,
    /// Its memory grows all the time.
    MemorySlope,
    /// It runs for much longer than others of its kind did.
    SlowerThanLike,
}

impl Anomaly {
    /// The anomaly as it is written: `held_idle`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeldIdle => "held_idle",
            Self::MemorySlope => "memory_slope",
            Self::SlowerThanLike => "slower_than_like",
        }
    }
}
