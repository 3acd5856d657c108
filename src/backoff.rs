//! Retry delays: exponential, capped, with jitter over the upper half of each step.
//!
//! [`Backoff::delay`] is pure: the caller passes the number of failures and the random value, so that
//! replayed decisions get the same delays.

use std::time::Duration;

/// A schedule of delays that double from `first` up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure, before jitter.
    pub first: Duration,
    /// The upper limit of every delay.
    pub max: Duration,
}

impl Backoff {
    /// A schedule of delays that double from `first` up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The delay after `failures` failures in a row (1 is the first). `chance`, between 0 and 1, picks a
    /// point in the upper half of the step, so that nodes that failed together don't return together.
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.first.saturating_mul(1 << doublings).min(self.max);
        step.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// [`Backoff::delay`] with a chance from the process's random generator.
    pub fn jittered(&self, failures: u32) -> Duration {
        self.delay(failures, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_stays_in_the_upper_half() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let full: Vec<u64> = (1..=6).map(|n| backoff.delay(n, 1.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.delay(2, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(10));
    }
}
