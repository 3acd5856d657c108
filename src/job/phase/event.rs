//! What can happen to a job.

use serde::{Deserialize, Serialize};

use super::{Fault, PinnedImage, RunExit, Sealed, StopCause};
use crate::clock::Timestamp;
use crate::ids::Cid;
use crate::node::GpuUuid;

/// What can happen to a job. `agent::act` returns one for each step; the rest comes from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields' types say what they are")]
pub enum Event {
    /// The image is here.
    Pulled { image: PinnedImage },
    /// The inputs are on disk, checked.
    Fetched,
    /// These cards and a slot are the job's.
    Reserved { gpus: Vec<GpuUuid> },
    /// The pool's job is this node's to start.
    Claimed,
    /// The node was away: whether a pool's job is still its own to start must be asked, or what it
    /// fetched be fetched again.
    Doubted,
    /// Another agent has the pool's job.
    Outbid,
    /// The pool's job was started too often, by whomever: nobody starts it again.
    Poisoned,
    /// The container is there, and was not started.
    Created { container: String },
    /// The container is there, and it was looked up that it was never started.
    NeverRan,
    /// The container runs, or ran and ended already.
    Started { container: String, at: Timestamp },
    /// The container's processes are gone. `by_itself`: whether nobody had sent it a signal to end,
    /// where the engine still knows.
    Exited {
        exit: RunExit,
        #[serde(default)]
        by_itself: Option<bool>,
    },
    /// The container is gone and its exit code could not be read.
    Lost,
    /// The run's time is up.
    TimeIsUp,
    /// The deadline passed before the start.
    Expired,
    /// Output and log are sealed; `output` is `Err` where the run left none that can be published.
    Collected { output: Result<Option<Sealed>, Fault>, log: Option<Sealed> },
    /// The log is published; the output is not yet.
    LogPublished { log: Cid },
    /// What there was to publish is published.
    Published { output: Option<Cid>, log: Option<Cid> },
    /// The receipt is signed.
    Attested { receipt: serde_json::Value },
    /// The pool's job is this node's to end.
    Concluded,
    /// Container and folders are gone.
    Removed,
    /// What could not be run is put aside, with its history.
    Buried,
    /// The delivery is acknowledged.
    Acked,
    /// The delivery is given back.
    HandedBack,
    /// It goes on: delivered again, or the node has started again.
    Resumed,
    /// Somebody wants it stopped.
    StopAsked { cause: StopCause },
    /// The step did not succeed.
    Failed { fault: Fault, retry: Retry },
}

/// Whether a step that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It can't succeed.
    Never,
    /// It may; the phase's patience decides for how long ([`super::Rules`]).
    Patiently,
    /// The same, for a minute at most: everybody who could do it refuses.
    Briefly,
    /// A service of the node is away: for ever.
    Always,
    /// A service refuses the node, whose owner has to act: for ever, and the world is told.
    Refused,
}

impl Event {
    /// Its name, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
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
