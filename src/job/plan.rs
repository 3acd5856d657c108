//! The next step of a job: the policy of its whole life as one pure function.
//!
//! Invariants: [`next_step`] depends only on its arguments, so that it decides the same after a restart;
//! every step can be repeated, and [`Step::Start`] checks first whether the container was started.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::phase::{Event, Job, Phase, Rules, Run, UPLOAD_TRIES_MIN};
use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::ids::JobId;

/// One side effect. `agent::act` performs it and returns one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Pull the image, unless it is present.
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
    /// Wait for the container to exit, at most until `until`, and keep its log.
    Follow {
        /// When the run must end.
        until: Timestamp,
    },
    /// Stop the container and wait until it has exited.
    Stop,
    /// Seal output and log on disk.
    Collect,
    /// Publish the sealed output and log.
    Publish,
    /// Sign the receipt.
    Attest,
    /// Make sure that no other agent of the pool ends the job.
    Conclude,
    /// Remove container and folders.
    Remove,
    /// Publish the job with its history on `jobs.dead`, for the queue's operator.
    Bury,
    /// Acknowledge the delivery.
    Ack,
    /// Give back the claim and the delivery.
    HandBack,
    /// Return a pool's job that this node could not begin, or end it if too many nodes could not.
    Return,
}

impl Step {
    /// Whether a request to stop may drop the step's future: that leaves nothing half done.
    pub const fn can_be_cut_short(self) -> bool {
        matches!(self, Self::Pull | Self::Fetch | Self::Reserve | Self::Claim | Self::Follow { .. })
    }

    /// Whether the step only sends messages to the queue or the pool and touches nothing on this host.
    pub const fn is_message(self) -> bool {
        matches!(
            self,
            Self::Claim | Self::Conclude | Self::Bury | Self::Ack | Self::HandBack | Self::Return
        )
    }

    /// The step's name, for logs and failpoints.
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
    /// Perform this step and apply the event that it returns.
    Do(Step),
    /// Do nothing before this time: a failed step is retried then.
    Wait(Timestamp),
    /// Apply this event, which the passing of time alone caused.
    Apply(Event),
    /// Do nothing until an event comes from outside.
    Rest,
}

/// What to do for a job at the time `now`.
pub fn next_step(job: &Job, now: Timestamp) -> Next {
    match &job.phase {
        Phase::Running { run } if run.kill_at <= now => return Next::Apply(Event::TimeIsUp),
        _ if expires_at(job).is_some_and(|deadline| deadline <= now) => {
            return Next::Apply(Event::Expired);
        }
        _ => {}
    }
    // A claiming job holds cards. It already waited in `Ready`, before it reserved them.
    let waits = !matches!(job.phase, Phase::Claiming { .. });
    if let Some(trouble) = job.trouble.as_ref().filter(|_| waits)
        && trouble.retry_at > now
    {
        // A clock that was set back must not extend the wait beyond the longest one.
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

/// When the run must end, seen from `now`: a clock that was set back must not give the run more time than
/// it was given at its start.
pub fn ends_at(run: &Run, now: Timestamp) -> Timestamp {
    run.kill_at.min(now.plus(run.kill_at.since(run.started_at)))
}

/// When a job that is not running yet is given up, whatever it waits for.
pub fn expires_at(job: &Job) -> Option<Timestamp> {
    match &job.phase {
        Phase::Accepted | Phase::Pulled { .. } | Phase::Ready { .. } | Phase::Claiming { .. } => {
            job.spec.deadline
        }
        // With a container the job may have started: the step checks that before the job is given up.
        Phase::Starting { container: None, .. } => job.spec.deadline,
        _ => None,
    }
}

/// Longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_mins(5);

/// How long to wait after this many failures in a row. The jitter is derived from the job's id, so that
/// jobs that failed together are retried apart and a replay waits equally long.
pub(super) fn retry_delay(phase: &Phase, id: &JobId, failures: u32, rules: &Rules) -> Duration {
    let backoff = match phase {
        // A requester waits for the result: retry quickly, with short waits.
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { .. } => {
            Backoff::new(Duration::from_millis(500), Duration::from_secs(10))
        }
        // No card is held meanwhile, but other agents may want the job: retry soon and steadily.
        Phase::Claiming { .. } | Phase::Concluding { .. } => {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(10))
        }
        // The container keeps running; its exit should be noticed soon after the engine is back.
        Phase::Running { .. } | Phase::Stopping { .. } => {
            Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
        }
        // Waits short enough that the fewest tries fit into the patience.
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
