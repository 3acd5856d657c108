//! What ends a job early, or sends it back: failures, an expired deadline, a request to stop.
//!
//! Invariant: a job leaves the happy path towards one terminal status, or with one `interrupted` status
//! towards its queue.

use super::super::patience;
use super::super::phase::{
    Durable, EndedRun, Event, Fault, LOST_MAX, Misplaced, Outcome, Phase, Retry, Rules, StopCause,
    misplaced,
};
use super::super::reason::Reason;
use super::super::status::Stage;
use super::super::unable::{IMAGE_GONE_MAX, elsewhere, is_image_gone, not_begun};
use super::super::verdict::{cancelled, poisoned};
use super::{Next, notice};

impl Next {
    /// The job's deadline passed before its start.
    pub(super) fn expired(&mut self, phase: &Phase) -> Result<(), Misplaced> {
        if not_running(phase) || matches!(phase, Phase::Starting { .. }) {
            self.expire();
            return Ok(());
        }
        Err(misplaced(phase, &Event::Expired))
    }

    /// Somebody asked the job to stop. A job whose container may run is stopped; one that was not begun
    /// ends, or goes back to its queue.
    pub(super) fn stop_asked(&mut self, phase: Phase, cause: StopCause) -> Result<(), Misplaced> {
        match (phase, cause) {
            (Phase::Running { run }, cause) => self.job.phase = Phase::Stopping { run, cause },
            (Phase::Stopping { .. }, _) => {}
            (phase, StopCause::Cancelled) if not_running(&phase) || phase == Phase::Waiting => {
                self.finish(Outcome::Cancelled(cancelled()));
            }
            (phase, StopCause::Shutdown) if not_running(&phase) => {
                self.job.phase = Phase::Interrupted;
            }
            (phase, StopCause::LeaseLost) if not_running(&phase) => self.yielded(),
            (phase, cause) => return Err(misplaced(&phase, &Event::StopAsked { cause })),
        }
        Ok(())
    }

    pub(super) fn failed(
        &mut self,
        phase: Phase,
        fault: Fault,
        retry: Retry,
        rules: &Rules,
    ) -> Result<(), Misplaced> {
        if is_image_gone(&phase, &fault) && self.job.image_gone < IMAGE_GONE_MAX {
            // The attempt stays the same: nothing was created for it, and a pool's claim still stands.
            self.job.image_gone += 1;
            self.job.phase = Phase::Accepted;
            self.say(Stage::Pulling);
            self.durable = Some(Durable::Accepted);
            return Ok(());
        }
        let retry = elsewhere(&self.job, &phase, &fault, retry);
        let before = self.job.trouble.as_ref().map(|trouble| trouble.fault.reason);
        if let Some(trouble) = patience::trouble(&self.job, &fault, retry, self.now, rules) {
            if retry == Retry::Refused && before != Some(fault.reason) {
                self.statuses.push(notice::refused(&mut self.job, &fault, self.now));
            }
            self.job.trouble = Some(trouble);
            match phase {
                // Hold no card while waiting for the network, nor a card that does not work: another may.
                Phase::Claiming { image, .. } => self.job.phase = Phase::Ready { image },
                Phase::Starting { image, .. } if fault.reason == Reason::GpuFailed => {
                    self.job.phase = Phase::Ready { image };
                }
                _ => {}
            }
            return Ok(());
        }
        match phase {
            phase if not_begun(&phase) && self.job.is_better_elsewhere(&fault) => {
                self.unable(&phase, fault);
            }
            Phase::Accepted
            | Phase::Pulled { .. }
            | Phase::Ready { .. }
            | Phase::Claiming { .. }
            | Phase::Starting { .. } => {
                self.finish(Outcome::Failed(fault));
            }
            Phase::Exited { run, exit, .. } => {
                let outcome = Outcome::Failed(fault);
                self.job.phase = Phase::Collected {
                    ended: EndedRun { run, exit, outcome, output: None, log: None },
                    log: None,
                };
                self.say(Stage::Uploading);
            }
            Phase::Collected { mut ended, log } => {
                if ended.outcome == Outcome::Completed {
                    ended.outcome = Outcome::Failed(unpublished(fault));
                }
                self.job.durations.output = Some(self.spent());
                self.job.phase = Phase::Published { ended, output: None, log };
            }
            phase => return Err(misplaced(&phase, &Event::Failed { fault, retry })),
        }
        Ok(())
    }

    /// The container is gone and nobody knows how it ended: start again, but not forever.
    pub(super) fn lost(&mut self) {
        self.job.lost += 1;
        self.job.lost_running += u32::from(matches!(self.job.phase, Phase::Running { .. }));
        if self.job.lost < LOST_MAX {
            self.again();
        } else if self.job.lost_running == self.job.lost {
            self.finish(Outcome::Failed(poisoned()));
        } else {
            let error =
                format!("the container was lost {LOST_MAX} times before its exit could be read");
            self.finish(Outcome::Failed(Fault::new(Reason::ContainerLost, error)));
        }
    }

    /// Another agent has the job, or may have it: this attempt ends without a terminal status.
    pub(super) fn yielded(&mut self) {
        self.interrupted(
            Reason::LeaseLost,
            "another agent of the pool has the job, or may have it",
        );
        self.job.phase = Phase::Yielded;
    }

    /// Another node of the pool may succeed. Without a container the job is given back before its folders
    /// are removed: what would remove them may be what is broken.
    fn unable(&mut self, phase: &Phase, fault: Fault) {
        self.interrupted(fault.reason, &fault.error);
        self.job.phase = if matches!(phase, Phase::Starting { container: Some(_), .. }) {
            Phase::Unable { fault }
        } else {
            Phase::Returning { fault }
        };
    }

    pub(super) fn interrupted(&mut self, reason: Reason, error: &str) {
        self.statuses.push(notice::interrupted(&mut self.job, reason, error, self.now));
    }

    pub(super) fn expire(&mut self) {
        let error = "the deadline passed before the job could be started";
        self.finish(Outcome::TimedOut(Fault::new(Reason::DeadlinePassed, error)));
    }
}

/// Whether nothing of the job was started. A container that never ran is removed with everything else.
const fn not_running(phase: &Phase) -> bool {
    not_begun(phase) && !matches!(phase, Phase::Starting { container: Some(_), .. })
}

/// An output that was refused for too long is one that could not be published: it is kept like any other.
fn unpublished(fault: Fault) -> Fault {
    if fault.reason == Reason::OutputRefused {
        return Fault { reason: Reason::UploadFailed, ..fault };
    }
    fault
}
