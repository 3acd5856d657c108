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
//!  Running ─stop asked, time up─► Stopping ─exited─► Exited, or, where the node shuts down:
//!  Interrupted ─removed─► HandingBack ─handed back─► Waiting ─resumed─► Accepted (attempt+1)
//! ```
//!
//! The happy path goes once around the outside. Every change of state is [`Job::apply`] of one
//! [`Event`]: it returns the new state with the statuses that follow from it, and `journal` writes
//! both in one commit before anything else is done.
//!
//! What must hold: statuses are gapless from 1 and exactly one is terminal; a container is started
//! only in `Starting`, which is written down before; after `Exited` is written down the GPU is free
//! and the result is never given up but by the rules of [`Rules`]; an event that does not belong to
//! the phase is an error, never a guess.

mod event;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use super::status::{Durations, Stage, Status};
use super::{Cid, Hash, JobId, JobSpec};
use crate::clock::Timestamp;
use crate::node::{Address, GpuUuid};

pub use event::{Event, Retry};

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
    /// The last status's number.
    pub seq: u64,
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
    /// Cards are reserved; the container may or may not exist.
    Starting { image: PinnedImage, gpus: Vec<GpuUuid> },
    /// The container was started.
    Running { run: Run },
    /// The container is being stopped.
    Stopping { run: Run, cause: StopCause },
    /// The container's processes are gone; log and output are still to be collected.
    Exited { run: Run, exit: RunExit, cause: Option<StopCause> },
    /// Output and log lie sealed on disk; publishing is next.
    Collected { ended: EndedRun },
    /// What could be published is; the receipt is next.
    Published { ended: EndedRun, output: Option<Cid>, log: Option<Cid> },
    /// The terminal status is in the outbox; the container and the folders are still there.
    Ended { outcome: Outcome },
    /// Nothing is left on the host; the delivery is still to be acknowledged.
    Cleaned { outcome: Outcome },
    /// Done in every respect.
    Settled { outcome: Outcome },
    /// Stopped by the node; the container and the folders are still there.
    Interrupted,
    /// Stopped by the node; the delivery is still to be given back.
    HandingBack,
    /// Given back; nothing happens until it is delivered again or the node starts again.
    Waiting,
}

/// An image as it was found: a tag that moves later changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The engine's id of it.
    pub id: String,
    /// What the receipt says.
    pub digest: String,
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
}

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

/// What went wrong: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub reason: Reason,
    /// For people: one sentence, at most 500 bytes.
    pub error: String,
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
}

/// The settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// No container runs longer.
    pub timeout_max: Duration,
    /// How long an image or an input is tried for, from the first failure.
    pub fetch_give_up: Duration,
    /// How long publishing is tried for, from the first failure.
    pub upload_give_up: Duration,
}

/// Attempts whose container is lost before the job fails.
pub const LOST_MAX: u32 = 3;

/// What [`Job::apply`] decides: written down as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The job as it stands now.
    pub job: Job,
    /// What the world is told, in order.
    pub statuses: Vec<Status>,
    /// Whether it must survive a power cut before anything else is done, not only a kill.
    pub durable: bool,
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
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Exited { .. } => "exited",
            Self::Collected { .. } => "collected",
            Self::Published { .. } => "published",
            Self::Ended { .. } => "ended",
            Self::Cleaned { .. } => "cleaned",
            Self::Settled { .. } => "settled",
            Self::Interrupted => "interrupted",
            Self::HandingBack => "handing_back",
            Self::Waiting => "waiting",
        }
    }

    /// The cards and the slot that the job holds; `None` where it holds none.
    pub fn holds(&self) -> Option<&[GpuUuid]> {
        match self {
            Self::Starting { gpus, .. } => Some(gpus),
            Self::Running { run } | Self::Stopping { run, .. } => Some(&run.gpus),
            _ => None,
        }
    }

    /// Whether the terminal status is out.
    pub const fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Ended { outcome } | Self::Cleaned { outcome } | Self::Settled { outcome } => {
                Some(outcome)
            }
            _ => None,
        }
    }

    /// Whether the job still needs a slot, now or later: its container has not exited.
    pub const fn wants_slot(&self) -> bool {
        matches!(
            self,
            Self::Accepted
                | Self::Pulled { .. }
                | Self::Ready { .. }
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
            seq: after_seq,
            phase: Phase::Accepted,
            since: now,
            trouble: None,
            durations: Durations::default(),
        };
        let statuses = vec![job.say(Stage::Accepted, now), job.say(Stage::Pulling, now)];
        Transition { job, statuses, durable: true }
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
