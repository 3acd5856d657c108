//! A node's record on the chain, recomputed from the contract's events: anyone who has the events gets the same.
//!
//! The contract computes the same (`contracts/src/types/Standing.sol`); docs/reputation.md has the rule.
//!
//! Must hold: all arithmetic is on integers and saturates where the contract's does; the order of the events is
//! that of the chain.

use serde::Serialize;

use super::score::{self, Facts};

/// The length of a slot, in seconds.
pub const SLOT_S: u64 = 300;

/// The highest value of the contract's counters of 40 bits.
const MAX_40: u64 = (1 << 40) - 1;

/// What an event says about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It registered, or replaced its registration, in a block of this Unix second.
    Registered(u64),
    /// It sent a heartbeat at this Unix second.
    Beat(u64),
    /// It claims to have completed and failed so many jobs.
    Claimed(u32, u32),
    /// The contract's owner has confirmed so many jobs of it in all.
    Confirmed(u64),
}

/// A node's record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Unix second of its first registration; 0 if it never registered.
    pub since_s: u64,
    /// Unix second of its last registration or beat.
    pub last_seen_s: u64,
    /// Slots with a beat.
    pub on_time: u32,
    /// Slots without one.
    pub missed: u32,
    /// Slots on time since the last missed one.
    pub streak: u32,
    /// Jobs that it claims to have completed.
    pub completed_claimed: u64,
    /// Jobs that it reports as not completed.
    pub failed_claimed: u64,
    /// Jobs that the contract's owner confirmed.
    pub confirmed: u64,
}

impl Standing {
    /// The record after this deed.
    #[must_use]
    pub fn after(mut self, deed: Deed) -> Self {
        match deed {
            Deed::Registered(second) if self.since_s == 0 => {
                let second = second.min(MAX_40);
                (self.since_s, self.last_seen_s) = (second, second);
            }
            Deed::Registered(second) | Deed::Beat(second) => self.beat(second.min(MAX_40)),
            Deed::Claimed(completed, failed) => {
                let add = |to: u64, more: u32| to.saturating_add(more.into()).min(MAX_40);
                self.completed_claimed = add(self.completed_claimed, completed);
                self.failed_claimed = add(self.failed_claimed, failed);
            }
            Deed::Confirmed(count) => self.confirmed = count,
        }
        self
    }

    fn beat(&mut self, second: u64) {
        if second <= self.last_seen_s {
            return;
        }
        let passed = second / SLOT_S - self.last_seen_s / SLOT_S;
        self.last_seen_s = second;
        if passed > 1 {
            self.streak = 0;
            self.missed = self.missed.saturating_add(slots(passed - 1));
        }
        if passed > 0 {
            self.on_time = self.on_time.saturating_add(1);
            self.streak = self.streak.saturating_add(1);
        }
    }

    /// The record at this Unix second: whole slots without a beat count as missed and end the streak.
    #[must_use]
    pub fn as_of(mut self, second: u64) -> Self {
        let (slot, last) = (second.min(MAX_40) / SLOT_S, self.last_seen_s / SLOT_S);
        if self.since_s != 0 && slot > last + 1 {
            self.streak = 0;
            self.missed = self.missed.saturating_add(slots(slot - last - 1));
        }
        self
    }

    /// The score of this record.
    pub fn score(&self) -> u16 {
        let Self { on_time, missed, confirmed, failed_claimed: failed, .. } = *self;
        score::score(Facts { on_time, missed, confirmed, failed })
    }
}

fn slots(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(deeds: &[Deed]) -> Standing {
        deeds.iter().fold(Standing::default(), |standing, deed| standing.after(*deed))
    }

    #[test]
    fn slots_with_a_beat_are_on_time_and_those_between_are_missed() {
        let start = 1_700_000_100;
        let standing = after(&[
            Deed::Registered(start),
            Deed::Beat(start + 10),
            Deed::Beat(start + 300),
            Deed::Beat(start + 600),
            Deed::Registered(start + 600),
            Deed::Beat(start + 1_800),
            Deed::Beat(start + 900),
        ]);
        assert_eq!((standing.on_time, standing.missed, standing.streak), (3, 3, 1));
        assert_eq!((standing.since_s, standing.last_seen_s), (start, start + 1_800));
        let later = standing.as_of(start + 1_800 + 899);
        assert_eq!((later.on_time, later.missed, later.streak), (3, 4, 0));
        assert_eq!(standing.as_of(start + 1_800 + 300), standing);
    }

    #[test]
    fn claims_add_up_and_saturate_as_the_contracts_do() {
        let standing =
            after(&[Deed::Registered(1), Deed::Claimed(3, 1), Deed::Claimed(u32::MAX, 0)]);
        assert_eq!((standing.completed_claimed, standing.failed_claimed), (4_294_967_298, 1));
        let full = (0..300).fold(standing, |it, _| it.after(Deed::Claimed(u32::MAX, u32::MAX)));
        assert_eq!((full.completed_claimed, full.failed_claimed), (MAX_40, MAX_40));
        assert_eq!(standing.after(Deed::Confirmed(7)).confirmed, 7);
    }

    #[test]
    fn who_never_registered_has_no_record() {
        assert_eq!(Standing::default().as_of(1_800_000_000), Standing::default());
        assert_eq!(Standing::default().score(), 0);
    }
}
