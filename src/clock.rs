//! Time as an argument.
//!
//! No other module asks the operating system for the time of day: it gets a [`Clock`] or a [`Timestamp`],
//! so that tests and the simulation can control time. Wherever a timestamp leaves the process, it is
//! written as RFC 3339 UTC with milliseconds.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A point in time, in whole milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last time that RFC 3339 can express: 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The time `ms` milliseconds after the Unix epoch, at most [`Timestamp::MAX`].
    pub const fn from_unix_ms(ms: u64) -> Self {
        if ms > Self::MAX.0 { Self::MAX } else { Self(ms) }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// This time plus `by`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::from_unix_ms(self.0.saturating_add(ms))
    }

    /// The time since `earlier`; zero if `earlier` is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|at| at.format(format).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

/// The text is not an RFC 3339 time, or is one before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time, such as 2026-11-22T00:00:00.000Z")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let ms = at.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map(Self::from_unix_ms).map_err(|_| InvalidTimestamp)
    }
}

crate::text::serde_as_text!(Timestamp);

/// A source of time. Tests and the simulation have their own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time. It may step back when the host's clock is set.
    fn now(&self) -> Timestamp;

    /// The time since some fixed point. It never steps back, whatever happens to the host's clock, and
    /// goes on while the host is suspended.
    fn monotonic(&self) -> Duration;

    /// Returns after `span`. Time during which the host is suspended may not count: for a point in time
    /// more than a few seconds away use [`Clock::sleep_until`].
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send;

    /// Returns at `at`, or once the time that was left until `at` at the call has passed, whichever is
    /// earlier. At most [`LOOK_AGAIN`] late if the host was suspended or its clock set forward; not late
    /// if its clock was set back.
    fn sleep_until(&self, at: Timestamp) -> impl Future<Output = ()> + Send {
        async move {
            let (span, begun) = (at.since(self.now()), self.monotonic());
            loop {
                let gone = self.monotonic().saturating_sub(begun);
                let left = at.since(self.now()).min(span.saturating_sub(gone));
                if left.is_zero() {
                    return;
                }
                self.sleep(left.min(LOOK_AGAIN)).await;
            }
        }
    }
}

/// The longest that [`Clock::sleep_until`] sleeps before it reads the clocks again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The host's clocks: the time of day, and the time since boot with suspends included.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that asks the host for the time")]
    fn now(&self) -> Timestamp {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since).unwrap_or_default()
    }

    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(span)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::atomic::{AtomicI64, AtomicU64};

    use super::*;

    #[test]
    fn a_timestamp_goes_out_as_rfc3339_with_milliseconds() {
        let at: Timestamp = "2024-01-01T17:30:00.123456789+05:30".parse().unwrap();
        assert_eq!(at.to_string(), "2024-01-01T12:00:00.123Z");
        assert_eq!(Timestamp::from_unix_ms(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    /// A host that is suspended, or whose clock is set, during its first sleep.
    #[derive(Debug, Default)]
    struct Jumpy {
        asleep_ms: AtomicU64,
        /// What the wall clock and the boot clock gained besides the time slept.
        wall_ms: AtomicI64,
        boot_ms: AtomicU64,
        befalls: Mutex<Option<(i64, u64)>>,
    }

    impl Clock for Jumpy {
        fn now(&self) -> Timestamp {
            let asleep = DAY_MS + self.asleep_ms.load(Relaxed);
            Timestamp::from_unix_ms(asleep.saturating_add_signed(self.wall_ms.load(Relaxed)))
        }

        fn monotonic(&self) -> Duration {
            let ms = self.asleep_ms.load(Relaxed) + self.boot_ms.load(Relaxed);
            Duration::from_millis(ms)
        }

        async fn sleep(&self, span: Duration) {
            let ms = u64::try_from(span.as_millis()).unwrap();
            self.asleep_ms.fetch_add(ms, Relaxed);
            if let Some((wall, boot)) = self.befalls.lock().unwrap().take() {
                self.wall_ms.fetch_add(wall, Relaxed);
                self.boot_ms.fetch_add(boot, Relaxed);
            }
        }
    }

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_deadline_is_noticed_soon_after_a_host_slept_or_its_clock_was_set() {
        use futures_util::FutureExt as _;
        let hour = 3_600_000;
        let an_hour = i64::try_from(hour).unwrap();
        // `slept`: how much of the two hours it sleeps, in ms.
        for (what, befalls, slept) in [
            ("nothing", (0, 0), 2 * hour),
            ("it was suspended over the deadline", (3 * an_hour, 3 * hour), 30_000),
            ("it was suspended for an hour", (an_hour, hour), hour),
            ("its clock was set forward over the deadline", (3 * an_hour, 0), 30_000),
            ("its clock was set back", (-an_hour, 0), 2 * hour),
        ] {
            let clock = Jumpy { befalls: Mutex::new(Some(befalls)), ..Jumpy::default() };
            let at = clock.now().plus(Duration::from_millis(2 * hour));
            clock.sleep_until(at).now_or_never().expect("its sleep takes no time");
            assert_eq!(clock.asleep_ms.load(Relaxed), slept, "{what}");
        }
    }

    #[test]
    fn times_before_1970_and_rubbish_are_refused() {
        for text in ["1969-12-31T23:59:59Z", "yesterday", "", "2024-13-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }
}
