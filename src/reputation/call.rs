//! What the node has done on the chain: the calls of the reputation contract that it makes.

use serde::{Deserialize, Serialize};

use crate::ids::Hash;

/// One call of the contract. It is written to the journal, so its names stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// `registerNode(gpuModel, vram)`.
    Register {
        /// The driver's name of the largest card, or `CPU`.
        gpu_model: String,
        /// Its memory in MiB.
        vram_mib: u64,
    },
    /// `sendHeartbeat()`.
    Heartbeat,
    /// `sendHeartbeatWithReceipts(receiptsRoot, completed, failed)`.
    HeartbeatWithReceipts {
        /// The Merkle root of the receipts since the last one.
        root: Hash,
        /// How many of them are of completed jobs.
        completed: u32,
        /// How many are not.
        failed: u32,
    },
}
