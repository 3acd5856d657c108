//! Journals a decision; and meanwhile does the one thing that does not wait for the journal: stops
//! a container whose time is up, or that somebody asked to stop.
//!
//! Invariants: however long the journal is stuck, a container gets its signal when it is due.
//! Nothing else is done for a job before all its decisions are journaled. A stop request is
//! answered "yes" only after that.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::perform;
use crate::agent::jobs::board::StopRequest;
use crate::agent::jobs::desk::{self, Desk};
use crate::agent::jobs::effects::Effects;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::job::Job;
use crate::job::phase::{Event, Phase, Run, Transition};
use crate::job::plan::{Next, Step, ends_at, next_step};
use crate::{journal, report};

/// A working journal answers within this time. So unless the journal is stuck, the decision to stop
/// a container is journaled before the signal.
const HEAD_START: Duration = Duration::from_millis(250);

/// Backoff between attempts to stop a container while the journal is stuck.
const ENGINE_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// Backoff between attempts to write to the journal.
const JOURNAL_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// A job after its transition was journaled.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) job: Job,
    /// How its container ended meanwhile, if it was stopped.
    pub(super) ended: Option<Event>,
}

/// The journal has another revision of the job than its task: another task moved it, a defect.
#[derive(Debug)]
pub(super) struct Superseded;

/// Receives the answer to a stop request.
pub(super) type Asker = oneshot::Sender<bool>;

/// Decides and journals the transition that follows from `event`, and answers the asker.
pub(super) async fn advance<E: Effects, C: Clock>(
    job: Job,
    event: Event,
    asker: Option<Asker>,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Result<Moved, Superseded> {
    let Some(moved) = decided(&job, &event, desk) else {
        // A defect: the same step would produce the same event. Sleep, so that it can't spin.
        desk.clock.sleep(Duration::from_secs(10)).await;
        return Ok(Moved { job, ended: None });
    };
    Ok(match write_beside(&event, &moved, asker, effects, desk, stops).await? {
        Meanwhile::Nothing => Moved { job: moved.job, ended: None },
        Meanwhile::Ended(event) => Moved { job: moved.job, ended: Some(event) },
        Meanwhile::Stopped(job, event) => Moved { job: *job, ended: Some(event) },
    })
}

/// What happened while a decision was being journaled.
enum Meanwhile {
    Nothing,
    /// The container that was being stopped has ended.
    Ended(Event),
    /// A running container had to be stopped and has ended: the job in its new phase.
    Stopped(Box<Job>, Event),
}

/// Journals a decision. If that takes long, stops the job's container meanwhile if it must end.
async fn write_beside<E: Effects, C: Clock>(
    event: &Event,
    moved: &Transition,
    asker: Option<Asker>,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Result<Meanwhile, Superseded> {
    let mut writing = pin!(write(event, moved, asker, desk));
    match &moved.job.phase {
        Phase::Stopping { .. } => {
            tokio::select! {
                biased;
                done = &mut writing => return done.map(|()| Meanwhile::Nothing),
                () = desk.clock.sleep(HEAD_START) => {}
            }
            end_beside(writing, &moved.job, effects, desk).await.map(Meanwhile::Ended)
        }
        Phase::Running { run } => {
            let (event, asker) = tokio::select! {
                biased;
                done = &mut writing => return done.map(|()| Meanwhile::Nothing),
                due = stop_is_due(&moved.job, run, stops, desk) => due,
            };
            // It must end, although not even its start is journaled.
            let Some(stopping) = decided(&moved.job, &event, desk) else {
                return writing.await.map(|()| Meanwhile::Nothing);
            };
            let writing = async {
                writing.await?;
                write(&event, &stopping, asker, desk).await
            };
            let ended = end_beside(writing, &stopping.job, effects, desk).await?;
            Ok(Meanwhile::Stopped(Box::new(stopping.job), ended))
        }
        _ => writing.await.map(|()| Meanwhile::Nothing),
    }
}

/// The transition that follows from `event`; `None`, with an error in the log, if the event is not
/// valid in the job's phase.
fn decided<C: Clock>(job: &Job, event: &Event, desk: &Desk<C>) -> Option<Transition> {
    match desk.decide(job, event) {
        Ok(moved) => {
            desk::tell(job, event, &moved);
            Some(moved)
        }
        Err(err) => {
            tracing::error!(job.id = %job.id(), "job {}: {err}", job.id());
            None
        }
    }
}

/// Waits until the container must end: its time is up, or a stop request comes.
async fn stop_is_due<C: Clock>(
    job: &Job,
    run: &Run,
    stops: &mut mpsc::Receiver<StopRequest>,
    desk: &Desk<C>,
) -> (Event, Option<Asker>) {
    let now = desk.clock.now();
    if let Next::Apply(event) = next_step(job, now) {
        return (event, None);
    }
    tokio::select! {
        biased;
        () = desk.clock.sleep_until(ends_at(run, now)) => (Event::TimeIsUp, None),
        Some(request) = stops.recv() => {
            (Event::StopAsked { cause: request.cause }, Some(request.answer))
        }
    }
}

/// Stops the container of a job while that decision is being journaled. Returns how it ended.
async fn end_beside<E: Effects, C: Clock>(
    writing: impl Future<Output = Result<(), Superseded>>,
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<Event, Superseded> {
    tracing::warn!(job.id = %job.id(), "job {} is stopped though the journal is stuck", job.id());
    let is_written = AtomicBool::new(false);
    let writing = async {
        let done = writing.await;
        is_written.store(true, Ordering::Relaxed);
        done
    };
    let ending = async {
        let mut failures = 0;
        loop {
            let event = perform(job, Step::Stop, effects, desk).await;
            let is_done = !matches!(event, Event::Failed { .. });
            if is_done || is_written.load(Ordering::Relaxed) {
                return event;
            }
            failures += 1;
            desk.clock.sleep(ENGINE_AGAIN.jittered(failures)).await;
        }
    };
    let (done, event) = tokio::join!(writing, ending);
    done.map(|()| event)
}

/// Journals a transition, retrying as long as it takes, also on a full disk.
async fn write<C: Clock>(
    event: &Event,
    moved: &Transition,
    asker: Option<Asker>,
    desk: &Desk<C>,
) -> Result<(), Superseded> {
    let mut failures = 0;
    while let Err(err) = desk.record(event, moved).await {
        failures += 1;
        let id = moved.job.id();
        let text = report::causes(&err);
        match err {
            journal::Error::Superseded { .. } => {
                tracing::error!(job.id = %id, "job {id} is let go: {text}");
                return Err(Superseded);
            }
            journal::Error::Full => {
                tracing::error!(job.id = %id, "job {id} waits: {text}; make room on the disk");
            }
            _ => tracing::error!(job.id = %id, "job {id} can't be written down: {text}"),
        }
        desk.clock.sleep(JOURNAL_AGAIN.jittered(failures)).await;
    }
    if let Some(asker) = asker {
        // The asker may be gone.
        asker.send(true).ok();
    }
    Ok(())
}
