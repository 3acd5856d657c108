//! Keeps the node on the list of SOLLOL's dashboard.
//!
//! Must hold: a dashboard that is away costs nothing but a line in the log.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::push::dashboard::{Call, Dashboard};
use crate::report::causes;
use crate::supervise::Failure;

/// The time between two heartbeats, as the dashboard expects them.
const EVERY: Duration = Duration::from_secs(10);

/// The wait before a dashboard that is away is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(2));

/// A service that never ends.
pub(super) async fn run(dashboard: Dashboard) -> Result<(), Failure> {
    let mut failures = 0_u32;
    let mut next = Call::Register;
    loop {
        match dashboard.call(next).await {
            Ok(()) => {
                if next == Call::Register {
                    tracing::info!("the dashboard lists this node");
                }
                (next, failures) = (Call::Heartbeat, 0);
                tokio::time::sleep(EVERY).await;
            }
            Err(err) => {
                if failures == 0 {
                    tracing::warn!("{}; it is tried again", causes(&err));
                }
                failures = failures.saturating_add(1);
                // It may have forgotten the node meanwhile.
                next = Call::Register;
                tokio::time::sleep(AGAIN.jittered(failures)).await;
            }
        }
    }
}

/// Takes the node off the list, if that can be done in time.
pub(super) async fn leave(dashboard: &Dashboard) {
    if let Err(err) = dashboard.call(Call::Unregister).await {
        tracing::debug!("{}", causes(&err));
    }
}
