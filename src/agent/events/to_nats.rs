//! Carries every event to the stream `EVENTS`.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::agent::link::Link;
use crate::backoff::Backoff;
use crate::bus::{self, MessageIds};
use crate::report::causes;
use crate::supervise::Failure;

/// How long an event waits for others.
const FLUSH: Duration = Duration::from_millis(20);

/// The wait before a batch is sent again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_mins(1));

/// A service that never ends.
pub(super) async fn run(inner: Arc<Inner>, link: Link, ids: MessageIds) -> Result<(), Failure> {
    let (sink, begun) = (&inner.nats, inner.begun.unix_ms());
    let mut failures = 0;
    loop {
        // Without a connection events wait in the ring, where they can be counted.
        let bus = link.bus().await;
        let batch = sink.ring.next(FLUSH).await;
        let named = batch.items().iter();
        let named = named.map(|(number, event)| (format!("event:{begun}:{number}"), &**event));
        let events: Vec<_> = named.collect();
        match bus.publish_events(&ids, &events).await {
            Ok(()) => {
                batch.sent();
                failures = 0;
                sink.tell_drops(&inner);
            }
            // None of them would ever fit.
            Err(bus::Error::TooLarge { .. }) => batch.dropped(),
            Err(err) => {
                drop(batch);
                let text = causes(&err);
                if failures == 0 && !err.is_transient() {
                    tracing::warn!("events are not sent: {text}");
                } else {
                    tracing::debug!("events are not sent: {text}");
                }
                failures += 1;
                tokio::time::sleep(AGAIN.jittered(failures)).await;
            }
        }
    }
}
