//! The status of a job as it is published (docs/protocol.md, section 2).
//!
//! Invariants: per agent and job, `seq` starts at 1 and increases by one; exactly one status of a job is
//! terminal, the last. [`super::phase`] ensures this; this module only defines the form.

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use super::spec::Refused;
use crate::clock::Timestamp;
use crate::ids::{Address, Cid, Domain, JobId, Signature};

/// The key `status`: a coarse view of [`Stage`], for subscribers that know no stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The job has not ended yet.
    Processing,
    /// The job has succeeded.
    Completed,
    /// The job has failed.
    Failed,
    /// Ended because somebody cancelled it.
    Cancelled,
    /// Ended at its timeout or deadline.
    TimedOut,
    /// The job was never accepted.
    Rejected,
}

/// The stage that a job has reached: finer than [`Word`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In the node's journal; nothing is done yet.
    Accepted,
    /// The image is being pulled, unless it is present.
    Pulling,
    /// The inputs are being fetched and checked.
    Fetching,
    /// The container runs.
    Running,
    /// The output is being published.
    Uploading,
    /// Stopped by the node; the job will run again.
    Interrupted,
    /// The job has succeeded.
    Completed,
    /// The job has failed.
    Failed,
    /// Ended because somebody cancelled it.
    Cancelled,
    /// Ended at its timeout or deadline.
    TimedOut,
    /// The job was never accepted.
    Rejected,
}

impl Stage {
    /// The coarse word for the stage.
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

    /// Whether no other status follows.
    pub const fn is_terminal(self) -> bool {
        !matches!(self.word(), Word::Processing)
    }
}

/// How long each part took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Waiting for a free slot and GPUs with everything on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// Pulling the image, unless it was present.
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

/// How far the pull of an image is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Bytes downloaded so far, of layers as the registry packs them.
    pub bytes: u64,
    /// The image's layers that the engine has named so far; all of them, once the download has begun.
    pub layers: u32,
    /// Those of them that are here, unpacked.
    pub layers_done: u32,
}

/// One status. Unknown keys are ignored when one is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node that publishes it.
    pub agent_address: Address,
    /// The job that it is about.
    pub job_id: JobId,
    /// The coarse word for `stage`.
    pub status: Word,
    /// CID of the output; only in `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cid: Option<Cid>,
    /// Parts of the output that can't be published and were left out, one per line; only in `completed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_notes: Vec<String>,
    /// When the job reached the stage.
    pub timestamp: Timestamp,
    /// Number of the status, from 1 without gaps.
    pub seq: u64,
    /// Number of the attempt, from 1; 0 if there was none.
    pub attempt: u32,
    /// The stage that the job has reached.
    pub stage: Stage,
    /// For programs; in every terminal status except `completed`, in `interrupted`, and in an `uploading`
    /// that a service refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<Reason>,
    /// For people: one sentence, wherever there is a `reason_code`, and in the `pulling` of an image that
    /// its registry did not confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far the pull is, in a `pulling` that is said while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,
    /// Exit code of the container's first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// CID of the capped log, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cid: Option<Cid>,
    /// How long each part took; in terminal statuses.
    #[serde(default, skip_serializing_if = "Durations::is_empty")]
    pub duration_ms: Durations,
    /// The signed receipt, if a container was started; in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<serde_json::Value>,
    /// The signed record of what the run used, if that is known; in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<serde_json::Value>,
    /// The domain in which it is signed; in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_for: Option<SignedFor>,
    /// The node's signature over everything else ([`super::signed`]); in terminal statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Status {
    /// The only status of a message that is not accepted.
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
            pull: None,
            exit_code: None,
            log_cid: None,
            duration_ms: Durations::default(),
            receipt: None,
            usage: None,
            signed_for: None,
            signature: None,
        }
    }
}

/// The domain of a status's signature, as the status gives it: that of the node's receipts, or
/// [`Domain::OWN`] if the node did not know its chain yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFor {
    /// EIP-155 id of the chain; 0 if it was not known.
    pub chain_id: u64,
    /// The reputation contract; zero if the chain was not known.
    pub contract: Address,
}

impl From<Domain> for SignedFor {
    fn from(Domain { chain_id, contract }: Domain) -> Self {
        Self { chain_id, contract }
    }
}

impl From<SignedFor> for Domain {
    fn from(SignedFor { chain_id, contract }: SignedFor) -> Self {
        Self { chain_id, contract }
    }
}
