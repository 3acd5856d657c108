//! How a job ends, and what its terminal status says.

use serde::{Deserialize, Serialize};

use super::{EndedRun, Job};
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::job::reason::Reason;

/// How a job ends, with its fault unless it completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0, and the output is published.
    Completed,
    /// Any end not listed here.
    Failed(Fault),
    /// It reached its timeout or deadline.
    TimedOut(Fault),
    /// Somebody who is allowed to cancelled it.
    Cancelled(Fault),
}

/// What the terminal status of a job will say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// How the job ended.
    pub outcome: Outcome,
    /// CID of the published output.
    pub output: Option<Cid>,
    /// CID of the published log.
    pub log: Option<Cid>,
    /// Exit code of the container's first process.
    pub exit_code: Option<i32>,
    /// The signed receipt, if a container was started.
    pub receipt: Option<serde_json::Value>,
    /// The signed record of what the run used, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<serde_json::Value>,
    /// Parts of the output that can't be published and were left out, one per line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The run, if its output could not be published and is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<EndedRun>>,
}

/// The output of a successful run that could not be published in time; the node's owner can publish it
/// later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The job as it ended.
    pub job: Box<Job>,
    /// The run, as it was before its publication failed.
    pub ended: EndedRun,
    /// The time until which it is kept.
    pub until: Timestamp,
}

/// What went wrong: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people: one sentence, cut after 500 bytes.
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

    /// Whether the job can't be run here or anywhere: it goes to `jobs.dead` with its history.
    pub const fn is_dead_letter(&self) -> bool {
        matches!(self, Self::Failed(Fault { reason: Reason::Poison | Reason::ContainerLost, .. }))
    }
}

impl Ending {
    /// The ending of a job whose container never ran.
    pub const fn unrun(outcome: Outcome) -> Self {
        Self {
            outcome,
            output: None,
            log: None,
            exit_code: None,
            receipt: None,
            usage: None,
            notes: Vec::new(),
            kept: None,
        }
    }
}

impl Fault {
    /// A fault with a sentence, which is cut if it is too long for a status.
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
    /// The job was accepted or resumed: from here on the node is responsible for it.
    Accepted,
    /// Its container is about to be started: from here on it may have run.
    Starting,
    /// Its container is gone: from here on its cards may be another job's.
    Exited,
    /// Its end is decided: from here on the delivery may be acknowledged.
    Terminal,
}
