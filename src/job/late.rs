//! The message about an output that was published only after its job's terminal status. It is sent on
//! `jobs.results.<address>.<job_id>`, never as a second terminal status.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{Address, Cid, JobId};

/// A late result on the wire (docs/protocol.md, section 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateResult {
    /// The node that ran the job.
    pub agent_address: Address,
    /// The job, which ended as `failed` with `upload_failed` or `output_unverified`.
    pub job_id: JobId,
    /// The attempt whose output it is.
    pub attempt: u32,
    /// CID of the output.
    pub output_cid: Cid,
    /// CID of the log, if it could be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cid: Option<Cid>,
    /// When the output was published.
    pub timestamp: Timestamp,
    /// The second receipt: as the first, but with the output's CID.
    pub receipt: serde_json::Value,
}
