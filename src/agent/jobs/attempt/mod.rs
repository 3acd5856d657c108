//! The task of a job: asks the plan for the next step, has it performed, and journals the result.
//!
//! Invariants: nothing is done for a job unless the journal holds the reason, except that a
//! container which must end is stopped (see `record`). This module decides nothing (`job::plan`
//! does) and touches nothing outside the agent (`Effects` do).

mod record;

use tokio::sync::mpsc;

use super::board::{Board, StopRequest};
use super::desk::Desk;
use super::effects::Effects;
use super::messages;
use crate::clock::Clock;
use crate::container::{Found, FoundState};
use crate::ids::JobId;
use crate::job::phase::{Event, Fault, Phase, Retry, StopCause};
use crate::job::plan::{Next, Step, expires_at, next_step};
use crate::job::{Job, Reason};
use crate::{failpoint, report};

use record::{Moved, Superseded, advance};

/// Drives a job from its present phase as far as it goes.
pub async fn drive<E: Effects, C: Clock>(
    mut job: Job,
    effects: &E,
    desk: &Desk<C>,
    mut stops: mpsc::Receiver<StopRequest>,
) {
    let mut seat = Seat { board: &desk.board, id: job.id().clone(), is_left_behind: false };
    let mut ahead = None;
    loop {
        let turn = match ahead.take() {
            Some(event) => Turn::Happened(event),
            None => turn(&job, effects, desk, &mut stops).await,
        };
        let moved = match turn {
            Turn::Done => break,
            Turn::Again => continue,
            Turn::Happened(event) => advance(job, event, None, effects, desk, &mut stops).await,
            Turn::Asked(request) => stop(job, request, effects, desk, &mut stops).await,
        };
        // Another task moved the job and has it; if none has, `recover` finds it.
        let Ok(moved) = moved else {
            seat.is_left_behind = true;
            break;
        };
        (job, ahead) = (moved.job, moved.ended);
    }
}

/// The outcome of one turn of a job's task.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
enum Turn {
    /// Nothing is left to do until something comes from outside: the task ends.
    Done,
    /// Time has passed: ask the plan again.
    Again,
    Happened(Event),
    Asked(StopRequest),
}

async fn turn<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Turn {
    let may_be_asked = !is_about_to_start(job);
    while may_be_asked && let Ok(request) = stops.try_recv() {
        // `leases` repeats the request every second as long as the lease is lost.
        let is_stale = request.cause == StopCause::LeaseLost && request.answer.is_closed();
        if !is_stale {
            return Turn::Asked(request);
        }
    }
    match next_step(job, desk.clock.now()) {
        Next::Rest => Turn::Done,
        Next::Apply(event) => Turn::Happened(event),
        Next::Wait(until) => tokio::select! {
            biased;
            () = desk.clock.sleep_until(until) => Turn::Again,
            Some(request) = stops.recv(), if may_be_asked => Turn::Asked(request),
        },
        Next::Do(step) if step.can_be_cut_short() => tokio::select! {
            biased;
            event = perform(job, step, effects, desk) => Turn::Happened(event),
            () = until_expiry(job, &desk.clock) => Turn::Happened(Event::Expired),
            Some(request) = stops.recv() => Turn::Asked(request),
        },
        // Don't start a container only to stop it.
        Next::Do(Step::Start) if !stops.is_empty() => {
            Turn::Happened(look(job, effects, desk).await)
        }
        Next::Do(step) => Turn::Happened(perform(job, step, effects, desk).await),
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
        messages::perform(job, step, effects, desk).await
    } else {
        effects.perform(job, step).await
    };
    failpoint::hit(step.name(), ".after");
    event
}

/// For a job that is asked to stop: `NeverRan` if its container was never started. Otherwise
/// performs `Start`, which takes up the run so that it can be stopped.
async fn look<E: Effects, C: Clock>(job: &Job, effects: &E, desk: &Desk<C>) -> Event {
    let found = match effects.containers().await {
        Ok(found) => found,
        Err(err) => {
            tracing::warn!(job.id = %job.id(), "job {}: {}", job.id(), report::causes(&err));
            let error = "the node's container engine can't say what runs";
            return Event::Failed {
                fault: Fault::new(Reason::NodeFault, error),
                retry: Retry::Always,
            };
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

/// Whether the container may be running although its start is not confirmed: it can be stopped only
/// once that is known, so requests wait until then.
const fn is_about_to_start(job: &Job) -> bool {
    matches!(job.phase, Phase::Starting { container: Some(_), .. })
}

/// Completes when the deadline of a job that has not run yet passes; otherwise never.
async fn until_expiry<C: Clock>(job: &Job, clock: &C) {
    match expires_at(job) {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Handles a stop request: it takes effect if the job's phase allows. The asker is answered either
/// way.
async fn stop<E: Effects, C: Clock>(
    job: Job,
    request: StopRequest,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Result<Moved, Superseded> {
    let event = Event::StopAsked { cause: request.cause };
    // Nothing is left that writes: what it left is judged when it is collected.
    let is_late = request.cause.is_the_disk() && desk.board.has_exited(job.id());
    if !is_late && job.apply(event.clone(), desk.clock.now(), &desk.rules).is_ok() {
        advance(job, event, Some(request.answer), effects, desk, stops).await
    } else {
        // The asker may be gone.
        request.answer.send(false).ok();
        Ok(Moved { job, ended: None })
    }
}

/// Takes a job off the board when its task ends. A task that panics, or whose job was moved by
/// another, may leave a running container: the job keeps what it holds until `recover` resumes it.
struct Seat<'a> {
    board: &'a Board,
    id: JobId,
    is_left_behind: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.is_left_behind || std::thread::panicking() {
            self.board.abandon(&self.id);
        } else {
            self.board.leave(&self.id);
        }
    }
}

#[cfg(test)]
mod tests;
