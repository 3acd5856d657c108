//! One task a job: asks the plan what comes next, has it done, writes down what happened.
//!
//! What must hold: nothing is done for a job that the journal does not hold the reason for; what ends
//! it is signed before it is written down; this
//! file decides nothing (`job::plan` does) and touches nothing outside (`Effects` do).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::board::{Board, StopRequest};
use super::effects::Effects;
use super::notary::Notary;
use super::post;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::container::{Found, FoundState};
use crate::failpoint;
use crate::job::phase::{Event, Fault, Phase, Retry, Rules, Transition};
use crate::job::plan::{Next, Step, expires_at, next_step};
use crate::job::{Job, JobId, Reason};
use crate::journal::{self, Journal};
use crate::supervise;

/// What a job's task needs beside the effects.
#[derive(Debug, Clone)]
pub struct Desk<C> {
    /// Where decisions are written down.
    pub journal: Journal,
    /// The jobs in hand.
    pub board: Board,
    /// The time.
    pub clock: C,
    /// The owner's rules.
    pub rules: Rules,
    /// Rung when there are statuses to publish.
    pub outbox: Arc<Notify>,
    /// Signs those that are terminal, before they are written down.
    pub notary: Notary,
}

/// Takes a job from where it stands as far as it goes.
pub async fn drive<E: Effects, C: Clock>(
    mut job: Job,
    effects: &E,
    desk: &Desk<C>,
    mut stops: mpsc::Receiver<StopRequest>,
) {
    let _seat = Seat(&desk.board, job.id().clone());
    loop {
        if !is_about_to_start(&job)
            && let Ok(request) = stops.try_recv()
        {
            job = stop(job, request, desk).await;
            continue;
        }
        let event = match next_step(&job, desk.clock.now()) {
            Next::Rest => break,
            Next::Apply(event) => Some(event),
            Next::Wait(until) => {
                let wait = until.since(desk.clock.now());
                tokio::select! {
                    biased;
                    () = desk.clock.sleep(wait) => None,
                    Some(request) = stops.recv(), if !is_about_to_start(&job) => {
                        job = stop(job, request, desk).await;
                        None
                    }
                }
            }
            Next::Do(step) if step.can_be_cut_short() => {
                tokio::select! {
                    biased;
                    event = perform(&job, step, effects, desk) => Some(event),
                    () = until_expiry(&job, &desk.clock) => Some(Event::Expired),
                    Some(request) = stops.recv() => {
                        job = stop(job, request, desk).await;
                        None
                    }
                }
            }
            // Who is to stop is not started for it first.
            Next::Do(Step::Start) if !stops.is_empty() => Some(look(&job, effects, desk).await),
            Next::Do(step) => Some(perform(&job, step, effects, desk).await),
        };
        if let Some(event) = event {
            job = advance(job, event, desk).await;
        }
    }
}

async fn perform<E: Effects, C: Clock>(
    job: &Job,
    step: Step,
    effects: &E,
    desk: &Desk<C>,
) -> Event {
    failpoint::hit(step.name(), ".before");
    let event = if step.is_message() {
        post::perform(job, step, effects, desk).await
    } else {
        effects.perform(job, step).await
    };
    failpoint::hit(step.name(), ".after");
    event
}

/// Starts the container only where it was started before: then its run is taken up, to be stopped.
async fn look<E: Effects, C: Clock>(job: &Job, effects: &E, desk: &Desk<C>) -> Event {
    let found = match effects.containers().await {
        Ok(found) => found,
        Err(err) => {
            let fault = Fault::new(Reason::NodeFault, supervise::chain(&err));
            return Event::Failed { fault, retry: Retry::Always };
        }
    };
    let never_ran = |found: &Found| {
        let same = found.job_id.as_ref() == Some(job.id()) && found.attempt == job.attempt;
        same && found.state == FoundState::Created
    };
    if found.iter().any(never_ran) {
        Event::NeverRan
    } else {
        perform(job, Step::Start, effects, desk).await
    }
}

/// A container that may run already, without an answer, can be stopped once that is known, and not
/// before: a request waits until then.
const fn is_about_to_start(job: &Job) -> bool {
    matches!(job.phase, Phase::Starting { container: Some(_), .. })
}

/// Lasts until the job is given up, or for ever.
async fn until_expiry<C: Clock>(job: &Job, clock: &C) {
    match expires_at(job) {
        Some(deadline) => clock.sleep(deadline.since(clock.now())).await,
        None => std::future::pending().await,
    }
}

/// Takes a job off the board when its task ends, however it ends.
struct Seat<'a>(&'a Board, JobId);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.leave(&self.1);
    }
}

/// Writes down what follows from `event`; the job as it stands then.
async fn advance<C: Clock>(job: Job, event: Event, desk: &Desk<C>) -> Job {
    let now = desk.clock.now();
    match job.apply(event.clone(), now, &desk.rules) {
        Ok(mut moved) => {
            desk.notary.sign(&mut moved.statuses);
            tell(&job, &event, &moved);
            record(&event, &moved, desk).await;
            desk.board.moved(&moved.job);
            if !moved.statuses.is_empty() {
                desk.outbox.notify_one();
            }
            moved.job
        }
        Err(err) => {
            // A defect: the same step would give the same event. Slow, so that it can't spin.
            tracing::error!(job.id = %job.id(), "job {}: {err}", job.id());
            desk.clock.sleep(Duration::from_secs(10)).await;
            job
        }
    }
}

/// A request to stop takes effect where the phase knows it; the asker is told either way.
async fn stop<C: Clock>(job: Job, request: StopRequest, desk: &Desk<C>) -> Job {
    let event = Event::StopAsked { cause: request.cause };
    let possible = job.apply(event.clone(), desk.clock.now(), &desk.rules).is_ok();
    let job = if possible { advance(job, event, desk).await } else { job };
    // The asker may have gone away.
    request.answer.send(possible).ok();
    job
}

/// Until it is written down nothing goes on; a full disk is waited for.
async fn record<C: Clock>(event: &Event, moved: &Transition, desk: &Desk<C>) {
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut failures = 0;
    while let Err(err) = desk.journal.record(event, moved, desk.clock.now()).await {
        failures += 1;
        let id = moved.job.id();
        let text = supervise::chain(&err);
        if matches!(err, journal::Error::Full) {
            tracing::error!(job.id = %id, "job {id} waits: {text}; make room on the disk");
        } else {
            tracing::error!(job.id = %id, "job {id} can't be written down: {text}");
        }
        desk.clock.sleep(backoff.jittered(failures)).await;
    }
}

/// One line a change of state, at the level that its news deserve.
fn tell(job: &Job, event: &Event, moved: &Transition) {
    let (id, phase) = (job.id(), moved.job.phase.name());
    match (event, moved.job.phase.outcome()) {
        (Event::Failed { fault, .. }, None) => {
            let reason = fault.reason.code();
            tracing::warn!(job.id = %id, reason, "job {id}: {}; tried again", fault.error);
        }
        (_, Some(outcome)) if !moved.statuses.is_empty() => {
            use crate::job::phase::Outcome;
            let (word, fault) = match outcome {
                Outcome::Completed => ("completed", None),
                Outcome::Failed(fault) => ("failed", Some(fault)),
                Outcome::TimedOut(fault) => ("timed out", Some(fault)),
                Outcome::Cancelled(fault) => ("was cancelled", Some(fault)),
            };
            let reason = fault.map(|fault| fault.reason.code());
            let error = fault.map(|fault| format!(": {}", fault.error)).unwrap_or_default();
            tracing::info!(job.id = %id, reason, "job {id} {word}{error}");
        }
        _ => tracing::debug!(job.id = %id, event = event.name(), phase, "job {id}: {phase}"),
    }
}
