//! A pool's job that this node can't begin, by what may be its own fault: another node may do better.
//!
//! What must hold: nothing of the job has run here in this attempt when it is given back; a job of no
//! pool is not concerned, since nobody else could begin it.

use super::phase::{Fault, Job, Phase, Retry};
use super::reason::Reason;

/// No command of the job can have run in this attempt: of a container that was made, the engine said
/// that it was not started, or it goes before the job does.
pub(super) const fn not_begun(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Accepted
            | Phase::Pulled { .. }
            | Phase::Ready { .. }
            | Phase::Claiming { .. }
            | Phase::Starting { .. }
    )
}

/// How often an image that was removed between its pull and the start is pulled again: whoever prunes
/// more often than that wants it gone.
pub(super) const IMAGE_GONE_MAX: u32 = 3;

/// An image that was here when it was asked for, and was removed before the container was made.
pub(super) fn is_image_gone(phase: &Phase, fault: &Fault) -> bool {
    matches!(phase, Phase::Starting { container: None, .. })
        && fault.reason == Reason::ImagePullFailed
}

/// How a failure is taken where another node of the pool may do better: a card that failed is not
/// tried again, and an engine that is away is not waited for longer than a registry is.
pub(super) fn elsewhere(job: &Job, phase: &Phase, fault: &Fault, retry: Retry) -> Retry {
    if !job.is_better_elsewhere(fault) {
        return retry;
    }
    match phase {
        Phase::Starting { .. } if fault.reason == Reason::GpuFailed => Retry::Never,
        // Nothing of it runs, so nothing of it must be waited for.
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { container: None, .. }
            if retry == Retry::Always =>
        {
            Retry::Patiently
        }
        _ => retry,
    }
}
