//! A queue before a sink, and what is known of the sink.
//!
//! Must hold: who waits for a sink waits only while it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Inner;
use crate::fleet::{Event, Level, kinds};
use crate::push::Ring;

/// The time between two events about the drops of one sink.
const DROPS_EVERY: Duration = Duration::from_mins(1);

/// A queue before a sink, and how many of its drops were told.
pub(super) struct Sink {
    pub(super) name: &'static str,
    pub(super) ring: Ring<Arc<Event>>,
    told: AtomicU64,
    told_at: Mutex<Option<Instant>>,
    /// Whether what is pushed now can be expected to go out.
    works: AtomicBool,
    /// Notified when a batch is settled, or whether it works has changed.
    settled: Notify,
}

impl Sink {
    pub(super) fn new(name: &'static str, ring: usize, batch: usize) -> Self {
        Self {
            name,
            ring: Ring::new(ring, batch),
            told: AtomicU64::new(0),
            told_at: Mutex::default(),
            works: AtomicBool::new(false),
            settled: Notify::new(),
        }
    }

    pub(super) fn push(&self, event: Arc<Event>) {
        let is_urgent = event.level >= Level::Warning;
        self.ring.push(event, is_urgent);
    }

    /// Notes whether the sink works, after each try.
    pub(super) fn is_working(&self, works: bool) {
        self.works.store(works, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// Returns once nothing waits, or what waits can't be sent now.
    pub(super) async fn idle(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on no notice is missed.
            settled.as_mut().enable();
            if !self.works.load(Ordering::Acquire) || self.ring.counts().queued == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Tells this sink, which works again, how much it has missed since that was told last: once a minute, so that
    /// a sink that drops again and again is not kept busy with that.
    pub(super) fn tell_drops(&self, inner: &Inner) {
        let dropped = self.ring.counts().dropped;
        if dropped == self.told.load(Ordering::Relaxed) {
            return;
        }
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| at.elapsed() < DROPS_EVERY) {
            return;
        }
        *told_at = Some(Instant::now());
        drop(told_at);
        let before = self.told.swap(dropped, Ordering::Relaxed);
        let missed = dropped.saturating_sub(before);
        if missed == 0 {
            return;
        }
        let text = format!("{missed} events were dropped while {} was away", self.name);
        tracing::warn!(missed, dropped, "{text}");
        let event = inner.event(kinds::EVENTS_DROPPED, &text);
        let event = event.with("sink", self.name).with("dropped", missed);
        // Also the sum: this event may be dropped itself.
        self.push(Arc::new(event.with("dropped_in_all", dropped)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::tests::events;
    use crate::clock::Timestamp;
    use crate::ids::Address;

    #[tokio::test(start_paused = true)]
    async fn drops_are_told_once_a_minute_however_often_a_sink_drops() {
        let events = events();
        let inner = events.0.as_ref().unwrap();
        let sink = &inner.nats;
        for _ in 0..100 {
            events.tell(kinds::JOB_RUNNING, "m", |event| event);
            sink.ring.take().dropped();
            sink.tell_drops(inner);
        }
        assert!(sink.ring.counts().pushed <= 101, "{:?}", sink.ring.counts());
        tokio::time::advance(DROPS_EVERY).await;
        sink.tell_drops(inner);
        let told = sink.ring.take();
        assert_eq!(
            told.items().last().unwrap().1.details()["dropped_in_all"],
            101,
            "with the first of its own"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_can_send_nothing_is_not_waited_for_and_one_that_works_is() {
        let sink = Arc::new(Sink::new("x", 10, 10));
        let event = || {
            let node = Address::new([1; 20]);
            Arc::new(Event::new(kinds::NODE_STARTED, node, Timestamp::default(), "m"))
        };
        let begun = Instant::now();
        sink.push(event());
        sink.idle().await;
        sink.is_working(true);
        let limit = Duration::from_secs(2);
        assert!(tokio::time::timeout(limit, sink.idle()).await.is_err(), "it may still be sent");
        assert_eq!(begun.elapsed(), limit);
        let sends = async {
            sink.ring.take().sent();
            sink.is_working(true);
        };
        tokio::join!(sink.idle(), sends);
        assert_eq!(begun.elapsed(), limit, "as soon as it is sent");
    }
}
