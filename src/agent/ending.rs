//! The end in order: no more jobs are taken, what runs gets its grace, the last statuses leave.
//!
//! What must hold: every wait here is bounded; what is left over is taken back at the next start.

use std::time::Duration;

use super::board::Board;
use super::parts::Parts;
use super::settings::Settings;
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::job::phase::StopCause;

/// How long the last statuses may take to leave, once the jobs have been stopped.
const FLUSH: Duration = Duration::from_secs(10);

/// Stops taking work, gives what runs its grace, hands back the rest, lets the last statuses out.
pub(super) async fn wind_down<R: ContainerRuntime, C: Clock + Clone>(
    parts: &Parts<R, C>,
    settings: &Settings,
    graceful: bool,
) {
    let board = &parts.intake.desk.board;
    board.drain();
    // What is being taken in right now is still written down.
    tokio::time::timeout(FLUSH, parts.intake.closed()).await.ok();
    if settings.keep_jobs || !graceful {
        tracing::info!("leaving what runs to the next start");
    } else {
        stop_all(board, board.ids(Some(false))).await;
        let running = board.ids(None).len();
        let grace_s = settings.shutdown_grace.as_secs();
        if running > 0 {
            tracing::info!(running, "waiting up to {grace_s} s for {running} jobs");
        }
        tokio::time::timeout(settings.shutdown_grace, board.wait_until_empty()).await.ok();
        stop_all(board, [board.ids(Some(false)), board.ids(Some(true))].concat()).await;
        let patience = settings.stop_grace + FLUSH;
        if tokio::time::timeout(patience, board.wait_until_empty()).await.is_err() {
            let left = board.ids(None).len();
            tracing::warn!(left, "{left} jobs are taken back at the next start");
        }
    }
    tokio::time::timeout(FLUSH, flush(parts)).await.ok();
}

async fn stop_all(board: &Board, ids: Vec<crate::job::JobId>) {
    let stops = ids.iter().map(|id| board.stop(id, StopCause::Shutdown));
    let stops = futures_util::future::join_all(stops);
    tokio::time::timeout(FLUSH, stops).await.ok();
}

/// Waits until every status is out, then closes the connection.
async fn flush<R, C: Clock>(parts: &Parts<R, C>) {
    let desk = &parts.intake.desk;
    let Some(bus) = parts.link.now() else { return };
    while desk.journal.unsent_count().await.is_ok_and(|count| count > 0) {
        desk.outbox.notify_one();
        desk.clock.sleep(Duration::from_millis(20)).await;
    }
    if let Err(err) = bus.drain().await {
        tracing::debug!("NATS was not closed in order: {err}");
    }
}
