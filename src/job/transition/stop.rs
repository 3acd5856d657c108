//! What ends a job early from outside: an expired deadline, a request to stop, another agent that has it.
//!
//! Invariant: the job ends with one terminal status, or with one `interrupted` status and on its way back to
//! its queue.

use super::super::phase::{Event, Fault, Misplaced, Outcome, Phase, StopCause, misplaced};
use super::super::reason::Reason;
use super::super::unable::not_begun;
use super::super::verdict::cancelled;
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

    /// Another agent has the job, or may have it: this attempt ends without a terminal status.
    pub(super) fn yielded(&mut self) {
        self.interrupted(
            Reason::LeaseLost,
            "another agent of the pool has the job, or may have it",
        );
        self.job.phase = Phase::Yielded;
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
