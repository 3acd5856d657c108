//! What is kept of a container's run, from its image to what it left on disk.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::node::GpuUuid;

/// An image as it was found: a tag that moves later changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The engine's id of it.
    pub id: String,
    /// What the receipt says.
    pub digest: String,
    /// Its registry could not be asked whether the name still means it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it runs.
    pub image: PinnedImage,
    /// Its cards.
    pub gpus: Vec<GpuUuid>,
    /// The engine's id of it.
    pub container: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it is stopped at the latest, whatever restarts in between.
    pub kill_at: Timestamp,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunExit {
    /// Its exit code; `None` where the container was gone before it could be read.
    pub code: Option<i32>,
    /// Whether the kernel killed a process of it for memory.
    pub oom: bool,
    /// When it was started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it ended, by the engine's clock.
    pub finished_at: Timestamp,
}

/// Why the node stops a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Its requester asked.
    Cancelled,
    /// It ran as long as it may.
    Timeout,
    /// Its deadline came.
    Deadline,
    /// The node shuts down.
    Shutdown,
    /// The pool's job is another agent's, or may be by now.
    LeaseLost,
    /// It has written more than its `disk_mib`.
    DiskExceeded,
    /// The node's disk ran full, and it had written most.
    DiskFull,
}

impl StopCause {
    /// Whether it is stopped so that others have room on the disk.
    pub const fn is_the_disk(self) -> bool {
        matches!(self, Self::DiskExceeded | Self::DiskFull)
    }
}

/// A run that is over, with what it left on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRun {
    /// The run.
    pub run: Run,
    /// How it ended.
    pub exit: RunExit,
    /// What that means; an output that can't be published still changes it.
    pub outcome: Outcome,
    /// The output, where the run was a success.
    pub output: Option<Sealed>,
    /// The capped log, where it said anything.
    pub log: Option<Sealed>,
}

/// A file or folder on disk that nobody writes to any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Where it lies, below the job's folder.
    pub path: String,
    /// Its content's name, computed here.
    pub cid: Cid,
    /// Its size.
    pub bytes: u64,
    /// Whether it is a folder.
    pub directory: bool,
    /// Where it lay for the job, which its links may name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seen_as: String,
    /// What of it could not be carried, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
