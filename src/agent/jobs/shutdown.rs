//! Orderly shutdown: no more jobs are taken, running ones get their grace period, the last statuses
//! are sent.
//!
//! Invariants: every wait here is bounded. Jobs that are left over are resumed at the next start.

use std::time::Duration;

use super::effects::Effects;
use super::intake::Intake;
use crate::agent::settings::Settings;
use crate::clock::Clock;
use crate::ids::JobId;
use crate::job::phase::StopCause;

/// How long the last statuses may take to be sent, once the jobs have been stopped.
pub(in crate::agent) const FLUSH: Duration = Duration::from_secs(10);

/// How running jobs end at a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// Whether running jobs are left to the next start.
    pub keep_jobs: bool,
    /// How long running jobs may continue, so that they can finish.
    pub shutdown: Duration,
    /// How long a container may take to end after its signal.
    pub stop: Duration,
}

impl Graces {
    /// The owner's settings. If not `graceful`, running jobs are left to the next start.
    pub(in crate::agent) const fn of(settings: &Settings, graceful: bool) -> Self {
        Self {
            keep_jobs: settings.keep_jobs || !graceful,
            shutdown: settings.shutdown_grace,
            stop: settings.stop_grace,
        }
    }
}

/// Stops the intake, gives running jobs their grace period, and hands back the rest. Call
/// [`let_out`] afterwards.
pub async fn wind_down<E: Effects, C: Clock + Clone>(intake: &Intake<E, C>, graces: Graces) {
    let (board, clock) = (&intake.jobs.desk.board, &intake.jobs.desk.clock);
    board.close();
    // Deliveries being handled right now are still journaled.
    within(clock, FLUSH, intake.closed()).await;
    if graces.keep_jobs {
        tracing::info!("leaving running jobs to the next start");
    } else {
        stop_all(intake, board.ids(Some(false))).await;
        let running = board.ids(None).len();
        let seconds = graces.shutdown.as_secs();
        if running > 0 {
            tracing::info!(running, "waiting up to {seconds} s for {running} jobs");
        }
        within(clock, graces.shutdown, board.wait_until_at_rest()).await;
        stop_all(intake, [board.ids(Some(false)), board.ids(Some(true))].concat()).await;
        if within(clock, graces.stop + FLUSH, board.wait_until_at_rest()).await.is_none() {
            let left = board.ids(None).len();
            tracing::warn!(left, "{left} jobs are taken back at the next start");
        }
    }
}

/// Waits up to `FLUSH` for the last statuses to be sent.
pub async fn let_out<E: Effects, C: Clock + Clone>(intake: &Intake<E, C>) {
    within(&intake.jobs.desk.clock, FLUSH, flush(intake)).await;
}

async fn stop_all<E: Effects, C: Clock + Clone>(intake: &Intake<E, C>, ids: Vec<JobId>) {
    let desk = &intake.jobs.desk;
    let stops = ids.iter().map(|id| desk.board.stop(id, StopCause::Shutdown));
    within(&desk.clock, FLUSH, futures_util::future::join_all(stops)).await;
}

/// Waits until every status is sent.
async fn flush<E: Effects, C: Clock + Clone>(intake: &Intake<E, C>) {
    let desk = &intake.jobs.desk;
    while desk.journal.unsent_count().await.is_ok_and(|count| count > 0) {
        desk.outbox.notify_one();
        desk.clock.sleep(Duration::from_millis(20)).await;
    }
}

/// Runs `work` for at most `span`; `None` if that is over first.
async fn within<T>(clock: &impl Clock, span: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(span) => None,
    }
}
