//! One task a job: asks the plan what comes next, has it done, writes down what happened.
//!
//! What must hold: nothing is done for a job that the journal does not hold the reason for, but that a
//! container which has to end is ended (`record` says when); this file decides nothing (`job::plan` does) and touches nothing outside (`Effects` do).

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

/// Takes a job from where it stands as far as it goes.
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
        // Whoever moved it has it; if nobody has, `recover` finds it.
        let Ok(moved) = moved else {
            seat.is_left_behind = true;
            break;
        };
        (job, ahead) = (moved.job, moved.ended);
    }
}

/// What happens next.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
enum Turn {
    /// Nothing, until something comes from outside.
    Done,
    /// Time has gone by: the plan is asked again.
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
        // `leases` asks again each second for as long as this one is lost.
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
        // Don't start a job only to stop it.
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

/// Starts the container only where it was started before: then its run is taken up, to be stopped.
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

/// A container that may run already, without an answer, can be stopped once that is known, and not
/// before: a request waits until then.
const fn is_about_to_start(job: &Job) -> bool {
    matches!(job.phase, Phase::Starting { container: Some(_), .. })
}

/// Lasts until the job is given up, or for ever.
async fn until_expiry<C: Clock>(job: &Job, clock: &C) {
    match expires_at(job) {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A request to stop takes effect where the phase knows it; the asker is told either way.
async fn stop<E: Effects, C: Clock>(
    job: Job,
    request: StopRequest,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Result<Moved, Superseded> {
    let event = Event::StopAsked { cause: request.cause };
    if job.apply(event.clone(), desk.clock.now(), &desk.rules).is_ok() {
        advance(job, event, Some(request.answer), effects, desk, stops).await
    } else {
        // The asker may have gone away.
        request.answer.send(false).ok();
        Ok(Moved { job, ended: None })
    }
}

/// Takes a job off the board when its task ends. A task that panics, or does not know where its job
/// stands, may leave a container that runs: what that holds stays its own until `recover` has taken
/// the job up again.
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
