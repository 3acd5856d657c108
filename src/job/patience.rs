//! How long a step that fails is tried again.
//!
//! What must hold: what is others' fault uses no patience up; a result is given up only for what was
//! really tried, never for time that has gone by.

use std::time::Duration;

use super::phase::{
    Fault, Job, Phase, Retry, Rules, RunExit, StopCause, Tried, Trouble, UPLOAD_TRIES_MIN,
};
use super::plan;
use super::reason::Reason;
use crate::clock::Timestamp;

/// How long a step is tried for.
enum Patience {
    /// For ever, because giving up would lose a result or leave something behind.
    Endless,
    /// From the first failure on.
    Since(Duration),
    /// Time spent trying, and at least [`UPLOAD_TRIES_MIN`] tries.
    Trying(Duration),
}

/// From one failed try to the next no more counts as spent trying: the longest wait between two, and
/// an upload that takes long. What is more the host has slept.
const TRY_MAX: Duration = Duration::from_hours(1);

/// No start is tried for longer, since it holds cards; nor what everybody refuses.
const BRIEFLY: Duration = Duration::from_mins(1);

fn patience(phase: &Phase, fault: &Fault, retry: Retry, rules: &Rules) -> Patience {
    match phase {
        // No card that works is left to wait for: as long as a start is tried.
        Phase::Ready { .. } if fault.reason == Reason::GpuFailed => {
            Patience::Since(rules.fetch_give_up.min(BRIEFLY))
        }
        Phase::Accepted | Phase::Pulled { .. } if retry != Retry::Briefly => {
            Patience::Since(rules.fetch_give_up)
        }
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { .. } => {
            Patience::Since(rules.fetch_give_up.min(BRIEFLY))
        }
        // What fails here is this node, and the result is not sealed yet: it can't be kept beside
        // a job that has ended.
        Phase::Exited { exit, cause, .. } if is_success(exit, cause.as_ref()) => Patience::Endless,
        Phase::Exited { .. } | Phase::Collected { .. } => Patience::Trying(rules.upload_give_up),
        _ => Patience::Endless,
    }
}

const fn is_success(exit: &RunExit, cause: Option<&StopCause>) -> bool {
    matches!(exit.code, Some(0)) && cause.is_none()
}

/// The job's trouble with this failure; `None` where its step is given up.
pub(super) fn trouble(
    job: &Job,
    fault: &Fault,
    retry: Retry,
    now: Timestamp,
    rules: &Rules,
) -> Option<Trouble> {
    let before = job.trouble.as_ref();
    // A clock that was set back must not stretch anybody's patience.
    let first_at = before.map_or(now, |it| it.first_at.min(now));
    // What the store takes of others and not of this job uses up the job's own patience.
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

/// Whether the trouble is still a job's own that has come into this phase. `claims`: the job goes to and
/// fro between its card and its claim.
pub(super) fn goes_along(trouble: &Trouble, phase: &Phase, claims: bool) -> bool {
    let is_gpu = trouble.fault.reason == Reason::GpuFailed;
    match phase {
        // The patience with the cards goes on while others are waited for and tried.
        Phase::Ready { .. } => claims || is_gpu,
        Phase::Starting { .. } => is_gpu,
        Phase::Claiming { .. } => claims,
        _ => false,
    }
}

/// What was tried with this failure. A gap in which the host slept was none.
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
