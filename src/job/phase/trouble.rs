//! The failures of a phase, and the settings that say how long they are put up with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::clock::Timestamp;

/// The failures in the present phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Number of failures in a row.
    pub failures: u32,
    /// When the first one happened.
    pub first_at: Timestamp,
    /// When the step is retried.
    pub retry_at: Timestamp,
    /// The most recent failure.
    pub fault: Fault,
    /// The tries that use up the patience with publishing.
    #[serde(default)]
    pub tried: Tried,
}

/// How long this process has tried to publish. Time in which the host slept or the program did not run is
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Number of failed tries.
    pub times: u32,
    /// Time spent trying, in milliseconds.
    pub spent_ms: u64,
    /// When the last try failed; `None` before the first and after a failure that uses no patience.
    pub last_at: Option<Timestamp>,
}

/// The settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Longest run of a container.
    pub timeout_max: Duration,
    /// How long fetching an image or an input is retried, from the first failure on.
    pub fetch_give_up: Duration,
    /// How long publishing is retried: time spent trying within one process.
    pub upload_give_up: Duration,
    /// How long an output is kept if it could not be published in that time.
    pub result_keep: Duration,
}

/// Fewest tries before publishing is given up.
pub const UPLOAD_TRIES_MIN: u32 = 20;

/// Attempts with a lost container after which the job fails.
pub const LOST_MAX: u32 = 3;
