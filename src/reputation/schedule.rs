//! When a node sends heartbeats: once in each slot of the contract, and not at the time of its peers.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::ids::Address;

/// The longest random delay of a heartbeat, as a fraction of the interval.
pub const JITTER: f64 = 0.05;

/// The node's position in each interval, from 0.1 to 0.9, derived from its address. It spreads nodes
/// that started together, and keeps a late heartbeat from slipping into the next interval at once.
pub fn phase(node: Address) -> f64 {
    let spread = node.as_bytes().iter().rev().take(4);
    let spread = spread.fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    0.1 + 0.8 * f64::from(spread) / f64::from(u32::MAX)
}

/// The time until the phase comes next, at most one interval. Intervals count from the Unix epoch like
/// the contract's slots of 300 s, so that at the default interval each slot gets one heartbeat.
pub fn until_next(now: Timestamp, interval: Duration, phase: f64) -> Duration {
    let length = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let into = Duration::from_millis(now.unix_ms() % length);
    let target = interval.mul_f64(phase);
    let ahead = target.saturating_sub(into);
    if ahead.is_zero() { interval.saturating_sub(into) + target } else { ahead }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_of_the_contract_gets_one_beat_at_the_default_interval() {
        let interval = Duration::from_mins(5);
        for byte in [0, 100, 255] {
            let phase = phase(Address::new([byte; 20]));
            let start = Timestamp::from_unix_ms(1_700_000_123_456);
            let mut now = start.plus(until_next(start, interval, phase));
            let first = now.unix_ms() / 300_000;
            for slot in first..first + 1000 {
                assert_eq!(now.unix_ms() / 300_000, slot, "{byte}");
                let late =
                    interval.mul_f64([0.0, JITTER, 0.02][usize::try_from(slot % 3).unwrap()]);
                // The time until a block includes the heartbeat.
                now = now.plus(late).plus(Duration::from_secs(3));
                let wait = until_next(now, interval, phase);
                assert!(wait <= interval && wait >= interval * 9 / 10, "{byte}: {wait:?}");
                now = now.plus(wait);
            }
        }
    }
}
