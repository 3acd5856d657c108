//! The calls that the node makes to the reputation contract.

use serde::{Deserialize, Serialize};

use crate::ids::Hash;

/// One call of the contract. The journal stores it, so its serialized names must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// `registerNode(gpuModel, vram)`.
    Register {
        /// The driver's name of the largest card, or `CPU`.
        gpu_model: String,
        /// The memory of that card in MiB.
        vram_mib: u64,
    },
    /// `sendHeartbeat()`.
    Heartbeat,
    /// `sendHeartbeatWithReceipts(receiptsRoot, completed, failed)`.
    HeartbeatWithReceipts {
        /// The Merkle root of the receipts since the previous commitment.
        root: Hash,
        /// The number of receipts of completed jobs.
        completed: u32,
        /// The number of the other receipts.
        failed: u32,
    },
}
