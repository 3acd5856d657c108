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
//!  Running ─stop asked, time up─► Stopping ─exited─► Exited, or, if the node shuts down:
//!  Interrupted ─removed─► HandingBack ─handed back─► Waiting ─resumed─► Accepted (attempt+1)
//!
//!  A pool's job also writes its claim, twice:
//!  Ready ─reserved─► Claiming ─claimed─► Starting     …  ─► Concluding ─concluded─► Ended
//!  and if another agent has it: Yielded ─removed─► LettingGo ─handed back─► Waiting, without an end;
//!  if that agent has ended it: Waiting ─outbid─► EndedElsewhere
//!
//!  and if this node can't begin it, possibly by its own fault:
//!  Unable ─removed─► Returning ─handed back─► Yielded, or, after too many: ─concluded─► Ended
//!
//!  A job that could not be run: Cleaned ─buried─► Buried ─acked─► Settled
//! ```
//!
//! The happy path runs around the outside. Every transition is [`Job::apply`] of one [`Event`]: it
//! returns the new state and the statuses that follow from it, and `journal` commits both before anything
//! else is done.
//!
//! Invariants: statuses are numbered from 1 without gaps, and at most one is terminal, the last; a
//! container is started only in `Starting`, which is committed first; once `Exited` is committed, the GPU
//! is free and the result is given up only as [`Rules`] allow; a pool's job is started and ended only by
//! the agent that holds its claim; an event that does not belong to the phase is an error, never a guess.

mod event;
mod outcome;
mod run;
mod trouble;

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
pub use trouble::{LOST_MAX, Rules, Tried, Trouble, UPLOAD_TRIES_MIN};

/// Everything the node knows about one job. The journal stores it; only [`Job::apply`] moves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The job as requested.
    pub spec: JobSpec,
    /// Canonical hash of the request: see [`super::spec::spec_hash`].
    pub spec_hash: Hash,
    /// Where it came from: `dispatch.0x…` or `pool.<name>`.
    pub target: String,
    /// The node that runs it.
    pub node: Address,
    /// When the journal first recorded it.
    pub received_at: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Attempts that ended with the container lost.
    pub lost: u32,
    /// Those of them whose container was known to be running.
    #[serde(default)]
    pub lost_running: u32,
    /// How often its image was gone when its container was to be created.
    #[serde(default)]
    pub image_gone: u32,
    /// Number of the last status.
    pub seq: u64,
    /// Number of transitions so far: lets the journal tell a decision from its repetition.
    #[serde(default)]
    pub revision: u64,
    /// The present phase.
    pub phase: Phase,
    /// When it entered that phase.
    pub since: Timestamp,
    /// The failures in that phase so far, if any.
    pub trouble: Option<Trouble>,
    /// How long each part took.
    pub durations: Durations,
}

/// A request for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The job as requested.
    pub spec: JobSpec,
    /// Canonical hash of the request.
    pub spec_hash: Hash,
    /// Where it came from: `dispatch.0x…` or `pool.<name>`.
    pub target: String,
}

/// A job's phase, with the facts that hold in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields' types say what they are")]
pub enum Phase {
    /// In the journal; the image is next.
    Accepted,
    /// The image is on this host; the inputs are next.
    Pulled { image: PinnedImage },
    /// Everything is on disk; cards and a slot are next.
    Ready { image: PinnedImage },
    /// A pool's job: cards are reserved; writing its claim is next.
    Claiming { image: PinnedImage, gpus: Vec<GpuUuid> },
    /// Cards are reserved. If `container` is set, it may run; otherwise nothing was ever started.
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
    /// Output and log are sealed on disk; publishing is next. `log` is set once the log is published and
    /// the output is not yet.
    Collected {
        ended: EndedRun,
        #[serde(default)]
        log: Option<Cid>,
    },
    /// Whatever could be published is published; the receipt is next.
    Published { ended: EndedRun, output: Option<Cid>, log: Option<Cid> },
    /// A pool's job: how it ended is known; claiming its end is next.
    Concluding { ending: Ending },
    /// The terminal status is in the outbox; the container and the folders are still there.
    Ended { outcome: Outcome },
    /// Nothing is left on the host; the delivery is still to be acknowledged.
    Cleaned { outcome: Outcome },
    /// A job that could not be run is on `jobs.dead` with its history; the delivery is still to be
    /// acknowledged.
    Buried { outcome: Outcome },
    /// Nothing is left to do.
    Settled { outcome: Outcome },
    /// Stopped by the node; the container and the folders are still there.
    Interrupted,
    /// Stopped by the node; claim and delivery are still to be given back, if the node still has them.
    HandingBack,
    /// A pool's job that this node could not begin, possibly by its own fault; the container is still
    /// there.
    Unable { fault: Fault },
    /// The same without a container; it is still to be given back to the pool.
    Returning { fault: Fault },
    /// Another agent has the pool's job, or may have it; the container and the folders are still
    /// there.
    Yielded,
    /// Another agent has the pool's job, or may have it: this node's start is still to be taken out of
    /// the claim, and the delivery is left unanswered.
    LettingGo,
    /// Given back; nothing happens until it is delivered again, its message is gone, or the node
    /// restarts.
    Waiting,
    /// Given back, and ended by another agent of the pool: done here, without a terminal status.
    EndedElsewhere,
}

/// What [`Job::apply`] decides; it is committed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The job in its new state.
    pub job: Job,
    /// The statuses to publish, in order.
    pub statuses: Vec<Status>,
    /// Set if the commit must survive a power cut, not only a kill, before anything else is done.
    pub durable: Option<Durable>,
    /// An output that is kept from here on, if any.
    pub kept: Option<Kept>,
}

/// An event that does not belong to the phase: a bug in this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} does not belong to phase {phase}")]
pub struct Misplaced {
    phase: &'static str,
    event: &'static str,
}

impl Phase {
    /// The phase's name, for logs and listings.
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

    /// The cards of a job that holds a slot; `None` if it holds no slot.
    pub fn holds(&self) -> Option<&[GpuUuid]> {
        match self {
            Self::Claiming { gpus, .. } | Self::Starting { gpus, .. } => Some(gpus),
            Self::Running { run } | Self::Stopping { run, .. } => Some(&run.gpus),
            _ => None,
        }
    }

    /// The outcome, once the terminal status is in the outbox.
    pub const fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Ended { outcome }
            | Self::Cleaned { outcome }
            | Self::Buried { outcome }
            | Self::Settled { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// How far a pool's job is with its claim.
    pub fn stand(&self) -> Stand {
        match self {
            Self::Starting { .. }
            | Self::Running { .. }
            | Self::Stopping { .. }
            | Self::Exited { .. }
            | Self::Collected { .. }
            | Self::Published { .. } => Stand::Held,
            // A job that never ran may never have been claimed.
            Self::Concluding { ending } if ending.receipt.is_some() => Stand::Concluding,
            Self::Ended { .. } | Self::Cleaned { .. } | Self::Buried { .. } => Stand::Ended,
            _ => Stand::Open,
        }
    }

    /// The fault, possibly this node's own, that kept the job from beginning and led to this phase.
    pub fn nodes_fault(&self) -> Option<&Fault> {
        match self {
            Self::Unable { fault } | Self::Returning { fault } => Some(fault),
            Self::Ended { outcome: Outcome::Failed(fault) } => {
                Some(fault).filter(|fault| fault.reason.may_be_the_nodes())
            }
            _ => None,
        }
    }

    /// Whether its container runs or may run.
    pub const fn may_have_started(&self) -> bool {
        matches!(
            self,
            Self::Starting { container: Some(_), .. }
                | Self::Running { .. }
                | Self::Stopping { .. }
        )
    }

    /// Whether the job is given back or may be another agent's, so that its lease is not renewed.
    pub const fn is_let_go(&self) -> bool {
        matches!(self, Self::HandingBack | Self::LettingGo | Self::Yielded | Self::Waiting)
    }

    /// Whether nothing is left to do for the job, whatever happens.
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
    /// Accepts a job: its first state and statuses.
    ///
    /// `after_seq`: number of the last status that was published under its id before; 0 if there is none.
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
        let mut accepted = job.say(Stage::Accepted, now);
        accepted.error.clone_from(&job.spec.needs.monitoring_problem);
        let statuses = vec![accepted, job.say(Stage::Pulling, now)];
        Transition { job, statuses, durable: Some(Durable::Accepted), kept: None }
    }

    /// The job as a new process takes it over: an earlier process's tries to publish don't use up its
    /// patience.
    #[must_use]
    pub fn taken_up(mut self) -> Self {
        if matches!(self.phase, Phase::Exited { .. } | Phase::Collected { .. }) {
            self.trouble = None;
        }
        self
    }

    /// The pool that it came from; `None` if it was sent to this node alone.
    pub fn pool(&self) -> Option<&str> {
        self.target.strip_prefix("pool.")
    }

    /// Whether another node of its pool may succeed where this one failed.
    pub fn is_better_elsewhere(&self, fault: &Fault) -> bool {
        self.pool().is_some() && fault.reason.may_be_the_nodes()
    }

    /// The job's id, as in its spec.
    pub const fn id(&self) -> &JobId {
        &self.spec.id
    }

    /// The next status, with its number and the keys that every status has.
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

pub(in crate::job) fn misplaced(phase: &Phase, event: &Event) -> Misplaced {
    Misplaced { phase: phase.name(), event: event.name() }
}

#[cfg(test)]
mod tests;
