//! Keeps the node on the list of SOLLOL's dashboard.
//!
//! Must hold: a dashboard that is away costs nothing but a line in the log; once the node has left the list nothing
//! puts it there again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::backoff::Backoff;
use crate::push::dashboard::{Call, Dashboard, Error};
use crate::report::{causes, one_line};
use crate::supervise::Failure;

/// The time between two heartbeats, as the dashboard expects them.
const EVERY: Duration = Duration::from_secs(10);

/// The wait before a dashboard that is away is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(2));

/// The most characters of an error in the log.
const WORDS_MAX: usize = 300;

/// The node's place on the list.
pub(super) struct Listing {
    dashboard: Dashboard,
    leaves: watch::Sender<bool>,
    /// Whoever calls has it, so that no call overtakes another.
    turn: Mutex<()>,
}

impl Listing {
    pub(super) fn new(dashboard: Dashboard) -> Arc<Self> {
        Arc::new(Self { dashboard, leaves: watch::Sender::new(false), turn: Mutex::default() })
    }

    /// Registers, or tells that the node is still there; `None` once the node leaves.
    async fn tell(&self, call: Call) -> Option<Result<(), Error>> {
        let _turn = self.turn.lock().await;
        if *self.leaves.borrow() {
            return None;
        }
        Some(self.dashboard.call(call).await)
    }

    /// Takes the node off the list for good. A call that is under way ends first.
    pub(super) async fn leave(&self) {
        self.leaves.send_replace(true);
        let _turn = self.turn.lock().await;
        if let Err(err) = self.dashboard.call(Call::Unregister).await {
            tracing::debug!("{}", said(&err));
        }
    }
}

/// A service that ends when the node leaves.
pub(super) async fn run(listing: Arc<Listing>) -> Result<(), Failure> {
    let mut failures = 0_u32;
    let mut next = Call::Register;
    let mut leaves = listing.leaves.subscribe();
    while let Some(told) = listing.tell(next).await {
        let wait = match told {
            Ok(()) => {
                if next == Call::Register {
                    tracing::info!("the dashboard lists this node");
                }
                (next, failures) = (Call::Heartbeat, 0);
                EVERY
            }
            Err(err) => {
                if failures == 0 {
                    tracing::warn!("{}; it is tried again", said(&err));
                }
                failures = failures.saturating_add(1);
                // It may have forgotten the node meanwhile.
                next = Call::Register;
                AGAIN.jittered(failures)
            }
        };
        tokio::time::timeout(wait, leaves.wait_for(|leaves| *leaves)).await.ok();
    }
    Ok(())
}

/// What a foreign server had said, bounded.
fn said(err: &Error) -> String {
    one_line(&causes(err), WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::tests::with_dashboard;

    #[tokio::test]
    async fn a_dashboard_that_never_answers_holds_up_no_stop() {
        // Connections wait in its queue.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let events = with_dashboard(&format!("http://{}", listener.local_addr().unwrap()));
        let begun = std::time::Instant::now();
        events.let_out(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
