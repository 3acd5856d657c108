//! What is odd about what a job uses.
//!
//! Pure. Must hold: what goes up and down by chance is not odd, however long it is watched: the test is about the steps
//! between samples, so that a walk without a direction has none, wherever it gets to.

use std::time::Duration;

use crate::clock::Timestamp;

/// The fewest samples from which a slope is told.
pub const SAMPLES_MIN: usize = 31;

/// The shortest time over which memory must have grown: longer than a job loads its data.
pub const SPAN_MIN: Duration = Duration::from_mins(30);

/// The least growth that matters, in bytes.
pub const GROWTH_MIN_BYTES: u64 = 64 * 1024 * 1024;

/// How many standard errors the mean step must be above zero; by chance that happens once in 10^11 looks.
const SURE: f64 = 7.0;

/// The same for each half of the time, so that one leap is no slope.
const HALF_SURE: f64 = 2.5;

/// The fewest like jobs that say how long one takes.
pub const LIKE_MIN: usize = 5;

/// A job is not told to be slow for less than this.
pub const SLOWER_MIN: Duration = Duration::from_mins(1);

/// What a job had of main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// When.
    pub at: Timestamp,
    /// In bytes, without file pages that can be dropped.
    pub bytes: u64,
}

/// How a job's memory grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slope {
    /// By how much it grew, in bytes.
    pub grew_bytes: u64,
    /// Over what time.
    pub over: Duration,
    /// How much it is an hour, in bytes.
    pub an_hour_bytes: u64,
}

/// Whether the memory grows all the time, over all of these samples, the oldest first. At least a tenth of what it was.
pub fn memory_slope(samples: &[Memory]) -> Option<Slope> {
    let (first, last) = (samples.first()?, samples.last()?);
    let over = last.at.since(first.at);
    if samples.len() < SAMPLES_MIN || over < SPAN_MIN {
        return None;
    }
    let grew_bytes = last.bytes.checked_sub(first.bytes)?;
    if grew_bytes < GROWTH_MIN_BYTES.max(first.bytes / 10) {
        return None;
    }
    let (early, late) = (samples.get(..=samples.len() / 2)?, samples.get(samples.len() / 2..)?);
    let is_sure =
        sureness(samples) >= SURE && sureness(early) >= HALF_SURE && sureness(late) >= HALF_SURE;
    let ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
    let an_hour = u128::from(grew_bytes) * 3_600_000 / u128::from(ms);
    let an_hour_bytes = u64::try_from(an_hour).unwrap_or(u64::MAX);
    is_sure.then_some(Slope { grew_bytes, over, an_hour_bytes })
}

/// Whether a job that has run for so long is slower than others of its kind, which took these times: longer than twice
/// their middle and than half as much again as the longest of them. Their middle.
pub fn slower_than_like(took: Duration, others: &[Duration]) -> Option<Duration> {
    if others.len() < LIKE_MIN {
        return None;
    }
    let mut others = others.to_vec();
    others.sort_unstable();
    let (middle, longest) = (*others.get(others.len() / 2)?, *others.last()?);
    let usual = middle.saturating_mul(2).max(longest.saturating_add(longest / 2));
    (took > usual.max(longest.saturating_add(SLOWER_MIN))).then_some(middle)
}

/// How many of its standard errors the mean step is above zero.
#[expect(clippy::cast_precision_loss, reason = "an estimate; no memory comes near 2^52 bytes")]
fn sureness(samples: &[Memory]) -> f64 {
    let steps = samples.windows(2).filter_map(|pair| match pair {
        [before, after] => Some(after.bytes as f64 - before.bytes as f64),
        _ => None,
    });
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for step in steps {
        count += 1.0;
        sum += step;
        squares += step * step;
    }
    if count < 2.0 {
        return 0.0;
    }
    let mean: f64 = sum / count;
    let variance = (squares - count * mean * mean).max(0.0) / (count - 1.0);
    if variance <= f64::EPSILON * squares {
        // Steps that are all alike have one direction.
        return if mean > 0.0 { f64::INFINITY } else { 0.0 };
    }
    mean / (variance / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A small generator, so that each run is the same: xorshift.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    fn each_half_minute(bytes: impl Iterator<Item = u64>) -> Vec<Memory> {
        let at = |number: u64| Timestamp::from_unix_ms(number * 30_000);
        (0..).zip(bytes).map(|(number, bytes)| Memory { at: at(number), bytes }).collect()
    }

    #[test]
    fn a_leak_is_found_within_the_hour_also_behind_noise() {
        let mut dice = Dice(7);
        let leak =
            each_half_minute((0..120).map(|it| 500 * MIB + it * 4 * MIB + dice.below(3 * MIB)));
        let slope = memory_slope(&leak).expect("it grows");
        assert!((460 * MIB..500 * MIB).contains(&slope.an_hour_bytes), "{slope:?}");
        let even = each_half_minute((0..62).map(|it| 500 * MIB + it * 4 * MIB));
        assert!(memory_slope(&even).is_some());
        assert_eq!(memory_slope(&even[..20]), None, "it may be loading");
    }

    #[test]
    fn a_walk_without_a_direction_is_no_leak_in_ten_thousand_hours() {
        for (seed, rare) in [(1, 1), (2, 1), (3, 40)] {
            let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
            let mut bytes = 4_000 * MIB;
            let walk = (0..1_200_000_u64).map(|_| {
                // Seldom large steps, too.
                let size = if dice.below(rare) == 0 { 32 * MIB } else { MIB };
                let step = dice.below(2 * size + 1);
                bytes = (bytes + step).saturating_sub(size).clamp(600 * MIB, 64_000 * MIB);
                bytes
            });
            let walk = each_half_minute(walk);
            for (number, window) in walk.windows(120).enumerate().step_by(12) {
                assert_eq!(memory_slope(window), None, "at {number} of {seed}");
            }
        }
    }

    #[test]
    fn a_job_is_slow_only_beyond_all_that_its_like_took() {
        let minutes = Duration::from_mins;
        let like = [10, 12, 11, 10, 14].map(minutes);
        assert_eq!(slower_than_like(minutes(21), &like), None, "not twice its middle");
        assert_eq!(slower_than_like(minutes(23), &like), Some(minutes(11)));
        assert_eq!(slower_than_like(minutes(99), &like[..4]), None, "too few to say");
        let uneven = [10, 12, 11, 10, 60].map(minutes);
        assert_eq!(slower_than_like(minutes(80), &uneven), None, "one of them took long, too");
        let short = [1; 5].map(Duration::from_secs);
        assert_eq!(slower_than_like(Duration::from_secs(30), &short), None);
    }

    #[test]
    fn what_loads_what_leaps_and_what_breathes_is_no_leak() {
        let loads = (0..120).map(|it| if it < 20 { it * 1_000 * MIB } else { 20_000 * MIB });
        let leaps = (0..120).map(|it| if it < 60 { 1_000 * MIB } else { 9_000 * MIB });
        let breathes = (0..120).map(|it| 1_000 * MIB + (it % 10) * 100 * MIB);
        let shrinks = (0..120).map(|it| 9_000 * MIB - it * 9 * MIB);
        let little = (0..120).map(|it| 9_000 * MIB + it * MIB / 4);
        let all: [Vec<u64>; 5] = [
            loads.collect(),
            leaps.collect(),
            breathes.collect(),
            shrinks.collect(),
            little.collect(),
        ];
        for bytes in all {
            assert_eq!(memory_slope(&each_half_minute(bytes.into_iter())), None);
        }
        assert_eq!(memory_slope(&[]), None);
    }
}
