//! What the agent tells the monitor of its jobs, and what the monitor tells back.
//!
//! Invariant: the monitor learns of a job's start and of its end once each for every attempt, however short it was;
//! it is the agent that writes to the journal and publishes.

use std::fmt;
use std::time::Duration;

use super::figures::Usage;
use super::profile::Profile;
use super::rollup::{Bucket, Rollups};
use super::sample::Unknown;
use super::totals::Totals;
use crate::ids::{Hash, JobId};
use crate::node::GpuUuid;

/// Where the kernel counts what a job uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The job's own parent group, which outlives its container.
    Parent {
        /// Its path below the hierarchies' roots.
        path: String,
        /// The engine's id of the container, which names the group below it.
        container: String,
    },
    /// The container's group itself, which ends with it.
    Container {
        /// The engine's id of the container.
        container: String,
        /// The number of its first process.
        pid: u32,
    },
}

impl Place {
    /// Whether the sums can still be read when the container has ended.
    pub const fn outlives_its_container(&self) -> bool {
        matches!(self, Self::Parent { .. })
    }
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// Its attempt, from 1.
    pub number: u32,
}

/// A job whose container was started.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// Which one it is.
    pub attempt: Attempt,
    /// Where it is counted, or why nobody knows.
    pub place: Result<Place, Unknown>,
    /// Whether its container has a network besides its own loopback.
    pub has_network: bool,
    /// The cards that it has to itself.
    pub cards: Vec<GpuUuid>,
    /// The most memory that it may have, in bytes.
    pub memory_bytes: u64,
    /// How closely it is watched.
    pub profile: Profile,
    /// Whether its container was started just now, and not by an earlier process of the node.
    pub is_new: bool,
    /// Time since its container was started.
    pub age: Duration,
    /// What an earlier process of the node saw of it.
    pub so_far: Option<SoFar>,
}

/// What was seen of a job up to some batch.
#[derive(Debug, Clone, PartialEq)]
pub struct SoFar {
    /// The number of the last batch.
    pub number: u32,
    /// Its head.
    pub head: Hash,
    /// The sums up to then.
    pub totals: Totals,
    /// The spans that were open then.
    pub rollups: Rollups,
}

/// What the agent tells the monitor.
#[derive(Debug)]
pub enum Watch {
    /// A job's container runs, or did until now. Told again of a job that is watched already, it changes nothing.
    Started(Box<RunningJob>),
    /// A job's container has ended.
    Exited {
        /// Whose it was.
        attempt: Attempt,
        /// Takes what the job used.
        answer: Answer,
    },
    /// Nobody will tell the end of this job: its container was lost.
    Lost(Attempt),
    /// Something happened to a job.
    Marked(JobId, super::batch::MarkKind),
    /// The node stops and leaves what runs to its next start: what was sampled is told now. Answered when it is in the
    /// journal.
    Rest(Answer<()>),
}

/// Takes what is asked for, once: what a job used.
pub struct Answer<T = Usage>(Box<dyn FnOnce(T) + Send + Sync>);

impl<T> Answer<T> {
    /// Calls this with the figures.
    pub fn new(take: impl FnOnce(T) + Send + Sync + 'static) -> Self {
        Self(Box::new(take))
    }

    /// Gives the figures.
    pub fn give(self, told: T) {
        (self.0)(told);
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// What the monitor tells the agent.
#[derive(Debug)]
pub enum Said {
    /// A run of samples, for the journal and the stream.
    Batch {
        /// Whose samples they are.
        attempt: Attempt,
        /// Its number and head, and the sums up to it.
        so_far: Box<SoFar>,
        /// The batch, as it is kept and published.
        body: Vec<u8>,
        /// Whether it is published.
        is_public: bool,
        /// How many of the attempt's batches are kept.
        keep: u32,
    },
    /// The final figures of a job, to be given when all that was said before is in the journal: what is signed must be
    /// found there.
    Done(Answer, Usage),
    /// All that was sampled up to a stop of the node was said before; given like [`Said::Done`].
    Rested(Answer<()>),
    /// A closed span of a job's life.
    Bucket(Attempt, Box<Bucket>),
    /// What a job uses now, as its readers know it from other systems: the body of a `task_metrics` message.
    Message(JobId, Vec<u8>),
    /// A job has cards and has not used them for some time.
    HeldIdle {
        /// Which job.
        attempt: Attempt,
        /// Its cards.
        cards: Vec<GpuUuid>,
        /// For how long.
        idle: Duration,
        /// Whether it has a process on them.
        has_process: bool,
    },
}
