//! How a job ends, and what is said of it then.

use serde::{Deserialize, Serialize};

use super::{EndedRun, Job};
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::job::reason::Reason;

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit 0 and the output published.
    Completed,
    /// Anything else, but for the next two.
    Failed(Fault),
    /// Its time was up.
    TimedOut(Fault),
    /// Somebody who may asked for it.
    Cancelled(Fault),
}

/// What the terminal status of a pool's job will say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// The published output.
    pub output: Option<Cid>,
    /// The published log.
    pub log: Option<Cid>,
    /// Of the container's first process.
    pub exit_code: Option<i32>,
    /// Where a container was started.
    pub receipt: Option<serde_json::Value>,
    /// What of the output could not be carried, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The run whose output could not be published: it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<EndedRun>>,
}

/// An output of a run that was a success, which could not be published in time: its owner can have it
/// published later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The job as it ended.
    pub job: Box<Job>,
    /// The run, as it was before its publication failed.
    pub ended: EndedRun,
    /// Until when it is kept.
    pub until: Timestamp,
}

/// What went wrong: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub reason: Reason,
    /// For people: one sentence, at most 500 bytes.
    pub error: String,
}

impl Outcome {
    /// Whether there was a result, which is kept because it could not be published.
    pub const fn keeps_output(&self) -> bool {
        matches!(
            self,
            Self::Failed(Fault { reason: Reason::UploadFailed | Reason::OutputUnverified, .. })
        )
    }

    /// Whether the job could not be run at all, here or anywhere: it is put aside with its history.
    pub const fn is_dead_letter(&self) -> bool {
        matches!(self, Self::Failed(Fault { reason: Reason::Poison | Reason::ContainerLost, .. }))
    }
}

impl Ending {
    /// Of a job whose container never ran.
    pub const fn unrun(outcome: Outcome) -> Self {
        Self {
            outcome,
            output: None,
            log: None,
            exit_code: None,
            receipt: None,
            notes: Vec::new(),
            kept: None,
        }
    }
}

impl Fault {
    /// A fault with a sentence, cut where it is too long for a status.
    pub fn new(reason: Reason, error: impl Into<String>) -> Self {
        const ERROR_BYTES_MAX: usize = 500;
        let mut error = error.into();
        if error.len() > ERROR_BYTES_MAX {
            let cut = (0..=ERROR_BYTES_MAX).rev().find(|at| error.is_char_boundary(*at));
            error.truncate(cut.unwrap_or(0));
            error.push('…');
        }
        Self { reason, error }
    }
}

/// The four commits of a job that are synced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// It was taken, or taken up again: from here on the node answers for it.
    Accepted,
    /// Its container is about to be started: from here on it may have run.
    Starting,
    /// Its container is gone: from here on the cards are another's.
    Exited,
    /// Its end is decided: from here on the delivery may be acknowledged.
    Terminal,
}
