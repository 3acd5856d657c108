//! What the world is told of a job: the message of PROTOCOL 2.
//!
//! What must hold: per (agent, job) `seq` starts at 1 and counts by one, and exactly one status is
//! terminal, the last. [`super::phase`] keeps this; here is only the form.

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use super::signed::SignedFor;
use super::spec::Refused;
use crate::clock::Timestamp;
use crate::ids::{Address, Cid, JobId, Signature};

/// The word that seed subscribers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Not ended yet.
    Processing,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
    /// Ended because its time was up.
    TimedOut,
    /// Never taken.
    Rejected,
}

/// Where a job stands, for people and programs of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Written down; nothing done yet.
    Accepted,
    /// The image is being made present.
    Pulling,
    /// The inputs are being fetched and checked.
    Fetching,
    /// The container runs.
    Running,
    /// The output is being published.
    Uploading,
    /// Stopped by the node; will run again.
    Interrupted,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
    /// Ended because its time was up.
    TimedOut,
    /// Never taken.
    Rejected,
}

impl Stage {
    /// The seed's word for it.
    pub const fn word(self) -> Word {
        match self {
            Self::Completed => Word::Completed,
            Self::Failed => Word::Failed,
            Self::Cancelled => Word::Cancelled,
            Self::TimedOut => Word::TimedOut,
            Self::Rejected => Word::Rejected,
            _ => Word::Processing,
        }
    }

    /// Whether nothing follows it.
    pub const fn is_terminal(self) -> bool {
        !matches!(self.word(), Word::Processing)
    }
}

/// How long each part took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Waiting for a free slot and GPU with everything on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// Making the image present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
    /// Fetching and checking the inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// The container's life, by the engine's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// Publishing the output and the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
}

impl Durations {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One status. Unknown keys are ignored when one is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who says it.
    pub agent_address: Address,
    /// Of which job.
    pub job_id: JobId,
    /// The seed's word.
    pub status: Word,
    /// The output; only in `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cid: Option<Cid>,
    /// What of the output could not be carried and was left out, a line each; only in `completed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_notes: Vec<String>,
    /// When it became so.
    pub timestamp: Timestamp,
    /// From 1, by one.
    pub seq: u64,
    /// From 1; 0 where nothing was tried.
    pub attempt: u32,
    /// Where the job stands.
    pub stage: Stage,
    /// For programs; in every terminal status but `completed`, and in `interrupted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<Reason>,
    /// For people: one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of the container's first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The capped log, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cid: Option<Cid>,
    /// What took how long; in terminal statuses.
    #[serde(default, skip_serializing_if = "Durations::is_empty")]
    pub duration_ms: Durations,
    /// The signed receipt where a container was started; in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<serde_json::Value>,
    /// In which domain it is signed; in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_for: Option<SignedFor>,
    /// The node's, over all the rest ([`super::signed`]); in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Status {
    /// The only status of a message that is not taken.
    pub fn rejected(node: Address, refused: &Refused, now: Timestamp) -> Self {
        Self::unrun(Stage::Rejected, node, refused, now)
    }

    /// The only status of a pool's job that fits none of its nodes.
    pub fn failed_unrun(node: Address, refused: &Refused, now: Timestamp) -> Self {
        Self::unrun(Stage::Failed, node, refused, now)
    }

    fn unrun(stage: Stage, node: Address, refused: &Refused, now: Timestamp) -> Self {
        Self {
            agent_address: node,
            job_id: refused.id.clone(),
            status: stage.word(),
            output_cid: None,
            output_notes: Vec::new(),
            timestamp: now,
            seq: 1,
            attempt: 0,
            stage,
            reason_code: Some(refused.reason),
            error: Some(refused.error.clone()),
            exit_code: None,
            log_cid: None,
            duration_ms: Durations::default(),
            receipt: None,
            signed_for: None,
            signature: None,
        }
    }
}
