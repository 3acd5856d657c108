//! What is said of an output that could not be published before its job's end was told, and was
//! published later: on `jobs.results.<address>.<job_id>`, never as a second terminal status.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{Address, Cid, JobId};

/// A late result, as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateResult {
    /// The node.
    pub agent_address: Address,
    /// The job, which ended as `failed` with `upload_failed` or `output_unverified`.
    pub job_id: JobId,
    /// The attempt whose output it is.
    pub attempt: u32,
    /// The output.
    pub output_cid: Cid,
    /// The log, where it could be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cid: Option<Cid>,
    /// When it was published.
    pub timestamp: Timestamp,
    /// The second receipt: as the first, but with the output's CID.
    pub receipt: serde_json::Value,
}
