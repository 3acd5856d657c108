//! Failed steps and lost containers: tried again, left to another node of the pool, or the job's end.
//!
//! Invariant: a failure is counted once; a job that is given up has one terminal status.

use super::super::patience;
use super::super::phase::{
    Durable, EndedRun, Event, Fault, LOST_MAX, Misplaced, Outcome, Phase, Retry, Rules, misplaced,
};
use super::super::reason::Reason;
use super::super::status::Stage;
use super::super::unable::{IMAGE_GONE_MAX, elsewhere, is_image_gone, not_begun};
use super::super::verdict::poisoned;
use super::{Next, notice};

impl Next {
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
}

/// An output that was refused for too long is one that could not be published: it is kept like any other.
fn unpublished(fault: Fault) -> Fault {
    if fault.reason == Reason::OutputRefused {
        return Fault { reason: Reason::UploadFailed, ..fault };
    }
    fault
}
