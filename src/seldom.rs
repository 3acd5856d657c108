//! Log lines that strangers can cause at will: a few in a span of time are told, the others counted.
//!
//! Must hold: however often something happens, at most the set number of lines in a span come of it,
//! and the next line says how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of line; see the module.
#[derive(Debug)]
pub struct Seldom {
    /// The most lines in a span.
    lines_max: u32,
    span: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Seldom {
    /// At most `lines_max` lines a minute.
    pub const fn new(lines_max: u32) -> Self {
        Self::within(lines_max, Duration::from_mins(1))
    }

    /// At most `lines_max` lines in each `span`, which begins with the first of them.
    pub const fn within(lines_max: u32, span: Duration) -> Self {
        Self { lines_max, span, state: Mutex::new(State { since: None, told: 0, left_out: 0 }) }
    }

    /// What to append to the line that is due now: nothing, or how many were left out before it. `None`
    /// if this one is left out too.
    pub fn line(&self) -> Option<String> {
        self.line_at(Instant::now())
    }

    fn line_at(&self, now: Instant) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= self.span) {
            state.since = Some(now);
            state.told = 0;
        }
        if state.told == self.lines_max {
            state.left_out += 1;
            return None;
        }
        state.told += 1;
        Some(match std::mem::take(&mut state.left_out) {
            0 => String::new(),
            more => format!(" (and {more} times more since it was last told)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_minute_with_its_number() {
        let (seldom, begin) = (Seldom::new(1), Instant::now());
        let told: Vec<_> = (0..130_000)
            .filter_map(|ms| seldom.line_at(begin + Duration::from_millis(ms)))
            .collect();
        let more = " (and 59999 times more since it was last told)";
        assert_eq!(told, ["", more, more]);
        let few = Seldom::new(3);
        assert_eq!((0..10).filter_map(|_| few.line_at(begin)).count(), 3);
    }
}
