//! Time that goes on by itself where nobody has anything to do: no second of it costs one.
//!
//! The runtime has one thread. When it is about to sleep, time jumps to the next moment that
//! anybody waits for. Each host has a clock of its own, which may be wrong, and stands still while its
//! host does. What must hold: the same calls in the same order give the same run.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lamda_node::clock::{Clock, Timestamp};

/// When a simulated day begins, in Unix milliseconds.
pub(crate) const DAWN_MS: u64 = 1_800_000_000_000;

/// The time of one simulated day. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Time(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    /// The hosts' clocks.
    hosts: Vec<Dial>,
    sleepers: BTreeMap<(u64, u64), Waker>,
    count: u64,
}

/// How a host's clock goes.
#[derive(Debug, Clone, Copy, Default)]
struct Dial {
    /// What it shows beside the true time, in milliseconds.
    skew_ms: i64,
    /// Until when the host stands still.
    frozen_until_ms: u64,
}

impl Time {
    /// Time for so many hosts, all of them right.
    pub(crate) fn of(hosts: usize) -> Self {
        let time = Self::default();
        time.state().hosts = vec![Dial::default(); hosts];
        time
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the day began, in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        self.state().now_ms
    }

    /// The moment by a host's clock.
    pub(crate) fn now_on(&self, host: usize) -> Timestamp {
        let state = self.state();
        let true_ms = DAWN_MS + state.now_ms;
        Timestamp::from_unix_ms(true_ms.saturating_add_signed(state.hosts[host].skew_ms))
    }

    /// Sets a host's clock forward or back.
    pub(crate) fn set_clock(&self, host: usize, by_ms: i64) {
        self.state().hosts[host].skew_ms += by_ms;
    }

    /// A host stands still until then.
    pub(crate) fn freeze(&self, host: usize, until_ms: u64) {
        self.state().hosts[host].frozen_until_ms = until_ms;
    }

    /// Returns once `span` has gone by.
    pub(crate) fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + use<> {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        // A wait of less than a millisecond is one all the same, or a loop of them would hang.
        let due = self.ms() + ms.max(u64::from(!span.is_zero()));
        Sleep { time: self.clone(), due, place: None }
    }

    /// Jumps to the next moment that anybody waits for; `false` where nobody waits for any.
    fn jump(&self) -> bool {
        let mut state = self.state();
        let Some((&(due, _), _)) = state.sleepers.first_key_value() else { return false };
        state.now_ms = state.now_ms.max(due);
        let later = state.sleepers.split_off(&(due, u64::MAX));
        let woken = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        woken.into_values().for_each(Waker::wake);
        true
    }

    /// Runs `work` to its end on a runtime of its own.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let time = self.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || {
                assert!(time.jump(), "nobody waits for anything, and the day has not ended");
            })
            .build();
        runtime.expect("a runtime").block_on(work)
    }
}

/// The clock of a host, as its processes see it.
#[derive(Debug, Clone)]
pub(crate) struct HostClock {
    pub(crate) time: Time,
    pub(crate) host: usize,
}

impl HostClock {
    fn frozen_for(&self) -> Duration {
        let state = self.time.state();
        let until = state.hosts[self.host].frozen_until_ms;
        Duration::from_millis(until.saturating_sub(state.now_ms))
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        self.time.now_on(self.host)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.time.ms())
    }

    async fn sleep(&self, span: Duration) {
        self.time.sleep(span).await;
        loop {
            let frozen = self.frozen_for();
            if frozen.is_zero() {
                return;
            }
            self.time.sleep(frozen).await;
        }
    }
}

struct Sleep {
    time: Time,
    due: u64,
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut state = time.state();
        if state.now_ms >= self.due {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            state.count += 1;
            state.count
        });
        state.sleepers.insert((self.due, place), context.waker().clone());
        drop(state);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.time.state().sleepers.remove(&(self.due, place));
        }
    }
}
