//! What comes next for a job: the whole policy of its life, as one pure function.
//!
//! What must hold: [`next_step`] depends on nothing but its arguments, so that after a restart it
//! decides as it would have decided before; every step can be repeated, but for [`Step::Start`],
//! which looks before it starts anything.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::phase::{Event, Job, Phase, Rules, Run, UPLOAD_TRIES_MIN};
use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::ids::JobId;

/// One effect on the world outside. `agent::act` performs it and answers with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the image present.
    Pull,
    /// Fetch the inputs and check them.
    Fetch,
    /// Wait for a slot and for GPUs.
    Reserve,
    /// Make sure that no other agent of the pool starts the job.
    Claim,
    /// Create the container, unless it is there already.
    Create,
    /// Start the container, unless it was started already.
    Start,
    /// Wait for the container's end, at most until then, and keep its log.
    Follow {
        /// The run's last moment.
        until: Timestamp,
    },
    /// Stop the container and wait for its end.
    Stop,
    /// Seal output and log on disk.
    Collect,
    /// Publish what was sealed.
    Publish,
    /// Sign the receipt.
    Attest,
    /// Make sure that no other agent of the pool ends the job.
    Conclude,
    /// Remove container and folders.
    Remove,
    /// Put the job aside, with its history, for whoever looks after the queue.
    Bury,
    /// Acknowledge the delivery.
    Ack,
    /// Give the delivery back.
    HandBack,
    /// Give a pool's job back that this node could not begin, or end it where too many could not.
    Return,
}

impl Step {
    /// Whether a request to stop may cut it short: nothing is half done where its future is dropped.
    pub const fn can_be_cut_short(self) -> bool {
        matches!(self, Self::Pull | Self::Fetch | Self::Reserve | Self::Claim | Self::Follow { .. })
    }

    /// Whether it is a message to the queue or to the pool, and touches nothing on this host.
    pub const fn is_message(self) -> bool {
        matches!(
            self,
            Self::Claim | Self::Conclude | Self::Bury | Self::Ack | Self::HandBack | Self::Return
        )
    }

    /// Its name, for logs and failpoints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Fetch => "fetch",
            Self::Reserve => "reserve",
            Self::Claim => "claim",
            Self::Create => "create",
            Self::Start => "start",
            Self::Follow { .. } => "follow",
            Self::Stop => "stop",
            Self::Collect => "collect",
            Self::Publish => "publish",
            Self::Attest => "attest",
            Self::Conclude => "conclude",
            Self::Remove => "remove",
            Self::Bury => "bury",
            Self::Ack => "ack",
            Self::HandBack => "hand_back",
            Self::Return => "return",
        }
    }
}

/// What to do with a job now.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
pub enum Next {
    /// Perform this step and apply the event that it answers with.
    Do(Step),
    /// Nothing before this moment: a step failed and is tried again then.
    Wait(Timestamp),
    /// Time alone made this happen: apply it.
    Apply(Event),
    /// Nothing, until something comes from outside.
    Rest,
}

/// The next thing to do for a job at this moment.
pub fn next_step(job: &Job, now: Timestamp) -> Next {
    match &job.phase {
        Phase::Running { run } if run.kill_at <= now => return Next::Apply(Event::TimeIsUp),
        _ if expires_at(job).is_some_and(|deadline| deadline <= now) => {
            return Next::Apply(Event::Expired);
        }
        _ => {}
    }
    // What has its cards has waited before it took them.
    let waits = !matches!(job.phase, Phase::Claiming { .. });
    if let Some(trouble) = job.trouble.as_ref().filter(|_| waits)
        && trouble.retry_at > now
    {
        // A clock that was set back must not stretch the wait beyond the schedule's own longest.
        let latest = now.plus(RETRY_MAX);
        return Next::Wait(trouble.retry_at.min(latest));
    }
    match &job.phase {
        Phase::Accepted => Next::Do(Step::Pull),
        Phase::Pulled { .. } => Next::Do(Step::Fetch),
        Phase::Ready { .. } => Next::Do(Step::Reserve),
        Phase::Claiming { .. } => Next::Do(Step::Claim),
        Phase::Starting { container: None, .. } => Next::Do(Step::Create),
        Phase::Starting { .. } => Next::Do(Step::Start),
        Phase::Running { run } => Next::Do(Step::Follow { until: ends_at(run, now) }),
        Phase::Stopping { .. } => Next::Do(Step::Stop),
        Phase::Exited { .. } => Next::Do(Step::Collect),
        Phase::Collected { .. } => Next::Do(Step::Publish),
        Phase::Published { .. } => Next::Do(Step::Attest),
        Phase::Concluding { .. } => Next::Do(Step::Conclude),
        Phase::Ended { .. } | Phase::Interrupted | Phase::Unable { .. } | Phase::Yielded => {
            Next::Do(Step::Remove)
        }
        Phase::Returning { .. } => Next::Do(Step::Return),
        Phase::Cleaned { outcome } if outcome.is_dead_letter() => Next::Do(Step::Bury),
        Phase::Cleaned { .. } | Phase::Buried { .. } => Next::Do(Step::Ack),
        Phase::HandingBack | Phase::LettingGo => Next::Do(Step::HandBack),
        Phase::Waiting | Phase::Settled { .. } | Phase::EndedElsewhere => Next::Rest,
    }
}

/// A run's last moment as it is seen now: a clock that was set back must not give it more than it
/// was given at its start.
pub fn ends_at(run: &Run, now: Timestamp) -> Timestamp {
    run.kill_at.min(now.plus(run.kill_at.since(run.started_at)))
}

/// When a job that does not run yet is given up, whatever it waits for.
pub fn expires_at(job: &Job) -> Option<Timestamp> {
    match &job.phase {
        Phase::Accepted | Phase::Pulled { .. } | Phase::Ready { .. } | Phase::Claiming { .. } => {
            job.spec.deadline
        }
        // With a container it may have been started: the step looks before it gives the job up.
        Phase::Starting { container: None, .. } => job.spec.deadline,
        _ => None,
    }
}

/// No wait between two tries is longer.
const RETRY_MAX: Duration = Duration::from_mins(5);

/// How long to wait after this many failures in a row. The chance in it comes from the job's name,
/// so that jobs that failed together are tried again apart, and a replay waits alike.
pub(super) fn retry_delay(phase: &Phase, id: &JobId, failures: u32, rules: &Rules) -> Duration {
    let backoff = match phase {
        // A requester waits for the answer: quick and short.
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { .. } => {
            Backoff::new(Duration::from_millis(500), Duration::from_secs(10))
        }
        // Cards are free meanwhile, but other agents may want the job: soon again, and steadily.
        Phase::Claiming { .. } | Phase::Concluding { .. } => {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(10))
        }
        // The container goes on meanwhile; its end should be noticed soon after the engine is back.
        Phase::Running { .. } | Phase::Stopping { .. } => {
            Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
        }
        // As many tries as there have to be fit into the patience.
        Phase::Exited { .. } | Phase::Collected { .. } => {
            let most = (rules.upload_give_up / UPLOAD_TRIES_MIN).max(Duration::from_millis(50));
            Backoff::new(Duration::from_secs(1).min(most), RETRY_MAX.min(most))
        }
        _ => Backoff::new(Duration::from_secs(1), RETRY_MAX),
    };
    let digest = Sha256::digest(format!("{id}/{failures}").as_bytes());
    let chance = f64::from(digest[0]) / 256.0;
    backoff.delay(failures, chance)
}
