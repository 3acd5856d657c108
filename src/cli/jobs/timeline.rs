//! A job's events as a timeline, with repeated failures folded into one line.

use std::time::Duration;

use super::words;
use crate::clock::Timestamp;
use crate::job::Reason;
use crate::job::phase::Event;
use crate::journal::Happened;

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// When it happened first.
    pub(super) at: Timestamp,
    /// When it happened last.
    pub(super) until: Timestamp,
    /// How many times it happened.
    pub(super) times: u64,
    /// Time since the end of the previous moment.
    pub(super) after: Duration,
    /// The event's name.
    pub(super) event: &'static str,
    /// The reason, if it is a failure.
    pub(super) reason: Option<Reason>,
    /// The last of the events in words, safe to print.
    pub(super) text: String,
}

/// Folds these events into moments. `begin` is the time before the first.
pub(super) fn fold(begin: Timestamp, events: &[Happened]) -> Vec<Moment> {
    let mut moments: Vec<Moment> = Vec::new();
    for Happened { at, until, times, event } in events {
        let reason = reason_of(event);
        let text = words::event(event);
        match moments.last_mut() {
            Some(last) if reason.is_some() && last.reason == reason => {
                (last.until, last.times, last.text) = (*until, last.times + times, text);
            }
            last => {
                let before = last.map_or(begin, |last| last.until);
                let (at, until, times, after) = (*at, *until, *times, at.since(before));
                let event = event.name();
                moments.push(Moment { at, until, times, after, event, reason, text });
            }
        }
    }
    moments
}

/// The reason of a failed step.
const fn reason_of(event: &Event) -> Option<Reason> {
    match event {
        Event::Failed { fault, .. } => Some(fault.reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::phase::{Fault, Retry};

    #[test]
    fn failures_of_one_kind_are_one_line_with_the_last_ones_words() {
        let at = Timestamp::from_unix_ms;
        let once = |ms, event| Happened { at: at(ms), until: at(ms), times: 1, event };
        let failed = |ms, reason, error: &str| {
            let fault = Fault::new(reason, error);
            once(ms, Event::Failed { fault, retry: Retry::Patiently })
        };
        let events = [
            failed(10, Reason::InputUnavailable, "first"),
            failed(20, Reason::InputUnavailable, "second"),
            failed(40, Reason::NodeFault, "other"),
            once(90, Event::Fetched),
        ];
        let moments = fold(at(4), &events);
        let told: Vec<_> = moments
            .iter()
            .map(|one| (one.at.unix_ms(), one.until.unix_ms(), one.times, one.after.as_millis()))
            .collect();
        assert_eq!(told, [(10, 20, 2, 6), (40, 40, 1, 20), (90, 90, 1, 50)]);
        assert!(moments[0].text.contains("second"), "{:?}", moments[0]);
    }
}
