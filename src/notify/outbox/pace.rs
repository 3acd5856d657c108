//! How long a channel is left alone before its next message. Pure.
//!
//! Must hold: within any minute no more messages are sent than the pace allows.

use std::collections::VecDeque;
use std::time::Duration;

use crate::notify::Pace;

/// The span that a pace counts in.
const MINUTE: Duration = Duration::from_mins(1);

/// What was sent lately, in the time of a clock that never steps back.
#[derive(Debug, Default)]
pub(super) struct Paced {
    /// When messages were sent within the last minute.
    sent: VecDeque<Duration>,
    /// Nothing is sent before this.
    rests_until: Duration,
}

impl Paced {
    /// How long to wait before the next message.
    pub(super) fn wait(&mut self, pace: Pace, now: Duration) -> Duration {
        while self.sent.front().is_some_and(|at| *at + MINUTE <= now) {
            self.sent.pop_front();
        }
        let apart = self.sent.back().map(|at| *at + pace.apart);
        let over = self.sent.len().checked_sub(pace.a_minute);
        let minute = over.and_then(|over| self.sent.get(over)).map(|at| *at + MINUTE);
        let until = self.rests_until.max(apart.unwrap_or_default()).max(minute.unwrap_or_default());
        until.saturating_sub(now)
    }

    /// A message was sent.
    pub(super) fn sent(&mut self, now: Duration) {
        self.sent.push_back(now);
    }

    /// Sends nothing before this.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_messages_than_the_pace_allows() {
        let pace = Pace { apart: Duration::from_secs(1), a_minute: 20 };
        let (mut paced, mut now, mut sent) = (Paced::default(), Duration::ZERO, Vec::new());
        for _ in 0..100 {
            now += paced.wait(pace, now);
            paced.sent(now);
            sent.push(now);
        }
        for pair in sent.windows(2) {
            assert!(pair[1].abs_diff(pair[0]) >= Duration::from_secs(1), "{pair:?}");
        }
        for many in sent.windows(21) {
            assert!(many[20].abs_diff(many[0]) >= MINUTE, "{many:?}");
        }
        assert!(now < Duration::from_mins(5), "and not fewer: {now:?}");
    }

    #[test]
    fn a_channel_that_asks_to_be_left_alone_is() {
        let pace = Pace { apart: Duration::ZERO, a_minute: 20 };
        let mut paced = Paced::default();
        paced.rest(Duration::from_secs(90));
        assert_eq!(paced.wait(pace, Duration::from_mins(1)), Duration::from_secs(30));
        assert_eq!(paced.wait(pace, Duration::from_secs(91)), Duration::ZERO);
    }
}
