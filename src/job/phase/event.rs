//! The events that move a job from phase to phase.

use serde::{Deserialize, Serialize};

use super::{Fault, PinnedImage, RunExit, Sealed, StopCause};
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::job::status::PullProgress;
use crate::node::GpuUuid;

/// Something that happened to a job. `agent::act` returns one for each step; others come from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields' types say what they are")]
pub enum Event {
    /// The pull goes on, and is so far.
    Pulling { progress: PullProgress },
    /// The image is on this host.
    Pulled { image: PinnedImage },
    /// The inputs are on disk and checked.
    Fetched,
    /// These cards and a slot are reserved for the job.
    Reserved { gpus: Vec<GpuUuid> },
    /// The claim is written: this node may start the pool's job.
    Claimed,
    /// The node was away: a pool's job that was about to start must be claimed again, and an earlier one
    /// fetch its inputs again.
    Doubted,
    /// Another agent has the pool's job.
    Outbid,
    /// The pool's job was started too often, by any agents: nobody starts it again.
    Poisoned,
    /// The container exists and was not started.
    Created { container: String },
    /// The container exists, and the engine confirmed that it was never started.
    NeverRan,
    /// The container runs, or ran and ended already.
    Started { container: String, at: Timestamp },
    /// The container's processes are gone. `by_itself`: whether they ended without a stop signal; `None`
    /// if the engine can't tell.
    Exited {
        exit: RunExit,
        #[serde(default)]
        by_itself: Option<bool>,
    },
    /// The container's processes are gone, and a card that they had is defective.
    CardFailed { exit: RunExit },
    /// The container is gone and its exit code could not be read.
    Lost,
    /// The run's time is up.
    TimeIsUp,
    /// The deadline passed before the start.
    Expired,
    /// Output and log are sealed; `output` is `Err` if the run left none that can be published.
    Collected { output: Result<Option<Sealed>, Fault>, log: Option<Sealed> },
    /// The log is published; the output is not yet.
    LogPublished { log: Cid },
    /// Everything there was to publish is published.
    Published { output: Option<Cid>, log: Option<Cid> },
    /// The receipt is signed, and the record of what the run used, if that is known.
    Attested {
        receipt: serde_json::Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<serde_json::Value>,
    },
    /// The end is claimed: this node may end the pool's job.
    Concluded,
    /// Container and folders are gone.
    Removed,
    /// The job that could not be run is on `jobs.dead` with its history.
    Buried,
    /// The delivery is acknowledged.
    Acked,
    /// The delivery is given back.
    HandedBack,
    /// The job continues: it was delivered again, or the node was restarted.
    Resumed,
    /// The job is to be stopped, for this cause.
    StopAsked { cause: StopCause },
    /// The step failed with this fault.
    Failed { fault: Fault, retry: Retry },
}

/// Whether, and for how long, a failed step is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Never: it can't succeed.
    Never,
    /// For as long as the phase's patience lasts ([`super::Rules`]).
    Patiently,
    /// The same, but for a minute at most: every service that could do it refuses.
    Briefly,
    /// Forever: a service of the node is away.
    Always,
    /// Forever, and a status says so: a service refuses the node, and its owner has to act.
    Refused,
}

impl Event {
    /// The event's name, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pulling { .. } => "pulling",
            Self::Pulled { .. } => "pulled",
            Self::Fetched => "fetched",
            Self::Reserved { .. } => "reserved",
            Self::Claimed => "claimed",
            Self::Doubted => "doubted",
            Self::Outbid => "outbid",
            Self::Poisoned => "poisoned",
            Self::Created { .. } => "created",
            Self::NeverRan => "never_ran",
            Self::Started { .. } => "started",
            Self::Exited { .. } => "exited",
            Self::CardFailed { .. } => "card_failed",
            Self::Lost => "lost",
            Self::TimeIsUp => "time_is_up",
            Self::Expired => "expired",
            Self::Collected { .. } => "collected",
            Self::LogPublished { .. } => "log_published",
            Self::Published { .. } => "published",
            Self::Attested { .. } => "attested",
            Self::Concluded => "concluded",
            Self::Removed => "removed",
            Self::Buried => "buried",
            Self::Acked => "acked",
            Self::HandedBack => "handed_back",
            Self::Resumed => "resumed",
            Self::StopAsked { .. } => "stop_asked",
            Self::Failed { .. } => "failed",
        }
    }
}
