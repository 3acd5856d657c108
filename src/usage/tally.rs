//! How the readings of one metric are put together, sample by sample, in constant memory.
//!
//! Pure. Invariant: a total never goes down, whatever the counter behind it does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metric::Kind;
use super::sample::{Reading, Unknown};

/// The readings of a value that goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gauge {
    readings: u64,
    sum: u128,
    min: u64,
    max: u64,
    /// Why the first unknown reading was unknown.
    why: Option<Unknown>,
}

impl Gauge {
    pub(super) const EMPTY: Self = Self { readings: 0, sum: 0, min: u64::MAX, max: 0, why: None };

    /// Adds a reading.
    pub(super) fn fold(&mut self, reading: Reading) {
        match reading {
            Ok(value) => {
                self.readings += 1;
                self.sum += u128::from(value);
                self.min = self.min.min(value);
                self.max = self.max.max(value);
            }
            Err(why) => {
                self.why.get_or_insert(why);
            }
        }
    }

    /// The lowest, the mean and the highest known value.
    pub(super) fn range(&self) -> Result<(u64, u64, u64), Unknown> {
        Ok((self.known(self.min)?, self.average()?, self.max()?))
    }

    /// The sum of the known values.
    pub(super) fn sum(&self) -> Reading {
        self.known(u64::try_from(self.sum).unwrap_or(u64::MAX))
    }

    /// The mean of the known values, rounded to the nearest whole number.
    pub(super) fn average(&self) -> Reading {
        let readings = u128::from(self.readings.max(1));
        self.known(u64::try_from((self.sum + readings / 2) / readings).unwrap_or(u64::MAX))
    }

    /// The highest known value.
    pub(super) fn max(&self) -> Reading {
        self.known(self.max)
    }

    fn known(&self, value: u64) -> Reading {
        if self.readings > 0 { Ok(value) } else { Err(self.why.unwrap_or(Unknown::Missed)) }
    }
}

/// The readings of a value that counts up from the job's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    last: Option<u64>,
    total: u64,
    went_back: bool,
    /// Why the first unknown reading was unknown.
    why: Option<Unknown>,
}

impl Counter {
    pub(super) const EMPTY: Self = Self { last: None, total: 0, went_back: false, why: None };

    /// Adds a reading; what was counted since the last known one.
    ///
    /// A counter that goes back by more than half has begun anew, so that all it shows is new. One that goes back a
    /// little was read askew (counters of several CPUs are summed while they run): nothing is new until it is past
    /// its old value, or the total would double.
    pub(super) fn fold(&mut self, reading: Reading) -> Reading {
        let value = reading.inspect_err(|why| {
            self.why.get_or_insert(*why);
        })?;
        let last = self.last.unwrap_or(0);
        let began_anew = value < last / 2;
        self.went_back |= value < last;
        let new = if began_anew { value } else { value.saturating_sub(last) };
        self.last = Some(if began_anew { value } else { value.max(last) });
        self.total = self.total.saturating_add(new);
        Ok(new)
    }

    /// What was counted since the job's start.
    pub(super) fn total(&self) -> Reading {
        if self.last.is_some() { Ok(self.total) } else { Err(self.why.unwrap_or(Unknown::Missed)) }
    }

    /// Whether it ever went back.
    pub(super) const fn went_back(&self) -> bool {
        self.went_back
    }
}

/// The readings of one metric, put together as its kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tally {
    /// Of a gauge or a peak.
    Gauge(Gauge),
    /// Of a counter.
    Counter(Counter),
}

impl Tally {
    /// Without a reading.
    pub(super) const fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Counter::EMPTY),
            Kind::Gauge | Kind::Peak => Self::Gauge(Gauge::EMPTY),
        }
    }

    /// Adds a reading.
    pub(super) fn fold(&mut self, reading: Reading) {
        match self {
            Self::Gauge(gauge) => gauge.fold(reading),
            Self::Counter(counter) => drop(counter.fold(reading)),
        }
    }

    /// A counter's total; the highest value of a gauge or a peak.
    pub(super) fn total(&self) -> Reading {
        match self {
            Self::Gauge(gauge) => gauge.max(),
            Self::Counter(counter) => counter.total(),
        }
    }

    /// The mean of a gauge's values; a counter has none.
    pub(super) fn average(&self) -> Reading {
        match self {
            Self::Gauge(gauge) => gauge.average(),
            Self::Counter(_) => Err(Unknown::NotSupported),
        }
    }

    /// Whether a counter ever went back.
    pub(super) const fn went_back(&self) -> bool {
        matches!(self, Self::Counter(counter) if counter.went_back())
    }
}

/// `part` of `whole` in percent, to two decimals; 0 if `whole` is 0.
#[expect(clippy::cast_precision_loss, reason = "two decimals of a percent are shown")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 10_000.0).round() / 100.0 }
}

/// A span in whole microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(values: &[u64]) -> (Reading, bool) {
        let mut counter = Counter::EMPTY;
        for value in values {
            counter.fold(Ok(*value)).unwrap();
        }
        (counter.total(), counter.went_back())
    }

    #[test]
    fn a_counter_that_begins_anew_goes_on_from_its_total() {
        assert_eq!(counted(&[0, 70, 100]), (Ok(100), false));
        assert_eq!(counted(&[100, 30, 50]), (Ok(150), true));
        assert_eq!(counted(&[u64::MAX, 7]), (Ok(u64::MAX), true));
    }

    #[test]
    fn a_counter_that_was_read_askew_is_not_counted_twice() {
        assert_eq!(counted(&[1_000_000, 999_990, 1_000_005]), (Ok(1_000_005), true));
    }

    #[test]
    fn the_reason_of_an_unknown_lasts_until_a_value_is_known() {
        let (mut gauge, mut counter) = (Gauge::EMPTY, Counter::EMPTY);
        assert_eq!((gauge.max(), counter.total()), (Err(Unknown::Missed), Err(Unknown::Missed)));
        for why in [Unknown::Denied, Unknown::Gone] {
            gauge.fold(Err(why));
            assert_eq!(counter.fold(Err(why)), Err(why));
        }
        assert_eq!(
            (gauge.average(), counter.total()),
            (Err(Unknown::Denied), Err(Unknown::Denied))
        );
        gauge.fold(Ok(3));
        gauge.fold(Ok(6));
        gauge.fold(Err(Unknown::Failed));
        assert_eq!((gauge.range(), gauge.sum()), (Ok((3, 5, 6)), Ok(9)));
        assert_eq!(counter.fold(Ok(9)), Ok(9));
        assert_eq!(counter.total(), Ok(9));
    }

    proptest! {
        #[test]
        fn a_total_never_goes_down(values in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut counter = Counter::EMPTY;
            let mut before = 0_u64;
            for value in values {
                let new = counter.fold(Ok(value)).unwrap();
                let total = counter.total().unwrap();
                prop_assert_eq!(total, before.saturating_add(new));
                before = total;
            }
        }
    }
}
