//! Whose turn it is to send over a channel, by a value that whoever sends writes again all the time.
//!
//! Must hold: the value of another hub is taken over only after it has been seen unchanged for [`LEASE`], by this hub's
//! own clock and without a gap in between: no two clocks are compared, and a time in which nothing could be read proves
//! nothing. Whether a write counts is decided by the bucket, which takes it only over the revision that was read.

use std::time::Duration;

/// How often the value is read and, by whoever sends, written again.
pub const EVERY: Duration = Duration::from_millis(1_500);

/// How long a value is unchanged before another hub takes over.
pub const LEASE: Duration = Duration::from_secs(6);

/// How long a hub can't reach the bucket before it sends by itself. Longer than a lease, so that the other one, which may
/// reach it, has told what both know.
pub const ALONE: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The revision of the value.
    pub revision: u64,
    /// Whether this run of the hub wrote it.
    pub is_mine: bool,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write the value over this revision (0: none): it is this hub's turn if that succeeds.
    Take(u64),
    /// Write it again over this revision: it is this hub's turn.
    Renew(u64),
    /// It is the other hub's turn.
    Wait,
}

/// What a hub has seen of the value of a channel.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    /// The newest revision, and when it was seen first.
    seen: Option<(u64, Duration)>,
}

impl Lease {
    /// What follows from what was read at this moment of a clock that never steps back.
    pub fn step(&mut self, read: Option<Read>, now: Duration) -> Step {
        let Some(Read { revision, is_mine }) = read else {
            self.seen = None;
            return Step::Take(0);
        };
        if is_mine {
            self.seen = None;
            return Step::Renew(revision);
        }
        match self.seen {
            Some((seen, since)) if seen == revision => {
                if now.saturating_sub(since) >= LEASE {
                    Step::Take(revision)
                } else {
                    Step::Wait
                }
            }
            _ => {
                self.seen = Some((revision, now));
                Step::Wait
            }
        }
    }

    /// Nothing could be read, or written: what was seen before proves nothing any more.
    pub const fn lost(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn theirs(revision: u64) -> Read {
        Read { revision, is_mine: false }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_nobody_holds_is_taken_and_what_is_ours_is_kept() {
        let mut lease = Lease::default();
        assert_eq!(lease.step(None, s(0)), Step::Take(0));
        let mine = Some(Read { revision: 7, is_mine: true });
        assert_eq!(lease.step(mine, s(1)), Step::Renew(7));
        assert_eq!(lease.step(mine, s(1_000)), Step::Renew(7));
    }

    #[test]
    fn a_hub_that_writes_again_is_never_taken_over() {
        let mut lease = Lease::default();
        for second in 0..100 {
            assert_eq!(lease.step(Some(theirs(second / 5)), s(second)), Step::Wait);
        }
    }

    #[test]
    fn a_hub_that_is_silent_for_the_lease_is_taken_over_and_not_before() {
        let mut lease = Lease::default();
        assert_eq!(lease.step(Some(theirs(3)), s(10)), Step::Wait);
        assert_eq!(lease.step(Some(theirs(3)), s(15)), Step::Wait);
        assert_eq!(lease.step(Some(theirs(3)), s(16)), Step::Take(3));
        assert_eq!(lease.step(Some(theirs(4)), s(17)), Step::Wait, "it was faster after all");
    }

    #[test]
    fn a_time_in_which_nothing_was_read_counts_for_nothing() {
        let mut lease = Lease::default();
        assert_eq!(lease.step(Some(theirs(3)), s(10)), Step::Wait);
        lease.lost();
        assert_eq!(lease.step(Some(theirs(3)), s(60)), Step::Wait, "NATS was away for both");
        assert_eq!(lease.step(Some(theirs(3)), s(66)), Step::Take(3));
    }
}
