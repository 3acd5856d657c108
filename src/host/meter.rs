//! What a part of this program costs.
//!
//! Invariant: CPU time of the part alone, not of what runs on other threads for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::thread_cpu;

/// Adds up the CPU time of futures; clones share the sum.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// CPU time so far.
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// The same future, whose CPU time is added here: that of its own thread while it is polled.
    pub fn of<F: Future + Send + 'static>(
        &self,
        future: F,
    ) -> impl Future<Output = F::Output> + Send + use<F> {
        Metered { future: Box::pin(future), meter: self.clone() }
    }
}

struct Metered<F> {
    future: Pin<Box<F>>,
    meter: Meter,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let begun = thread_cpu();
        let polled = self.future.as_mut().poll(context);
        let spent = thread_cpu().saturating_sub(begun);
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.meter.0.fetch_add(nanos, Ordering::Relaxed);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_meter_counts_what_a_future_computes_and_not_what_it_waits() {
        let meter = Meter::default();
        let pause = Duration::from_millis(80);
        meter.of(tokio::time::timeout(pause, std::future::pending::<()>())).await.unwrap_err();
        let waited = meter.used();
        assert!(waited < Duration::from_millis(40), "{waited:?}");
        let until = Duration::from_millis(50);
        meter
            .of(async move {
                let begun = thread_cpu();
                while thread_cpu().saturating_sub(begun) < until {
                    std::hint::spin_loop();
                }
            })
            .await;
        let spun = meter.used().saturating_sub(waited);
        assert!(spun >= until && spun < until * 2, "{spun:?}");
        meter.of(std::future::ready(())).await;
        let more = meter.used().saturating_sub(waited + spun);
        assert!(more < until, "what its thread did before is not counted: {more:?}");
    }
}
