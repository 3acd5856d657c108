//! What is read next: the steps of a reader, one after the other, on a thread that may block.
//!
//! Must hold: what is read was not given out before; a file is left only at its end; and what was lost is told before
//! what comes after it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::family::Age;
use super::lines::Line;
use super::open::{self, Key, Refusal};
use super::position::{Mark, Position};
use super::search::{self, After, Next};
use super::source::{Fill, Source};
use super::start;
use super::{Config, GapWhy, LINES_MAX, Read};

/// How many bytes of lines are given out at once, about.
pub(super) const BATCH_BYTES: usize = 512 * 1024;

/// How many small steps are one step.
const ROUNDS: usize = 64;

/// How long a state of a progress bar rests before it is given out.
const BAR_RESTS: Duration = Duration::from_secs(1);

/// What a step gave.
#[derive(Debug)]
pub(super) enum Step {
    /// Something to tell.
    Told(Box<Read>),
    /// Nothing yet, and there is more to do at once.
    Again,
    /// Nothing to do before this time is over or a file changes.
    Idle(Duration),
}

/// Where the reader is.
#[derive(Debug)]
pub(super) enum Place {
    /// At no file yet.
    Nowhere,
    /// After a file that is gone.
    After { age: Age, placed: u64 },
    /// In a file.
    On(Box<Source>),
}

/// Something that is lost, and how much of it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) why: GapWhy,
    pub(super) bytes: Option<u64>,
}

/// What was in a file before it was truncated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    /// How many bytes of it were given out.
    pub(super) had: u64,
    /// How long it was at the latest look.
    pub(super) size: u64,
}

impl Cut {
    pub(super) const fn of(mark: &Mark) -> Self {
        Self { had: mark.offset, size: mark.size }
    }

    /// How many bytes that were seen are lost; `None` if none is known to be.
    pub(super) fn lost(self) -> Option<u64> {
        self.size.checked_sub(self.had).filter(|lost| *lost > 0)
    }
}

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) config: Config,
    pub(super) place: Place,
    /// Files that were rotated a short time ago, oldest first: they may still grow.
    pub(super) retired: Vec<Source>,
    /// Files that are left and as old as the one in hand, as far as their file system can tell.
    pub(super) ties: Vec<Key>,
    /// What is told next.
    pub(super) waiting: VecDeque<Read>,
    /// This boot of the host.
    pub(super) boot: String,
    /// Where to begin, until that was looked for.
    pub(super) resume: Option<Position>,
    /// A gap that is told as soon as it is known what comes after it.
    pub(super) gap: Option<Gap>,
    /// The file was truncated, and what was had of what was in it before.
    pub(super) cut: Option<Cut>,
    /// The truncated file, while what is left of its text is read from a copy.
    pub(super) original: Option<Box<Source>>,
    trouble: Option<String>,
    missing_since: Option<Instant>,
    has_looked: bool,
    has_read: bool,
}

impl Follower {
    pub(super) fn new(config: Config, resume: Option<Position>) -> Self {
        Self {
            config,
            place: Place::Nowhere,
            retired: Vec::new(),
            ties: Vec::new(),
            waiting: VecDeque::new(),
            boot: super::super::boot_id(),
            has_read: resume.is_some(),
            resume,
            gap: None,
            cut: None,
            original: None,
            trouble: None,
            missing_since: None,
            has_looked: false,
        }
    }

    /// The files that may change.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        let current = if let Place::On(source) = &self.place { Some(&**source) } else { None };
        self.retired.iter().chain(current)
    }

    /// Lines that were read already, without a look at any file.
    pub(super) fn ready(&mut self) -> Option<Read> {
        if let Some(read) = self.waiting.pop_front() {
            return Some(read);
        }
        let Place::On(source) = &mut self.place else { return None };
        if self.cut.is_some() && !source.is_copy {
            return None;
        }
        let mut lines = Vec::new();
        source.lines.take(&mut lines, LINES_MAX, BATCH_BYTES);
        self.lines(lines)
    }

    /// Looks for something to tell.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(position) = self.resume.take() {
            self.take_up(&position, now);
        }
        for _ in 0..ROUNDS {
            if let Some(read) = self.ready() {
                return Step::Told(Box::new(read));
            }
            if let Some(step) = self.round(now) {
                return step;
            }
        }
        Step::Again
    }

    fn round(&mut self, now: Instant) -> Option<Step> {
        // Without a file in hand, or while a gap is not told yet, there is no place to come back to.
        if self.position().is_some() {
            let lines = self.take_retired(now);
            if let Some(read) = self.lines(lines) {
                return Some(Step::Told(Box::new(read)));
            }
            if !self.waiting.is_empty() {
                return None;
            }
        }
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::On(source) => self.read(source, now),
            Place::After { age, placed } => {
                self.place = Place::After { age, placed };
                let after = After { age, placed, is_copy: false, source: None };
                match search::next(&self.config.path, &after, &self.known()) {
                    Ok(next) => self.enter_new(next, now),
                    Err(refusal) => return Some(self.refused(&refusal, now)),
                }
                None
            }
            Place::Nowhere => self.begin(now),
        }
    }

    /// The first look at the path.
    fn begin(&mut self, now: Instant) -> Option<Step> {
        let opened = open::open(&self.config.path);
        // What is there and can't be read yet may have been written long before.
        let is_known = !matches!(opened, Err(Refusal::Other(_)));
        let is_first = !self.has_looked;
        self.has_looked |= is_known;
        let (file, facts) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return Some(self.refused(&refusal, now)),
        };
        // What appears later is new from its first byte on.
        let offset =
            if is_first { start::offset(&file, facts.size, self.config.start) } else { Ok(0) };
        match offset {
            Ok(offset) => {
                self.place = Place::On(Box::new(Source::new(file, facts, offset, now)));
                self.entered();
                None
            }
            Err(err) => {
                self.has_looked = !is_first;
                Some(self.refused(&err.into(), now))
            }
        }
    }

    /// Reads on in the file in hand.
    fn read(&mut self, mut source: Box<Source>, now: Instant) -> Option<Step> {
        if self.cut.is_some() && !source.is_copy {
            return self.read_after_cut(source, now);
        }
        if let Some((file, facts)) = self.unnoticed_copy(&source) {
            let (at, cut) = (source.lines.offset(), Cut::of(&source.mark_of_read()));
            self.read_copy(Source::new(file, facts, at, now), source, cut);
            return None;
        }
        match source.fill(now) {
            Ok(Fill::Bytes) => {
                if self.is_at_path(&source) {
                    source.is_placed();
                }
                self.place = Place::On(source);
            }
            Ok(Fill::Changed) => self.changed(source, now),
            Ok(Fill::End) => return self.at_end(source, now),
            Err(err) => {
                self.place = Place::On(source);
                return Some(self.refused(&err.into(), now));
            }
        }
        None
    }

    /// At the end of the file in hand: whether there is a next one.
    pub(super) fn at_end(&mut self, mut source: Box<Source>, now: Instant) -> Option<Step> {
        let rested = now.saturating_duration_since(source.grown);
        let is_bar = source.lines.is_bar();
        if is_bar && rested >= BAR_RESTS {
            let bar = source.lines.take_rest();
            self.place = Place::On(source);
            return self.lines(bar.into_iter().collect()).map(|read| Step::Told(Box::new(read)));
        }
        let wait = if is_bar { BAR_RESTS.saturating_sub(rested) } else { self.config.poll };
        if self.is_at_path(&source) && !source.is_copy {
            source.is_placed();
            self.place = Place::On(source);
            self.well();
            self.expire(now);
            // What that told comes first.
            let idle = Step::Idle(wait.min(self.config.poll));
            return self.waiting.is_empty().then_some(idle);
        }
        self.leave(source, now)
    }

    fn is_at_path(&self, source: &Source) -> bool {
        open::look(&self.config.path).is_ok_and(|facts| facts.id == source.id())
    }

    /// Goes on to the file that was written after this one, if there is one.
    fn leave(&mut self, mut source: Box<Source>, now: Instant) -> Option<Step> {
        let is_copy = source.is_copy;
        if let Err(err) = source.refresh() {
            self.place = Place::On(source);
            return Some(self.refused(&err.into(), now));
        }
        let age = Age::of(&source.facts());
        let mut known = self.known();
        known.push(source.facts().key());
        let after = After { age, placed: source.placed(), is_copy, source: Some(&source) };
        let next = search::next(&self.config.path, &after, &known);
        if is_copy {
            return self.leave_copy(source, next, now);
        }
        match next {
            Ok(next) => {
                // For the end of a line that is longer than what is kept of one nobody waits: its bytes count now.
                if let Some(line) = source.lines.take_long() {
                    self.place = Place::On(source);
                    return self.lines(vec![line]).map(|read| Step::Told(Box::new(read)));
                }
                source.grown = now;
                self.retired.push(*source);
                self.enter_new(next, now);
                self.make_room();
                None
            }
            Err(refusal) => {
                self.place = Place::On(source);
                self.expire(now);
                Some(self.refused(&refusal, now))
            }
        }
    }

    /// Begins with a file of which nothing was seen.
    fn enter_new(&mut self, next: Next, now: Instant) {
        self.enter(next, now);
        if let Place::On(source) = &mut self.place {
            source.is_unseen();
        }
    }

    /// Begins with a file, at its first byte.
    pub(super) fn enter(&mut self, next: Next, now: Instant) {
        let mut source = Source::new(next.file, next.facts, 0, now);
        source.is_copy = next.is_copy;
        let born = source.facts().born;
        self.ties.retain(|tie| tie.1.is_some() && tie.1 >= born);
        self.place = Place::On(Box::new(source));
        if next.skips_packed {
            self.gap = self.gap.or(Some(Gap { why: GapWhy::Compressed, bytes: None }));
        }
        self.entered();
    }

    /// Tells that another file is read, or what was lost before it.
    pub(super) fn entered(&mut self) {
        self.has_read = true;
        self.trouble = None;
        self.missing_since = None;
        if self.position().is_none() {
            // While it isn't known what was lost, the place before it is the one to come back to.
            return;
        }
        match self.gap.take() {
            Some(gap) => self.tell_gap(gap.bytes, gap.why),
            None => self.waiting.extend(self.position().map(|position| Read::Open { position })),
        }
    }

    pub(super) fn tell_gap(&mut self, bytes: Option<u64>, why: GapWhy) {
        self.waiting.extend(self.position().map(|position| Read::Gap { bytes, why, position }));
    }

    /// The file at the path is the one in hand.
    fn well(&mut self) {
        self.missing_since = None;
        if self.trouble.take().is_some()
            && let Some(position) = self.position()
        {
            self.waiting.push_back(Read::Open { position });
        }
    }

    /// Tells why there is nothing to read, if that is new.
    pub(super) fn refused(&mut self, refusal: &Refusal, now: Instant) -> Step {
        let idle = Step::Idle(self.config.poll);
        if *refusal == Refusal::Missing && self.has_read {
            // Between a rename and a create there is nothing at the path.
            let since = *self.missing_since.get_or_insert(now);
            if now.saturating_duration_since(since) < self.config.poll {
                return idle;
            }
        }
        let what = refusal.sentence(&self.config.path);
        if self.trouble.as_ref() == Some(&what) {
            return idle;
        }
        self.trouble = Some(what.clone());
        Step::Told(Box::new(Read::Trouble { what }))
    }

    /// Where the reader stands; `None` before the first file, and while a truncated one has no text.
    pub(super) fn position(&self) -> Option<Position> {
        let Place::On(source) = &self.place else { return None };
        if self.cut.is_some() && !source.is_copy {
            return None;
        }
        let retired = self.retired.iter().map(Source::mark).collect();
        let rungs = source.rungs.clone();
        let (boot, ties) = (self.boot.clone(), self.ties.clone());
        Some(Position { current: source.mark(), boot, rungs, ties, retired })
    }

    /// These lines and the place after them; nothing if there are none.
    pub(super) fn lines(&self, lines: Vec<Line>) -> Option<Read> {
        let position = self.position().filter(|_| !lines.is_empty())?;
        Some(Read::Lines { lines, position })
    }
}
