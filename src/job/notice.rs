//! Statuses that say more than the stage that a job has reached. Pure.

use super::phase::{Fault, Job};
use super::reason::Reason;
use super::status::{PullProgress, Stage, Status};
use crate::clock::Timestamp;

/// A service refuses the node: the job waits until the node's owner acts.
pub(super) fn refused(job: &mut Job, fault: &Fault, now: Timestamp) -> Status {
    let status = job.say(Stage::Uploading, now);
    Status { reason_code: Some(fault.reason), error: Some(fault.error.clone()), ..status }
}

/// The image is still being pulled.
pub(super) fn pulling(job: &mut Job, progress: PullProgress, now: Timestamp) -> Status {
    Status { pull: Some(progress), ..job.say(Stage::Pulling, now) }
}

/// The image may not be the one that its name refers to by now.
pub(super) fn unconfirmed(job: &mut Job, now: Timestamp) -> Status {
    let error = "the image's registry did not say what its tag means now: the image is the one that \
                 this node pulled before";
    Status { error: Some(error.to_owned()), ..job.say(Stage::Pulling, now) }
}

/// The attempt ends here without a terminal status.
pub(super) fn interrupted(job: &mut Job, reason: Reason, error: &str, now: Timestamp) -> Status {
    let status = job.say(Stage::Interrupted, now);
    Status { reason_code: Some(reason), error: Some(error.to_owned()), ..status }
}
