//! What is recorded of a container's run, from its image to the output that it left on disk.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::job::hint::Hint;
use crate::node::GpuUuid;
use crate::usage::figures::Usage;

/// An image as it was resolved: a tag that moves later changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The engine's id of the image.
    pub id: String,
    /// The image's digest in the receipt.
    pub digest: String,
    /// Whether its registry could not be asked if the name still refers to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The image that it runs.
    pub image: PinnedImage,
    /// The cards that it was given.
    pub gpus: Vec<GpuUuid>,
    /// The engine's id of the container.
    pub container: String,
    /// When the container was started.
    pub started_at: Timestamp,
    /// When it is stopped at the latest, even if the node restarts in between.
    pub kill_at: Timestamp,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunExit {
    /// Its exit code; `None` if the container was gone before it could be read.
    pub code: Option<i32>,
    /// Whether the kernel killed one of its processes for lack of memory.
    pub oom: bool,
    /// What the end of its log hints at, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// When it was started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it ended, by the engine's clock.
    pub finished_at: Timestamp,
    /// What it used, if it was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Why the node stops a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Somebody who is allowed to cancelled the job.
    Cancelled,
    /// It reached its timeout.
    Timeout,
    /// It reached its deadline.
    Deadline,
    /// The node is shutting down.
    Shutdown,
    /// Another agent has the pool's job, or may have it.
    LeaseLost,
    /// It has written more than its `disk_mib`.
    DiskExceeded,
    /// The node's disk ran full, and this job had written the most.
    DiskFull,
    /// A card that it has is defective.
    GpuFailed,
}

impl StopCause {
    /// Whether it is stopped to leave disk space to others.
    pub const fn is_the_disk(self) -> bool {
        matches!(self, Self::DiskExceeded | Self::DiskFull)
    }
}

/// A run that is over, with what it left on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRun {
    /// The run that is over.
    pub run: Run,
    /// How its container ended.
    pub exit: RunExit,
    /// The outcome so far; an output that can't be published still changes it.
    pub outcome: Outcome,
    /// The output, if the run succeeded.
    pub output: Option<Sealed>,
    /// The capped log, if it is not empty.
    pub log: Option<Sealed>,
}

/// A file or folder on disk that is complete: nobody writes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Its path below the job's folder.
    pub path: String,
    /// CID of its content, computed by this node.
    pub cid: Cid,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Whether it is a folder.
    pub directory: bool,
    /// Its path inside the container, to which its links may refer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seen_as: String,
    /// Parts of it that can't be published and were left out, one per line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
