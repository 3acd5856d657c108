//! Simulated time, which passes without waiting.
//!
//! The runtime has one thread. When it is about to park, time jumps to the earliest moment that a task
//! waits for. Each host has its own clock, which may be wrong; a frozen host's sleeps end only after the
//! freeze. Must hold: the same calls in the same order give the same run.

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
    /// The clock of each host.
    hosts: Vec<Dial>,
    sleepers: BTreeMap<(u64, u64), Waker>,
    count: u64,
}

/// The state of a host's clock.
#[derive(Debug, Clone, Copy, Default)]
struct Dial {
    /// How far it is ahead of the true time, in milliseconds.
    skew_ms: i64,
    /// Until when the host is frozen.
    frozen_until_ms: u64,
}

impl Time {
    /// The time of a day with this many hosts, whose clocks are all right.
    pub(crate) fn of(hosts: usize) -> Self {
        let time = Self::default();
        time.state().hosts = vec![Dial::default(); hosts];
        time
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time since the day began, in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        self.state().now_ms
    }

    /// The wall-clock time that a host's clock shows.
    pub(crate) fn now_on(&self, host: usize) -> Timestamp {
        let state = self.state();
        let true_ms = DAWN_MS + state.now_ms;
        Timestamp::from_unix_ms(true_ms.saturating_add_signed(state.hosts[host].skew_ms))
    }

    /// Moves a host's clock forward or back.
    pub(crate) fn set_clock(&self, host: usize, by_ms: i64) {
        self.state().hosts[host].skew_ms += by_ms;
    }

    /// Freezes a host until then.
    pub(crate) fn freeze(&self, host: usize, until_ms: u64) {
        self.state().hosts[host].frozen_until_ms = until_ms;
    }

    /// Completes after `span` of true time.
    pub(crate) fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + use<> {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        // Rounds a shorter wait up to a millisecond; otherwise a loop of them would never advance time.
        let due = self.ms() + ms.max(u64::from(!span.is_zero()));
        Sleep { time: self.clone(), due, place: None }
    }

    /// Jumps to the earliest moment that a task waits for; `false` if none waits.
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

    /// Runs `work` to completion on its own runtime. Panics if no task can make progress.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let time = self.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || {
                assert!(time.jump(), "no task waits for a time, and the day has not ended");
            })
            .build();
        runtime.expect("a runtime").block_on(work)
    }
}

/// A host's clock, as its processes see it.
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
