//! Files that were rotated a short time ago: their program may still write to them.
//!
//! Must hold: they are few, each is left only once it has rested and its program writes elsewhere, or for newer ones; and
//! none that was left is read again.

use std::time::Instant;

use super::follow::{BATCH_BYTES, Follower, Place};
use super::lines::Line;
use super::open::Key;
use super::position::{RETIRED_MAX, TIES_MAX};
use super::source::{Fill, Source};
use super::{GapWhy, LINES_MAX};

impl Follower {
    /// Lines of files that were rotated and have grown since.
    pub(super) fn take_retired(&mut self, now: Instant) -> Vec<Line> {
        let (mut lines, mut left, mut has_failed) = (Vec::new(), Vec::new(), false);
        self.retired.retain_mut(|source| {
            source.lines.take(&mut lines, LINES_MAX, BATCH_BYTES);
            if !lines.is_empty() {
                return true;
            }
            let fill = source.fill(now);
            source.lines.take(&mut lines, LINES_MAX, BATCH_BYTES);
            // One that somebody truncates now was read to its end before.
            let is_over = matches!(fill, Ok(Fill::Changed) | Err(_));
            has_failed |= fill.is_err();
            if is_over {
                left.push(source.facts().key());
                lines.extend(source.lines.take_rest());
            }
            !is_over
        });
        for key in left {
            self.is_left(key);
        }
        if has_failed {
            // First of all: the place that comes with the lines doesn't have the file any more.
            self.tell_gap(None, GapWhy::Gone);
            let last = self.lines(std::mem::take(&mut lines));
            self.waiting.extend(last);
        }
        lines
    }

    /// Leaves the rotated files that have rested for longest, if there are too many.
    pub(super) fn make_room(&mut self) {
        while self.retired.len() > RETIRED_MAX {
            let quietest = self.retired.iter().enumerate().min_by_key(|(_, source)| source.grown);
            let quietest = quietest.map(|(index, _)| index);
            self.give_up(quietest);
        }
    }

    /// Leaves rotated files that no longer grow, once their program writes to a newer one.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.position().is_none() {
            // Without a place to come back to, nothing of them can be given out.
            return;
        }
        let has_text = |source: &Source| source.read_at() > 0;
        let is_over = |index: usize, source: &Source| {
            let is_quiet = now.saturating_duration_since(source.grown) >= self.config.grace;
            is_quiet && self.sources().skip(index + 1).any(has_text)
        };
        let found = self.retired.iter().enumerate().find(|(index, it)| is_over(*index, it));
        let found = found.map(|(index, _)| index);
        self.give_up(found);
    }

    fn give_up(&mut self, index: Option<usize>) {
        let Some(index) = index.filter(|index| *index < self.retired.len()) else { return };
        let mut source = self.retired.remove(index);
        self.is_left(source.facts().key());
        let rest = source.lines.take_rest().into_iter().collect();
        if let Some(read) = self.lines(rest) {
            self.waiting.push_back(read);
        }
    }

    /// Remembers a file that is left if nothing else tells that it comes before the one in hand: several were created
    /// within one tick of the file system's clock.
    fn is_left(&mut self, key: Key) {
        let Place::On(source) = &self.place else { return };
        if key.1 >= source.facts().born && key.1.is_some() {
            self.ties.push(key);
            let surplus = self.ties.len().saturating_sub(TIES_MAX);
            self.ties.drain(..surplus);
        }
    }

    /// The files whose text was read.
    pub(super) fn known(&self) -> Vec<Key> {
        let retired = self.retired.iter().map(|source| source.facts().key());
        retired.chain(self.ties.iter().copied()).collect()
    }
}
