//! How long a failing step is retried.
//!
//! Invariants: failures that others cause use up no patience; a result is given up only after real tries,
//! never merely because time has passed.

use std::time::Duration;

use super::phase::{
    Fault, Job, Phase, Retry, Rules, RunExit, StopCause, Tried, Trouble, UPLOAD_TRIES_MIN,
};
use super::plan;
use super::reason::Reason;
use crate::clock::Timestamp;

/// How long a step is retried.
enum Patience {
    /// Forever, because giving up would lose a result or leave something behind.
    Endless,
    /// For this long after the first failure.
    Since(Duration),
    /// For this long spent trying, and for at least [`UPLOAD_TRIES_MIN`] tries.
    Trying(Duration),
}

/// At most this much between two failed tries counts as spent trying: it covers the longest wait and a
/// slow upload. In a longer gap the host was asleep.
const TRY_MAX: Duration = Duration::from_hours(1);

/// Longest patience with a start, since it holds cards, and with what every service refuses.
const BRIEFLY: Duration = Duration::from_mins(1);

fn patience(phase: &Phase, fault: &Fault, retry: Retry, rules: &Rules) -> Patience {
    match phase {
        // No working card is left to wait for: retry for as long as a start.
        Phase::Ready { .. } if fault.reason == Reason::GpuFailed => {
            Patience::Since(rules.fetch_give_up.min(BRIEFLY))
        }
        Phase::Accepted | Phase::Pulled { .. } if retry != Retry::Briefly => {
            Patience::Since(rules.fetch_give_up)
        }
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { .. } => {
            Patience::Since(rules.fetch_give_up.min(BRIEFLY))
        }
        // The node itself fails, and the result is not sealed yet: it can't be kept for later once the
        // job has ended.
        Phase::Exited { exit, cause, .. } if is_success(exit, cause.as_ref()) => Patience::Endless,
        Phase::Exited { .. } | Phase::Collected { .. } => Patience::Trying(rules.upload_give_up),
        _ => Patience::Endless,
    }
}

const fn is_success(exit: &RunExit, cause: Option<&StopCause>) -> bool {
    matches!(exit.code, Some(0)) && cause.is_none()
}

/// The job's trouble after this failure; `None` if its step is given up.
pub(super) fn trouble(
    job: &Job,
    fault: &Fault,
    retry: Retry,
    now: Timestamp,
    rules: &Rules,
) -> Option<Trouble> {
    let before = job.trouble.as_ref();
    // A clock that was set back must not extend the patience.
    let first_at = before.map_or(now, |it| it.first_at.min(now));
    // The store takes other uploads but not this one: that uses up the job's own patience.
    let is_own = retry == Retry::Refused && fault.reason == Reason::OutputRefused;
    let retry = if is_own { Retry::Patiently } else { retry };
    let is_others = matches!(retry, Retry::Always | Retry::Refused);
    let first_at = if is_others { now } else { first_at };
    let tried = tried(before.map(|trouble| trouble.tried).unwrap_or_default(), retry, now);
    let is_patient = match (retry, patience(&job.phase, fault, retry, rules)) {
        (Retry::Never, _) => false,
        (Retry::Always | Retry::Refused, _) | (_, Patience::Endless) => true,
        (_, Patience::Since(span)) => now.since(first_at) < span,
        (_, Patience::Trying(span)) => {
            tried.times < UPLOAD_TRIES_MIN || Duration::from_millis(tried.spent_ms) < span
        }
    };
    is_patient.then(|| {
        let failures = before.map_or(0, |trouble| trouble.failures) + 1;
        let wait = plan::retry_delay(&job.phase, job.id(), failures, rules);
        Trouble { failures, first_at, retry_at: now.plus(wait), fault: fault.clone(), tried }
    })
}

/// Whether the trouble stays with a job that has entered this phase. `claims`: the job moves back and
/// forth between reserving its cards and claiming.
pub(super) fn goes_along(trouble: &Trouble, phase: &Phase, claims: bool) -> bool {
    let is_gpu = trouble.fault.reason == Reason::GpuFailed;
    match phase {
        // Patience with failing cards runs on while the job waits for other cards and tries them.
        Phase::Ready { .. } => claims || is_gpu,
        Phase::Starting { .. } => is_gpu,
        Phase::Claiming { .. } => claims,
        _ => false,
    }
}

/// The tries so far, this one included. At most [`TRY_MAX`] of the time since the last one counts.
fn tried(before: Tried, retry: Retry, now: Timestamp) -> Tried {
    if !matches!(retry, Retry::Patiently | Retry::Briefly) {
        return Tried { last_at: None, ..before };
    }
    let spent = before.last_at.map(|last| now.since(last).min(TRY_MAX)).unwrap_or_default();
    let spent_ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    Tried {
        times: before.times.saturating_add(1),
        spent_ms: before.spent_ms.saturating_add(spent_ms),
        last_at: Some(now),
    }
}
