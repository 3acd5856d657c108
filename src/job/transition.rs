//! What each event means in each phase: the arrows of the picture in [`super::phase`].
//!
//! What must hold: every arm is total over what it can meet; time and settings are arguments; the
//! statuses of a transition are numbered on from the job's last.

use std::time::Duration;

use super::phase::{
    Durable, EndedRun, Ending, Event, Fault, Job, Kept, LOST_MAX, Misplaced, Outcome, Phase,
    PinnedImage, Retry, Rules, Run, RunExit, StopCause, Transition, Trouble, misplaced,
};
use super::reason::Reason;
use super::status::{Stage, Status};
use super::unable::{IMAGE_GONE_MAX, elsewhere, is_image_gone, not_begun};
use super::verdict::{cancelled, poisoned, terminal, verdict};
use super::{notice, patience};
use crate::clock::Timestamp;
use crate::node::GpuUuid;

pub(super) fn apply(
    job: &Job,
    event: Event,
    now: Timestamp,
    rules: &Rules,
) -> Result<Transition, Misplaced> {
    let mut next = Next {
        job: job.clone(),
        now,
        statuses: Vec::new(),
        durable: None,
        kept: None,
        keep: rules.result_keep,
    };
    // A claim that can't be made goes back a phase and on again: its trouble goes along. All else
    // leaves it behind.
    let claims = matches!(event, Event::Failed { .. } | Event::Reserved { .. });
    next.step(event, rules)?;
    next.job.revision += 1;
    if next.job.phase != job.phase {
        next.job.since = now;
        let keeps = |trouble: &Trouble| patience::goes_along(trouble, &next.job.phase, claims);
        next.job.trouble = next.job.trouble.take().filter(keeps);
    }
    let Next { mut kept, job, statuses, durable, .. } = next;
    if let Some(kept) = &mut kept {
        *kept.job = job.clone();
    }
    Ok(Transition { job, statuses, durable, kept })
}

/// A transition in the making.
struct Next {
    job: Job,
    now: Timestamp,
    statuses: Vec<Status>,
    durable: Option<Durable>,
    kept: Option<Kept>,
    /// How long an output is kept that could not be published.
    keep: Duration,
}

impl Next {
    fn step(&mut self, event: Event, rules: &Rules) -> Result<(), Misplaced> {
        match (self.job.phase.clone(), event) {
            (Phase::Accepted, Event::Pulled { image }) => {
                self.job.durations.pull = Some(self.spent());
                if image.unconfirmed {
                    self.statuses.push(notice::unconfirmed(&mut self.job, self.now));
                }
                self.job.phase = Phase::Pulled { image };
                if self.job.spec.input.is_some() || !self.job.spec.inputs.is_empty() {
                    self.say(Stage::Fetching);
                }
            }
            (Phase::Pulled { image }, Event::Fetched) => {
                self.job.durations.input = Some(self.spent());
                self.job.phase = Phase::Ready { image };
            }
            (Phase::Ready { .. }, Event::Reserved { .. }) if self.is_late() => self.expire(),
            (Phase::Ready { image }, Event::Reserved { gpus }) => {
                self.job.durations.queued = Some(self.spent());
                if self.job.pool().is_some() {
                    self.job.phase = Phase::Claiming { image, gpus };
                } else {
                    self.starting(image, gpus);
                }
            }
            (Phase::Claiming { image, gpus }, Event::Claimed) => self.starting(image, gpus),
            (phase, event) => return self.ran(phase, event, rules),
        }
        Ok(())
    }

    /// The container's life.
    fn ran(&mut self, phase: Phase, event: Event, rules: &Rules) -> Result<(), Misplaced> {
        match (phase, event) {
            (Phase::Starting { image, gpus, .. }, Event::Created { container }) => {
                self.job.phase = Phase::Starting { image, gpus, container: Some(container) };
            }
            (Phase::Starting { image, gpus, .. }, Event::NeverRan) => {
                self.job.phase = Phase::Starting { image, gpus, container: None };
            }
            (Phase::Starting { image, gpus, .. }, Event::Started { container, at }) => {
                let kill_at = self.kill_at(at, rules);
                let run = Run { image, gpus, container, started_at: at, kill_at };
                self.job.phase = Phase::Running { run };
                self.say(Stage::Running);
            }
            (Phase::Running { run }, Event::TimeIsUp) => {
                let at_deadline = self.job.spec.deadline.is_some_and(|at| at <= run.kill_at);
                let cause = if at_deadline { StopCause::Deadline } else { StopCause::Timeout };
                self.job.phase = Phase::Stopping { run, cause };
            }
            (Phase::Running { run }, Event::StopAsked { cause }) => {
                self.job.phase = Phase::Stopping { run, cause };
            }
            (Phase::Running { run }, Event::Exited { exit, .. }) => self.exited(run, exit, None),
            // Exited: what it left may have gone with the host's power before it was synced.
            (
                Phase::Starting { .. } | Phase::Running { .. } | Phase::Exited { .. },
                Event::Lost,
            ) => {
                self.lost();
            }
            (Phase::Stopping { run, cause }, Event::Exited { exit, by_itself }) => {
                // A container that had ended by itself before it was stopped was not ended by that.
                let by_itself = by_itself.unwrap_or_else(|| {
                    let signalled = matches!(exit.code, Some(137 | 143));
                    !signalled && exit.finished_at < self.job.since
                });
                self.exited(run, exit, (!by_itself).then_some(cause));
            }
            (Phase::Stopping { run, cause }, Event::Lost) => {
                let (started_at, finished_at) = (run.started_at, self.now);
                let exit = RunExit { code: None, oom: false, started_at, finished_at };
                self.exited(run, exit, Some(cause));
            }
            (Phase::Stopping { .. }, Event::StopAsked { .. } | Event::TimeIsUp) => {}
            (phase, event) => return self.settled(phase, event, rules),
        }
        Ok(())
    }

    /// From its end to its terminal status.
    fn settled(&mut self, phase: Phase, event: Event, rules: &Rules) -> Result<(), Misplaced> {
        match (phase, event) {
            (Phase::Exited { run, exit, cause }, Event::Collected { output, log }) => {
                let (outcome, output) = match output {
                    Ok(sealed) => (verdict(&exit, cause, &self.job), sealed),
                    Err(fault) => (Outcome::Failed(fault), None),
                };
                if output.is_some() || log.is_some() {
                    self.say(Stage::Uploading);
                }
                let ended = EndedRun { run, exit, outcome, output, log };
                self.job.phase = Phase::Collected { ended, log: None };
            }
            (Phase::Collected { ended, .. }, Event::LogPublished { log }) => {
                self.job.phase = Phase::Collected { ended, log: Some(log) };
            }
            (Phase::Collected { ended, .. }, Event::Published { output, log }) => {
                self.job.durations.output = Some(self.spent());
                self.job.phase = Phase::Published { ended, output, log };
            }
            (Phase::Published { ended, output, log }, Event::Attested { receipt }) => {
                let kept = ended.outcome.keeps_output() && ended.output.is_some();
                // As it was before its publication was given up.
                let as_it_was = || EndedRun { outcome: Outcome::Completed, ..ended.clone() };
                let kept = kept.then(|| Box::new(as_it_was()));
                let notes = ended.output.filter(|_| output.is_some()).map(|sealed| sealed.notes);
                let ending = Ending {
                    outcome: ended.outcome,
                    output,
                    log,
                    exit_code: ended.exit.code,
                    receipt: Some(receipt),
                    notes: notes.unwrap_or_default(),
                    kept,
                };
                self.conclude(ending);
            }
            (phase, event) => return self.turn(phase, event, rules),
        }
        Ok(())
    }

    fn starting(&mut self, image: PinnedImage, gpus: Vec<GpuUuid>) {
        self.job.phase = Phase::Starting { image, gpus, container: None };
        self.durable = Some(Durable::Starting);
    }

    /// The arrows that leave the happy path, and the way out after the terminal status.
    fn turn(&mut self, phase: Phase, event: Event, rules: &Rules) -> Result<(), Misplaced> {
        match (phase, event) {
            (phase, Event::Expired)
                if not_running(&phase) || matches!(phase, Phase::Starting { .. }) =>
            {
                self.expire();
            }
            (phase, Event::StopAsked { cause: StopCause::Cancelled })
                if not_running(&phase) || phase == Phase::Waiting =>
            {
                self.finish(Outcome::Cancelled(cancelled()));
            }
            (phase, Event::StopAsked { cause: StopCause::Shutdown }) if not_running(&phase) => {
                self.job.phase = Phase::Interrupted;
            }
            (phase, Event::StopAsked { cause: StopCause::LeaseLost }) if not_running(&phase) => {
                self.yielded();
            }
            (Phase::Claiming { .. } | Phase::Concluding { .. }, Event::Outbid) => self.yielded(),
            (Phase::Waiting, Event::Outbid) => self.job.phase = Phase::EndedElsewhere,
            (Phase::Claiming { .. }, Event::Poisoned) => self.finish(Outcome::Failed(poisoned())),
            (Phase::Starting { image, gpus, .. }, Event::Doubted) => {
                self.job.phase = Phase::Claiming { image, gpus };
            }
            (Phase::Ready { image } | Phase::Claiming { image, .. }, Event::Doubted) => {
                self.job.phase = Phase::Pulled { image };
            }
            (Phase::Concluding { ending }, Event::Concluded) => self.end(ending),
            (Phase::Ended { outcome }, Event::Removed) => {
                self.job.phase = Phase::Cleaned { outcome };
            }
            (Phase::Cleaned { outcome }, Event::Buried) => {
                self.job.phase = Phase::Buried { outcome };
            }
            (Phase::Cleaned { outcome } | Phase::Buried { outcome }, Event::Acked) => {
                self.job.phase = Phase::Settled { outcome };
            }
            (Phase::Interrupted, Event::Removed) => self.job.phase = Phase::HandingBack,
            (Phase::Yielded, Event::Removed) => self.job.phase = Phase::LettingGo,
            (Phase::HandingBack | Phase::LettingGo, Event::HandedBack) => {
                self.job.phase = Phase::Waiting;
            }
            (Phase::Unable { fault }, Event::Removed) => {
                self.job.phase = Phase::Returning { fault };
            }
            (Phase::Returning { .. }, Event::HandedBack | Event::Outbid) => {
                self.job.phase = Phase::Yielded;
            }
            (Phase::Returning { fault }, Event::Concluded) => {
                self.end(Ending::unrun(Outcome::Failed(fault)));
            }
            (Phase::Waiting, Event::Resumed) => self.again(),
            (phase, Event::Failed { fault, retry }) => self.failed(phase, fault, retry, rules)?,
            (phase, event) => return Err(misplaced(&phase, &event)),
        }
        Ok(())
    }

    fn failed(
        &mut self,
        phase: Phase,
        fault: Fault,
        retry: Retry,
        rules: &Rules,
    ) -> Result<(), Misplaced> {
        if is_image_gone(&phase, &fault) && self.job.image_gone < IMAGE_GONE_MAX {
            // The same attempt: nothing was made for it, and a pool's claim on it stands.
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
                // No card is held while the network is waited for, nor one that does not work:
                // another may.
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

    /// The container is gone and nobody knows how it ended: once more, but not for ever.
    fn lost(&mut self) {
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

    /// Another agent has the job: what was begun here ends without a terminal status.
    fn yielded(&mut self) {
        self.interrupted(
            Reason::LeaseLost,
            "another agent of the pool has the job, or may have it",
        );
        self.job.phase = Phase::Yielded;
    }

    /// Another node of the pool may do better: without a container it is given back at once, though
    /// what would remove its folders may be what is broken.
    fn unable(&mut self, phase: &Phase, fault: Fault) {
        self.interrupted(fault.reason, &fault.error);
        self.job.phase = if matches!(phase, Phase::Starting { container: Some(_), .. }) {
            Phase::Unable { fault }
        } else {
            Phase::Returning { fault }
        };
    }

    fn interrupted(&mut self, reason: Reason, error: &str) {
        self.statuses.push(notice::interrupted(&mut self.job, reason, error, self.now));
    }

    fn again(&mut self) {
        self.job.attempt += 1;
        self.job.phase = Phase::Accepted;
        self.say(Stage::Pulling);
        self.durable = Some(Durable::Accepted);
    }

    fn is_late(&self) -> bool {
        self.job.spec.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    fn expire(&mut self) {
        let error = "the deadline passed before the job could be started";
        self.finish(Outcome::TimedOut(Fault::new(Reason::DeadlinePassed, error)));
    }

    fn exited(&mut self, run: Run, exit: RunExit, cause: Option<StopCause>) {
        self.durable = Some(Durable::Exited);
        if cause == Some(StopCause::Shutdown) {
            let error = "the node is shutting down; the job will run again";
            self.interrupted(Reason::NodeShutdown, error);
            self.job.phase = Phase::Interrupted;
            return;
        }
        if cause == Some(StopCause::LeaseLost) {
            return self.yielded();
        }
        self.job.durations.run = Some(ms(exit.finished_at.since(exit.started_at)));
        self.job.phase = Phase::Exited { run, exit, cause };
    }

    /// The end of a job whose container never ran.
    fn finish(&mut self, outcome: Outcome) {
        self.conclude(Ending::unrun(outcome));
    }

    /// How it ended is known; a pool's job is ended only by who holds its claim.
    fn conclude(&mut self, ending: Ending) {
        if self.job.pool().is_some() {
            self.job.phase = Phase::Concluding { ending };
        } else {
            self.end(ending);
        }
    }

    fn end(&mut self, ending: Ending) {
        let mut status = terminal(&mut self.job, &ending.outcome, self.now);
        status.output_cid = ending.output;
        status.log_cid = ending.log;
        status.exit_code = ending.exit_code;
        status.receipt = ending.receipt;
        status.output_notes = ending.notes;
        self.statuses.push(status);
        self.kept = ending.kept.map(|ended| Kept {
            job: Box::new(self.job.clone()),
            ended: *ended,
            until: self.now.plus(self.keep),
        });
        self.job.phase = Phase::Ended { outcome: ending.outcome };
        self.durable = Some(Durable::Terminal);
    }

    fn say(&mut self, stage: Stage) {
        let status = self.job.say(stage, self.now);
        self.statuses.push(status);
    }

    /// Milliseconds in the phase that is being left.
    fn spent(&self) -> u64 {
        ms(self.now.since(self.job.since))
    }

    fn kill_at(&self, started_at: Timestamp, rules: &Rules) -> Timestamp {
        let by_timeout = started_at.plus(self.job.spec.timeout.min(rules.timeout_max));
        self.job.spec.deadline.map_or(by_timeout, |deadline| deadline.min(by_timeout))
    }
}

/// Nothing of the job was started. A container that was made for it is removed with everything else.
const fn not_running(phase: &Phase) -> bool {
    not_begun(phase) && !matches!(phase, Phase::Starting { container: Some(_), .. })
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A refusal that lasted is a result that could not be published: it is kept like any other.
fn unpublished(fault: Fault) -> Fault {
    if fault.reason == Reason::OutputRefused {
        return Fault { reason: Reason::UploadFailed, ..fault };
    }
    fault
}
