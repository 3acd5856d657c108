//! Writing a decision down; and beside it the one thing that does not wait for that: the end of a
//! container whose time is up, or that somebody wants stopped.
//!
//! What must hold: however long the journal is stuck, a container gets its signal when it is due;
//! nothing else is done for a job before all that was decided for it is written down; somebody who
//! asked is told "yes" only once that is so.

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

/// A journal that works has answered by then: so the decision to stop a container lies in it before
/// the signal, but where it is stuck.
const HEAD_START: Duration = Duration::from_millis(250);

/// An engine that did not stop a container is asked again so soon, while the journal is stuck.
const ENGINE_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// The journal is tried again so soon.
const JOURNAL_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Where a job stands, once it is written down.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) job: Job,
    /// How its container ended meanwhile.
    pub(super) ended: Option<Event>,
}

/// The journal has the job elsewhere than its task: another task moved it, which is a defect.
#[derive(Debug)]
pub(super) struct Superseded;

/// Who is told that the request to stop took effect.
pub(super) type Asker = oneshot::Sender<bool>;

/// Writes down what follows from `event`, and answers who asked for it.
pub(super) async fn advance<E: Effects, C: Clock>(
    job: Job,
    event: Event,
    asker: Option<Asker>,
    effects: &E,
    desk: &Desk<C>,
    stops: &mut mpsc::Receiver<StopRequest>,
) -> Result<Moved, Superseded> {
    let Some(moved) = decided(&job, &event, desk) else {
        // A defect: the same step would give the same event. Slow, so that it can't spin.
        desk.clock.sleep(Duration::from_secs(10)).await;
        return Ok(Moved { job, ended: None });
    };
    Ok(match write_beside(&event, &moved, asker, effects, desk, stops).await? {
        Meanwhile::Nothing => Moved { job: moved.job, ended: None },
        Meanwhile::Ended(event) => Moved { job: moved.job, ended: Some(event) },
        Meanwhile::Stopped(job, event) => Moved { job: *job, ended: Some(event) },
    })
}

/// What happened while a decision was written down.
enum Meanwhile {
    Nothing,
    /// The container that was to be stopped ended.
    Ended(Event),
    /// A container that ran had to be stopped, and ended: the job then.
    Stopped(Box<Job>, Event),
}

/// Writes a decision down. Where that takes long, the job's container is stopped meanwhile, if it has
/// to be.
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
            // Not even its start is written down, and it has to end.
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

/// What follows from `event`; `None`, and an error in the log, where it does not belong to the job's phase.
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

/// Waits until the container has to end: its time is up, or somebody asks.
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

/// Ends the container of a job that is being stopped, while that is being written down; how it
/// ended.
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

/// Until it is written down nothing goes on; a full disk is waited for.
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
        // Who asked may have gone away.
        asker.send(true).ok();
    }
    Ok(())
}
