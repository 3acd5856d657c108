//! What each event means in each phase: the arrows of the diagram in [`super::phase`].
//!
//! Invariants: every pair of phase and event is a transition or an error; time and settings are
//! arguments; the statuses of a transition continue the job's numbering.

mod failure;
mod stop;

use std::time::Duration;

use super::phase::{
    Durable, EndedRun, Ending, Event, Job, Kept, LOST_MAX, Misplaced, Outcome, Phase, PinnedImage,
    Rules, Run, RunExit, StopCause, Transition, Trouble, misplaced,
};
use super::reason::Reason;
use super::status::{Stage, Status};
use super::verdict::{poisoned, terminal, verdict};
use super::{notice, patience};
use crate::clock::Timestamp;
use crate::node::GpuUuid;

impl Job {
    /// The new state after `event`, with the statuses that follow from it; an error if the event does not
    /// belong to the job's phase.
    pub fn apply(
        &self,
        event: Event,
        now: Timestamp,
        rules: &Rules,
    ) -> Result<Transition, Misplaced> {
        let mut next = Next {
            job: self.clone(),
            now,
            statuses: Vec::new(),
            durable: None,
            kept: None,
            keep: rules.result_keep,
        };
        // A job whose claim can't be written goes back a phase and forward again, and keeps its trouble;
        // so does one whose card failed. Any other change of phase drops it.
        let claims = matches!(event, Event::Failed { .. } | Event::Reserved { .. });
        next.step(event, rules)?;
        next.job.revision += 1;
        if next.job.phase != self.phase {
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
}

/// A transition under construction.
struct Next {
    job: Job,
    now: Timestamp,
    statuses: Vec<Status>,
    durable: Option<Durable>,
    kept: Option<Kept>,
    /// How long an output is kept if it could not be published.
    keep: Duration,
}

impl Next {
    fn step(&mut self, event: Event, rules: &Rules) -> Result<(), Misplaced> {
        let phase = self.job.phase.clone();
        match event {
            Event::Failed { fault, retry } => self.failed(phase, fault, retry, rules),
            Event::Expired => self.expired(&phase),
            Event::StopAsked { cause } => self.stop_asked(phase, cause),
            event => match &phase {
                Phase::Accepted
                | Phase::Pulled { .. }
                | Phase::Ready { .. }
                | Phase::Claiming { .. } => self.until_start(phase, event),
                Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {
                    self.while_running(phase, event, rules)
                }
                Phase::Exited { .. }
                | Phase::Collected { .. }
                | Phase::Published { .. }
                | Phase::Concluding { .. } => self.until_terminal(phase, event),
                _ => self.leaving(phase, event),
            },
        }
    }

    /// Events from the delivery to the start.
    fn until_start(&mut self, phase: Phase, event: Event) -> Result<(), Misplaced> {
        match (phase, event) {
            (Phase::Accepted, Event::Pulling { progress }) => {
                self.statuses.push(notice::pulling(&mut self.job, progress, self.now));
            }
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
            (Phase::Claiming { .. }, Event::Outbid) => self.yielded(),
            (Phase::Claiming { .. }, Event::Poisoned) => self.finish(Outcome::Failed(poisoned())),
            (Phase::Ready { image } | Phase::Claiming { image, .. }, Event::Doubted) => {
                self.job.phase = Phase::Pulled { image };
            }
            (phase, event) => return Err(misplaced(&phase, &event)),
        }
        Ok(())
    }

    fn starting(&mut self, image: PinnedImage, gpus: Vec<GpuUuid>) {
        self.job.phase = Phase::Starting { image, gpus, container: None };
        self.durable = Some(Durable::Starting);
    }

    /// Events from the container's creation to its exit.
    fn while_running(
        &mut self,
        phase: Phase,
        event: Event,
        rules: &Rules,
    ) -> Result<(), Misplaced> {
        match (phase, event) {
            (Phase::Starting { image, gpus, .. }, Event::Created { container }) => {
                self.job.phase = Phase::Starting { image, gpus, container: Some(container) };
            }
            (Phase::Starting { image, gpus, .. }, Event::NeverRan) => {
                self.job.phase = Phase::Starting { image, gpus, container: None };
            }
            (Phase::Starting { image, gpus, .. }, Event::Doubted) => {
                self.job.phase = Phase::Claiming { image, gpus };
            }
            (Phase::Starting { image, gpus, .. }, Event::Started { container, at }) => {
                let kill_at = self.kill_at(at, rules);
                let run = Run { image, gpus, container, started_at: at, kill_at };
                self.job.phase = Phase::Running { run };
                self.say(Stage::Running);
            }
            (Phase::Starting { .. } | Phase::Running { .. }, Event::Lost) => self.lost(),
            (Phase::Running { run }, Event::TimeIsUp) => {
                let at_deadline = self.job.spec.deadline.is_some_and(|at| at <= run.kill_at);
                let cause = if at_deadline { StopCause::Deadline } else { StopCause::Timeout };
                self.job.phase = Phase::Stopping { run, cause };
            }
            (Phase::Running { run }, Event::Exited { exit, .. }) => self.exited(run, exit, None),
            (Phase::Running { run }, Event::CardFailed { exit }) => {
                self.exited(run, exit, Some(StopCause::GpuFailed));
            }
            // What was decided before the card failed stands: a cancelled job must not run again.
            (Phase::Stopping { run, cause }, Event::CardFailed { exit }) => {
                self.exited(run, exit, Some(cause));
            }
            (Phase::Stopping { run, cause }, Event::Exited { exit, by_itself }) => {
                // A container that had already ended by itself was not ended by the stop.
                let by_itself = by_itself.unwrap_or_else(|| {
                    let signalled = matches!(exit.code, Some(137 | 143));
                    !signalled && exit.finished_at < self.job.since
                });
                // One that was found above its disk limit, and failed meanwhile, failed for that.
                let failed_full = cause == StopCause::DiskExceeded && exit.code != Some(0);
                self.exited(run, exit, (!by_itself || failed_full).then_some(cause));
            }
            (Phase::Stopping { run, cause }, Event::Lost) => {
                let (started_at, finished_at) = (run.started_at, self.now);
                let exit = RunExit {
                    code: None,
                    oom: false,
                    hint: None,
                    started_at,
                    finished_at,
                    usage: None,
                };
                self.exited(run, exit, Some(cause));
            }
            (Phase::Stopping { .. }, Event::TimeIsUp) => {}
            (phase, event) => return Err(misplaced(&phase, &event)),
        }
        Ok(())
    }

    /// Events from the container's exit to the terminal status.
    fn until_terminal(&mut self, phase: Phase, event: Event) -> Result<(), Misplaced> {
        match (phase, event) {
            // A power cut may have destroyed the output before it was synced.
            (Phase::Exited { .. }, Event::Lost) => self.lost(),
            (Phase::Exited { run, exit, cause }, Event::Collected { output, log }) => {
                let (outcome, output) = match output {
                    Ok(sealed) => (verdict(&run, &exit, cause, &self.job), sealed),
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
            (Phase::Published { ended, output, log }, Event::Attested { receipt, usage }) => {
                let kept = ended.outcome.keeps_output() && ended.output.is_some();
                // The run as it was before publishing was given up.
                let as_it_was = || EndedRun { outcome: Outcome::Completed, ..ended.clone() };
                let kept = kept.then(|| Box::new(as_it_was()));
                let notes = ended.output.filter(|_| output.is_some()).map(|sealed| sealed.notes);
                let ending = Ending {
                    outcome: ended.outcome,
                    output,
                    log,
                    exit_code: ended.exit.code,
                    receipt: Some(receipt),
                    usage,
                    notes: notes.unwrap_or_default(),
                    kept,
                };
                self.conclude(ending);
            }
            (Phase::Concluding { .. }, Event::Outbid) => self.yielded(),
            (Phase::Concluding { ending }, Event::Concluded) => self.end(ending),
            (phase, event) => return Err(misplaced(&phase, &event)),
        }
        Ok(())
    }

    /// Events after the terminal status, and on the way back to the queue.
    fn leaving(&mut self, phase: Phase, event: Event) -> Result<(), Misplaced> {
        match (phase, event) {
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
            (Phase::Waiting, Event::Outbid) => self.job.phase = Phase::EndedElsewhere,
            (Phase::Waiting, Event::Resumed) => self.again(),
            (phase, event) => return Err(misplaced(&phase, &event)),
        }
        Ok(())
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
        if cause == Some(StopCause::GpuFailed) {
            self.job.lost += 1;
            if self.job.lost < LOST_MAX {
                let error = "a GPU failed while the job had it; the job will run again";
                self.interrupted(Reason::GpuFailed, error);
                self.job.phase = Phase::Interrupted;
                return;
            }
        }
        self.job.durations.run = Some(ms(exit.finished_at.since(exit.started_at)));
        self.job.phase = Phase::Exited { run, exit, cause };
    }

    /// The end of a job whose container never ran.
    fn finish(&mut self, outcome: Outcome) {
        self.conclude(Ending::unrun(outcome));
    }

    /// How the job ended is known; a pool's job may be ended only by the agent that holds its claim.
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
        status.usage = ending.usage;
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

    /// Milliseconds that the job spent in the phase that it leaves.
    fn spent(&self) -> u64 {
        ms(self.now.since(self.job.since))
    }

    fn kill_at(&self, started_at: Timestamp, rules: &Rules) -> Timestamp {
        let by_timeout = started_at.plus(self.job.spec.timeout.min(rules.timeout_max));
        self.job.spec.deadline.map_or(by_timeout, |deadline| deadline.min(by_timeout))
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
