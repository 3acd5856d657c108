//! The state machine of one job.
//!
//! ```text
//!  accept ─► Accepted ─pulled─► Pulled ─fetched─► Ready ─reserved─► Starting ─started─► Running
//!                │                │                 │                  │ failed           │ exited
//!                └──── failed, cancelled, expired ──┴──────────┬───────┘  │ lost          ▼
//!                                                              │          └► Accepted   Exited
//!   Settled ◄─acked─ Cleaned ◄─removed─ Ended ◄────────────────┘             (attempt+1)  │
//!                                         ▲                                               │
//!                                         └─attested─ Published ◄─published─ Collected ◄──┘
//!
//!  Starting ─its card failed─► Ready, for another one; ─its image is gone─► Accepted
//!
//!  Running ─stop asked, time up─► Stopping ─exited─► Exited, or, where the node shuts down:
//!  Interrupted ─removed─► HandingBack ─handed back─► Waiting ─resumed─► Accepted (attempt+1)
//!
//!  A pool's job asks for its claim twice more:
//!  Ready ─reserved─► Claiming ─claimed─► Starting     …  ─► Concluding ─concluded─► Ended
//!  and where another agent has it: Yielded ─removed─► LettingGo ─handed back─► Waiting, without an end;
//!  where that one has ended it: Waiting ─outbid─► EndedElsewhere
//!
//!  and where this node can't begin it, by what may be its own fault:
//!  Unable ─removed─► Returning ─handed back─► Yielded, or, after too many: ─concluded─► Ended
//!
//!  What could never be run: Cleaned ─buried─► Buried ─acked─► Settled
//! ```
//!
//! The happy path goes once around the outside. Every change of state is [`Job::apply`] of one
//! [`Event`]: it returns the new state with the statuses that follow from it, and `journal` writes
//! both in one commit before anything else is done.
//!
//! What must hold: statuses are gapless from 1 and exactly one is terminal; a container is started
//! only in `Starting`, which is written down before; after `Exited` is written down the GPU is free
//! and the result is never given up but by the rules of [`Rules`]; a pool's job is started, and
//! ended, only by who holds its claim; an event that does not belong to the phase is an error,
//! never a guess.

mod event;
mod outcome;
mod run;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::JobSpec;
use super::claim::Stand;
use super::status::{Durations, Stage, Status};
use crate::clock::Timestamp;
use crate::ids::{Address, Cid, Hash, JobId};
use crate::node::GpuUuid;

pub use event::{Event, Retry};
pub use outcome::{Durable, Ending, Fault, Kept, Outcome};
pub use run::{EndedRun, PinnedImage, Run, RunExit, Sealed, StopCause};

/// Everything the node knows of one job. Lives in the journal; moves only by [`Job::apply`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What was asked for.
    pub spec: JobSpec,
    /// The canonical hash of what was asked for.
    pub spec_hash: Hash,
    /// Where it came from: `dispatch.0x…` or `pool.<name>`.
    pub target: String,
    /// The node that runs it.
    pub node: Address,
    /// When it was written down first.
    pub received_at: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Attempts that ended with the container lost.
    pub lost: u32,
    /// Those of them whose container was known to run.
    #[serde(default)]
    pub lost_running: u32,
    /// How often its image was gone when its container was to be made.
    #[serde(default)]
    pub image_gone: u32,
    /// The last status's number.
    pub seq: u64,
    /// How often it has moved: tells the journal one decision from its repetition.
    #[serde(default)]
    pub revision: u64,
    /// Where it stands.
    pub phase: Phase,
    /// When it came there.
    pub since: Timestamp,
    /// What went wrong in this phase so far.
    pub trouble: Option<Trouble>,
    /// What took how long.
    pub durations: Durations,
}

/// A job that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What.
    pub spec: JobSpec,
    /// Its canonical hash.
    pub spec_hash: Hash,
    /// Of whom: `dispatch.0x…` or `pool.<name>`.
    pub target: String,
}

/// Where a job stands, with what is true there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields' types say what they are")]
pub enum Phase {
    /// Written down; the image is next.
    Accepted,
    /// The image is here; the inputs are next.
    Pulled { image: PinnedImage },
    /// Everything is on disk; cards and a slot are next.
    Ready { image: PinnedImage },
    /// A pool's job: cards are reserved; that nobody else runs it is next.
    Claiming { image: PinnedImage, gpus: Vec<GpuUuid> },
    /// Cards are reserved; where its container is known it may run, else it was never started.
    Starting {
        image: PinnedImage,
        gpus: Vec<GpuUuid>,
        #[serde(default)]
        container: Option<String>,
    },
    /// The container was started.
    Running { run: Run },
    /// The container is being stopped.
    Stopping { run: Run, cause: StopCause },
    /// The container's processes are gone; log and output are still to be collected.
    Exited { run: Run, exit: RunExit, cause: Option<StopCause> },
    /// Output and log lie sealed on disk; publishing is next. `log`: where the log is published
    /// already, and the output is not.
    Collected {
        ended: EndedRun,
        #[serde(default)]
        log: Option<Cid>,
    },
    /// What could be published is; the receipt is next.
    Published { ended: EndedRun, output: Option<Cid>, log: Option<Cid> },
    /// A pool's job: how it ended is known; that nobody else ends it is next.
    Concluding { ending: Ending },
    /// The terminal status is in the outbox; the container and the folders are still there.
    Ended { outcome: Outcome },
    /// Nothing is left on the host; the delivery is still to be acknowledged.
    Cleaned { outcome: Outcome },
    /// What could not be run is put aside with its history; the delivery is still to be
    /// acknowledged.
    Buried { outcome: Outcome },
    /// Done in every respect.
    Settled { outcome: Outcome },
    /// Stopped by the node; the container and the folders are still there.
    Interrupted,
    /// Stopped by the node; claim and delivery are still to be given back, where they are its own.
    HandingBack,
    /// A pool's job that this node could not begin, by what may be its own fault; the container is
    /// still there.
    Unable { fault: Fault },
    /// The same without a container; it is still to be given back to the pool.
    Returning { fault: Fault },
    /// Another agent has the pool's job, or may have it; the container and the folders are still
    /// there.
    Yielded,
    /// Another agent has the pool's job, or may have it: its claim is still to be let go of, and its
    /// delivery is nothing to answer for.
    LettingGo,
    /// Given back; nothing happens until it is delivered again or the node starts again.
    Waiting,
    /// Given back, and ended by another agent of the pool: done here, without a terminal status.
    EndedElsewhere,
}

/// The failures of the present phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many in a row.
    pub failures: u32,
    /// When the first was.
    pub first_at: Timestamp,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// The last one.
    pub fault: Fault,
    /// What of it uses the patience of a publication up.
    #[serde(default)]
    pub tried: Tried,
}

/// How long publishing was tried for by this process. A host that sleeps, and a program that is not
/// there, try nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How often.
    pub times: u32,
    /// For how long, in ms.
    pub spent_ms: u64,
    /// The last time.
    pub last_at: Option<Timestamp>,
}

/// The settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// No container runs longer.
    pub timeout_max: Duration,
    /// How long an image or an input is tried for, from the first failure.
    pub fetch_give_up: Duration,
    /// How long publishing is tried for: time spent trying in one life of the process.
    pub upload_give_up: Duration,
    /// How long an output is kept that could not be published in that time.
    pub result_keep: Duration,
}

/// Publishing is tried at least so often before it is given up.
pub const UPLOAD_TRIES_MIN: u32 = 20;

/// Attempts whose container is lost before the job fails.
pub const LOST_MAX: u32 = 3;

/// What [`Job::apply`] decides: written down as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The job as it stands now.
    pub job: Job,
    /// What the world is told, in order.
    pub statuses: Vec<Status>,
    /// What must survive a power cut, and not only a kill, before anything else is done.
    pub durable: Option<Durable>,
    /// An output that is kept from here on.
    pub kept: Option<Kept>,
}

/// An event that does not belong to the phase: a defect of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} does not belong to phase {phase}")]
pub struct Misplaced {
    phase: &'static str,
    event: &'static str,
}

impl Phase {
    /// Its name, for logs and listings.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Pulled { .. } => "pulled",
            Self::Ready { .. } => "ready",
            Self::Claiming { .. } => "claiming",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Exited { .. } => "exited",
            Self::Collected { .. } => "collected",
            Self::Published { .. } => "published",
            Self::Concluding { .. } => "concluding",
            Self::Ended { .. } => "ended",
            Self::Cleaned { .. } => "cleaned",
            Self::Buried { .. } => "buried",
            Self::Settled { .. } => "settled",
            Self::Interrupted => "interrupted",
            Self::HandingBack => "handing_back",
            Self::LettingGo => "letting_go",
            Self::Unable { .. } => "unable",
            Self::Returning { .. } => "returning",
            Self::Yielded => "yielded",
            Self::Waiting => "waiting",
            Self::EndedElsewhere => "ended_elsewhere",
        }
    }

    /// The cards and the slot that the job holds; `None` where it holds none.
    pub fn holds(&self) -> Option<&[GpuUuid]> {
        match self {
            Self::Claiming { gpus, .. } | Self::Starting { gpus, .. } => Some(gpus),
            Self::Running { run } | Self::Stopping { run, .. } => Some(&run.gpus),
            _ => None,
        }
    }

    /// Whether the terminal status is out.
    pub const fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Ended { outcome }
            | Self::Cleaned { outcome }
            | Self::Buried { outcome }
            | Self::Settled { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// How far it is with its claim, where it is a pool's.
    pub fn stand(&self) -> Stand {
        match self {
            Self::Starting { .. }
            | Self::Running { .. }
            | Self::Stopping { .. }
            | Self::Exited { .. }
            | Self::Collected { .. }
            | Self::Published { .. } => Stand::Held,
            // What never ran may never have been claimed.
            Self::Concluding { ending } if ending.receipt.is_some() => Stand::Concluding,
            Self::Ended { .. } | Self::Cleaned { .. } | Self::Buried { .. } => Stand::Ended,
            _ => Stand::Open,
        }
    }

    /// What of this node may have kept the job from beginning, where that is why it came here.
    pub fn nodes_fault(&self) -> Option<&Fault> {
        match self {
            Self::Unable { fault } | Self::Returning { fault } => Some(fault),
            Self::Ended { outcome: Outcome::Failed(fault) } => {
                Some(fault).filter(|fault| fault.reason.may_be_the_nodes())
            }
            _ => None,
        }
    }

    /// Whether its container runs, or may.
    pub const fn may_have_started(&self) -> bool {
        matches!(
            self,
            Self::Starting { container: Some(_), .. }
                | Self::Running { .. }
                | Self::Stopping { .. }
        )
    }

    /// Whether the job is given back, or may be another agent's: its lease is not renewed.
    pub const fn is_let_go(&self) -> bool {
        matches!(self, Self::HandingBack | Self::LettingGo | Self::Yielded | Self::Waiting)
    }

    /// Whether nothing is left to do for the job, whatever comes.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Settled { .. } | Self::EndedElsewhere)
    }

    /// Whether the job still needs a slot, now or later: its container has not exited.
    pub const fn wants_slot(&self) -> bool {
        matches!(
            self,
            Self::Accepted
                | Self::Pulled { .. }
                | Self::Ready { .. }
                | Self::Claiming { .. }
                | Self::Starting { .. }
                | Self::Running { .. }
                | Self::Stopping { .. }
        )
    }
}

impl Job {
    /// A job that is taken: its first state and what the world is told.
    ///
    /// `after_seq`: the last status that was said under its id before, 0 where there was none.
    pub fn accept(asked: Asked, node: Address, after_seq: u64, now: Timestamp) -> Transition {
        let mut job = Self {
            spec: asked.spec,
            spec_hash: asked.spec_hash,
            target: asked.target,
            node,
            received_at: now,
            attempt: 1,
            lost: 0,
            lost_running: 0,
            image_gone: 0,
            seq: after_seq,
            revision: 0,
            phase: Phase::Accepted,
            since: now,
            trouble: None,
            durations: Durations::default(),
        };
        let statuses = vec![job.say(Stage::Accepted, now), job.say(Stage::Pulling, now)];
        Transition { job, statuses, durable: Some(Durable::Accepted), kept: None }
    }

    /// The job as a process takes it up that did not have it before: what others tried for is none
    /// of its patience.
    #[must_use]
    pub fn taken_up(mut self) -> Self {
        if matches!(self.phase, Phase::Exited { .. } | Phase::Collected { .. }) {
            self.trouble = None;
        }
        self
    }

    /// The pool that it came from; `None` where it was sent to this node alone.
    pub fn pool(&self) -> Option<&str> {
        self.target.strip_prefix("pool.")
    }

    /// Whether another node of its pool may do better with what failed here.
    pub fn is_better_elsewhere(&self, fault: &Fault) -> bool {
        self.pool().is_some() && fault.reason.may_be_the_nodes()
    }

    /// Its id.
    pub const fn id(&self) -> &JobId {
        &self.spec.id
    }

    /// The next status, with what every status says.
    pub(in crate::job) fn say(&mut self, stage: Stage, now: Timestamp) -> Status {
        self.seq += 1;
        Status {
            agent_address: self.node,
            job_id: self.spec.id.clone(),
            status: stage.word(),
            output_cid: None,
            output_notes: Vec::new(),
            timestamp: now,
            seq: self.seq,
            attempt: self.attempt,
            stage,
            reason_code: None,
            error: None,
            exit_code: None,
            log_cid: None,
            duration_ms: Durations::default(),
            receipt: None,
            signed_for: None,
            signature: None,
        }
    }

    /// The new state after `event`, with the statuses that follow from it.
    pub fn apply(
        &self,
        event: Event,
        now: Timestamp,
        rules: &Rules,
    ) -> Result<Transition, Misplaced> {
        super::transition::apply(self, event, now, rules)
    }
}

pub(in crate::job) fn misplaced(phase: &Phase, event: &Event) -> Misplaced {
    Misplaced { phase: phase.name(), event: event.name() }
}

#[cfg(test)]
mod tests;
