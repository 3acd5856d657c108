//! Finds the place again after a restart, and what is left after a truncation.
//!
//! Must hold: a place is taken up only in a file that has the bytes that were read; where there is none, a gap is told.

use std::fs::File;
use std::time::Instant;

use super::GapWhy;
use super::family::{self, Age};
use super::follow::{Cut, Follower, Gap, Place, Step};
use super::open::{Facts, Refusal};
use super::position::{HEAD_MAX, Mark, Position, RETIRED_MAX, RUNGS_MAX, Rung, TIES_MAX};
use super::search::{self, Next};
use super::source::Source;

impl Follower {
    /// Goes on where the position says.
    pub(super) fn take_up(&mut self, position: &Position, now: Instant) {
        let gap = self.take_up_retired(position, now);
        self.take_up_current(position, now);
        let Some(gap) = gap else { return };
        if self.position().is_some() {
            self.tell_gap(gap.bytes, gap.why);
        } else {
            let bytes = sum(self.gap.and_then(|own| own.bytes), gap.bytes);
            self.gap = Some(Gap { bytes, ..self.gap.unwrap_or(gap) });
        }
    }

    /// Takes up the files that were rotated a short time before; says what is lost with those that are not there.
    fn take_up_retired(&mut self, position: &Position, now: Instant) -> Option<Gap> {
        let mut gap = None;
        // One more while a file is entered, before room is made.
        for mark in position.retired.iter().take(2 * RETIRED_MAX) {
            let found = family::find(&self.config.path, mark.inode);
            let Some((file, facts)) = found.filter(|found| is_at(mark, found)) else {
                let before = gap.and_then(|gap: Gap| gap.bytes);
                let bytes = sum(before, Cut::of(mark).lost());
                gap = Some(Gap { why: GapWhy::Gone, bytes });
                continue;
            };
            let mut source = Source::new(file, facts, mark.offset, now);
            source.was_seen(mark);
            self.retired.push(source);
        }
        gap
    }

    fn take_up_current(&mut self, position: &Position, now: Instant) {
        self.ties = position.ties.iter().take(TIES_MAX).copied().collect();
        let mark = &position.current;
        let found = family::find(&self.config.path, mark.inode);
        match found.filter(|found| self.may_be(mark, found)) {
            Some(found) if is_at(mark, &found) => {
                let known = |rung: &&Rung| rung.offset <= mark.offset;
                let rungs = position.rungs.iter().filter(known).take(RUNGS_MAX).copied().collect();
                let copy = search::unnoticed_copy(&self.config.path, &found.0, mark, &self.known());
                let Some((file, facts)) = copy else {
                    self.go_on(found, mark, now);
                    if let Place::On(source) = &mut self.place {
                        source.rungs = rungs;
                    }
                    return;
                };
                let mut original = Box::new(Source::new(found.0, found.1, 0, now));
                original.was_seen(mark);
                let copy = Source::new(file, facts, mark.offset, now);
                self.read_copy(copy, original, Cut::of(mark));
            }
            Some((file, facts)) => {
                let rung = self.rung(position, &file);
                if let Some(rung) = rung {
                    return self.go_back((file, facts), rung, mark, now);
                }
                let mut source = Source::new(file, facts, 0, now);
                source.was_seen(mark);
                self.was_truncated(Box::new(source), mark, now);
            }
            None => self.is_gone(mark, now),
        }
    }

    /// Whether a file with the inode of the place may be the one that was read. Where the file system doesn't tell when
    /// a file was created, another program may have got the inode: then the text or the name decides.
    fn may_be(&self, mark: &Mark, found: &(File, Facts)) -> bool {
        if mark.born.is_some() {
            return found.1.born == mark.born;
        }
        let is_known = !mark.is_weak() && is_at(mark, found);
        is_known || family::is_named(&self.config.path, mark.inode)
    }

    /// Reads the file from the place on.
    fn go_on(&mut self, (file, facts): (File, Facts), mark: &Mark, now: Instant) {
        let mut source = Source::new(file, facts, mark.offset, now);
        source.was_seen(mark);
        self.cut = mark.is_copy.then(Cut::default);
        self.place = Place::On(Box::new(source));
    }

    /// How far a file is the same of which a power cut took the end: the file had been read before it was on the disk.
    fn rung(&self, position: &Position, file: &File) -> Option<Rung> {
        let mark = &position.current;
        let may_be = position.boot != self.boot && mark.is_distinctive() && mark.fits_head(file);
        let rungs = position.rungs.iter().rev().filter(|_| may_be);
        rungs.copied().find(|rung| rung.offset >= HEAD_MAX as u64 && rung.fits(file))
    }

    /// Reads the end of a file again that a power cut took, or that was written anew since.
    fn go_back(&mut self, (file, facts): (File, Facts), rung: Rung, mark: &Mark, now: Instant) {
        let mut source = Source::new(file, facts, rung.offset, now);
        source.was_seen(mark);
        self.place = Place::On(Box::new(source));
        self.tell_gap(None, GapWhy::Truncated);
    }

    fn is_gone(&mut self, mark: &Mark, now: Instant) {
        if let Some(found) = search::moved(&self.config.path, mark) {
            return self.go_on(found, mark, now);
        }
        // It may have been copied and truncated before it was removed.
        let copy = search::copy_of(&self.config.path, mark, &self.known());
        if let Some((file, facts, has_rest)) = copy.filter(|_| !mark.is_weak()) {
            let at = if has_rest { mark.offset } else { facts.size };
            let mut copy = Source::new(file, facts, at, now);
            copy.is_copy = true;
            self.cut = Some(Cut::of(mark));
            self.place = Place::On(Box::new(copy));
            return;
        }
        let is_packed = search::was_packed(&self.config.path, mark);
        let why = if is_packed { GapWhy::Compressed } else { GapWhy::Gone };
        self.gap = Some(Gap { why, bytes: Cut::of(mark).lost() });
        let age = Age { born: mark.born, modified: mark.modified };
        self.place = Place::After { age, placed: mark.placed };
    }

    /// The file in hand was truncated or overwritten.
    pub(super) fn changed(&mut self, mut source: Box<Source>, now: Instant) {
        let mark = source.mark_of_read();
        let rest = search::copy_of(&self.config.path, &mark, &self.known());
        if let Some((file, facts, true)) = rest {
            let at = source.lines.offset();
            return self.read_copy(Source::new(file, facts, at, now), source, Cut::of(&mark));
        }
        // What is held of a line is all that there will be of it.
        let line = source.lines.take_rest();
        self.place = Place::On(source);
        if let Some(read) = self.lines(line.into_iter().collect()) {
            self.waiting.push_back(read);
        }
        if let Place::On(source) = std::mem::replace(&mut self.place, Place::Nowhere) {
            self.was_truncated(source, &mark, now);
        }
    }

    /// Nothing of what was in this file is there; perhaps in a copy.
    fn was_truncated(&mut self, source: Box<Source>, mark: &Mark, now: Instant) {
        match search::copy_of(&self.config.path, mark, &self.known()) {
            Some((file, facts, has_rest)) => {
                let at = if has_rest { mark.offset } else { facts.size };
                self.read_copy(Source::new(file, facts, at, now), source, Cut::of(mark));
            }
            None => {
                self.begin_after_cut(source, Cut::of(mark));
            }
        }
    }

    /// Waits for text in a truncated file, of whose old text so much was had.
    fn begin_after_cut(&mut self, mut source: Box<Source>, cut: Cut) {
        source.begin_anew(0);
        // An inode alone may soon be that of a newer file.
        self.ties.retain(|tie| tie.1.is_some());
        self.cut = Some(cut);
        self.place = Place::On(source);
    }

    /// A copy of a file that was truncated since, though the file looks as if it was not.
    pub(super) fn unnoticed_copy(&self, source: &Source) -> Option<(File, Facts)> {
        let mark = source.mark_of_read();
        if source.is_copy || !mark.is_weak() || !source.may_have_changed() {
            return None;
        }
        search::unnoticed_copy(&self.config.path, source.file(), &mark, &self.known())
    }

    /// Reads the rest from a copy, then the original again.
    pub(super) fn read_copy(&mut self, mut copy: Source, original: Box<Source>, cut: Cut) {
        copy.is_copy = true;
        self.original = Some(original);
        self.cut = Some(cut);
        self.place = Place::On(Box::new(copy));
    }

    /// At the end of a copy: goes on to a later copy, or to the file that was truncated.
    pub(super) fn leave_copy(
        &mut self,
        mut copy: Box<Source>,
        next: Result<Next, Refusal>,
        now: Instant,
    ) -> Option<Step> {
        // What is held of a line is all that the copy has of it.
        if let Some(line) = copy.lines.take_rest() {
            self.place = Place::On(copy);
            return self.lines(vec![line]).map(|read| Step::Told(Box::new(read)));
        }
        match next {
            Ok(next) if next.is_copy => {
                let bytes = self.cut_after(&copy).lost();
                self.gap = Some(Gap { why: GapWhy::Truncated, bytes });
                self.cut = None;
                self.enter_other_copy(&copy, next, now);
                self.cut = Some(Cut::default());
            }
            next => {
                let cut = self.cut_after(&copy);
                if let Some(mut original) = self.original.take() {
                    original.follows_copy(&copy);
                    self.begin_after_cut(original, cut);
                    return None;
                }
                match next {
                    Ok(next) => {
                        self.cut = Some(cut);
                        self.enter(next, now);
                        if let Place::On(source) = &mut self.place {
                            source.follows_copy(&copy);
                        }
                    }
                    Err(refusal) => {
                        self.place = Place::On(copy);
                        return Some(self.refused(&refusal, now));
                    }
                }
            }
        }
        None
    }

    /// What was had of a truncated file once this copy of it was read.
    fn cut_after(&self, copy: &Source) -> Cut {
        let cut = self.cut.unwrap_or_default();
        Cut { had: cut.had.max(copy.read_at()), ..cut }
    }

    /// Goes on to a copy that may be exactly as old as the one that is left, which then must not follow it.
    fn enter_other_copy(&mut self, copy: &Source, next: Next, now: Instant) {
        let is_as_old = Age::of(&copy.facts()).order(Age::of(&next.facts)).is_eq();
        let mut ties = if is_as_old { self.ties.clone() } else { Vec::new() };
        self.enter(next, now);
        if is_as_old {
            ties.push(copy.facts().key());
            let surplus = ties.len().saturating_sub(TIES_MAX);
            ties.drain(..surplus);
            self.ties = ties;
        }
    }

    /// Begins a truncated file anew as soon as there is text in it, which tells how much was lost.
    pub(super) fn read_after_cut(&mut self, mut source: Box<Source>, now: Instant) -> Option<Step> {
        // It may have been written, copied and truncated again meanwhile.
        let copy =
            search::unnoticed_copy(&self.config.path, source.file(), &source.mark(), &self.known());
        if let Some((file, facts)) = copy.filter(|_| source.may_have_changed()) {
            let lost = self.cut.take().and_then(Cut::lost).filter(|lost| *lost > 0);
            self.read_copy(Source::new(file, facts, 0, now), source, Cut::default());
            self.tell_gap(lost, GapWhy::Truncated);
            return None;
        }
        let begin = match source.first_text() {
            Ok(Some(begin)) => begin,
            Ok(None) => return self.at_end(source, now),
            Err(err) => {
                self.place = Place::On(source);
                return Some(self.refused(&err.into(), now));
            }
        };
        let cut = self.cut.take().unwrap_or_default();
        source.begin_anew(begin);
        self.place = Place::On(source);
        // A program that goes on where it was leaves a hole as long as what it had written.
        let hole = (begin > 0).then(|| begin.saturating_sub(cut.had));
        // After a power cut the hole may be shorter than what was seen.
        let bytes = hole.max(cut.lost());
        let gap = self.gap.take();
        if bytes != Some(0) {
            self.tell_gap(sum(bytes, gap.and_then(|gap| gap.bytes)), GapWhy::Truncated);
        } else if let Some(gap) = gap {
            self.tell_gap(gap.bytes, gap.why);
        }
        None
    }
}

/// Bytes that are lost in two places; `None` if none is known to be.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.map_or(other, |one| Some(one.saturating_add(other.unwrap_or(0))))
}

/// Whether the file has the bytes that were read, up to the place.
fn is_at(mark: &Mark, (file, facts): &(File, Facts)) -> bool {
    let is_same = mark.born.is_none() || facts.born == mark.born;
    is_same && facts.size >= mark.offset && mark.fits(file)
}
