//! A pool's job that this node can't begin, possibly by its own fault: another node may succeed
//! (docs/adr/0020).
//!
//! Invariants: when the job is given back, nothing of it has run here in this attempt; a job of no pool
//! is never given back for this, since no other node could begin it.

use super::phase::{Fault, Job, Phase, Retry};
use super::reason::Reason;

/// Whether no command of the job can have run in this attempt. If a container was created, the engine
/// said that it was not started, or it is removed before the job is given back.
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

/// How often an image that was removed between its pull and the start is pulled again. If it is removed
/// more often, somebody wants it gone.
pub(super) const IMAGE_GONE_MAX: u32 = 3;

/// Whether the image was present when it was pulled, and was removed before the container was created.
pub(super) fn is_image_gone(phase: &Phase, fault: &Fault) -> bool {
    matches!(phase, Phase::Starting { container: None, .. })
        && fault.reason == Reason::ImagePullFailed
}

/// How a failure is retried if another node of the pool may succeed: a card that failed is not tried
/// again, and an engine that is away is waited for no longer than a registry.
pub(super) fn elsewhere(job: &Job, phase: &Phase, fault: &Fault, retry: Retry) -> Retry {
    if !job.is_better_elsewhere(fault) {
        return retry;
    }
    match phase {
        Phase::Starting { .. } if fault.reason == Reason::GpuFailed => Retry::Never,
        // Nothing of the job runs here, so there is no reason to wait forever.
        Phase::Accepted | Phase::Pulled { .. } | Phase::Starting { container: None, .. }
            if retry == Retry::Always =>
        {
            Retry::Patiently
        }
        _ => retry,
    }
}
