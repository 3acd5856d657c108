//! One open file of a log.
//!
//! Must hold: bytes are taken only if the file's first bytes and those before them are still what they were, so that
//! what was truncated and has grown again is not taken for the rest of what was read.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::lines::{Lines, last_of};
use super::open::{Facts, Id};
use super::position::{GUARD_MAX, HEAD_MAX, Mark, Print, Rung, add_rung};

/// The most bytes read at once.
const CHUNK_BYTES: u64 = 256 * 1024;

/// What an attempt to read more gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// More bytes.
    Bytes,
    /// There are none.
    End,
    /// The file was truncated or overwritten.
    Changed,
}

#[derive(Debug)]
pub(super) struct Source {
    file: File,
    facts: Facts,
    /// Where the next byte is read.
    read_at: u64,
    /// The bytes before `read_at`.
    last: Vec<u8>,
    /// The first bytes.
    head: Vec<u8>,
    head_print: Print,
    pub(super) lines: Lines,
    /// Places before the one in hand.
    pub(super) rungs: Vec<Rung>,
    /// When it was last written to, as far as was seen when it was at the log's path.
    placed: u64,
    /// A copy that was made before a file was truncated: it doesn't grow.
    pub(super) is_copy: bool,
    /// When bytes came last, or since when it is read.
    pub(super) grown: Instant,
}

impl Source {
    /// Reads this file from this offset on.
    pub(super) fn new(file: File, facts: Facts, offset: u64, now: Instant) -> Self {
        let mut last = vec![0; usize::try_from(offset).unwrap_or(GUARD_MAX).min(GUARD_MAX)];
        let from = offset - last.len() as u64;
        if file.read_exact_at(&mut last, from).is_err() {
            // It was truncated just now, which the next look finds.
            last.clear();
        }
        let lines = Lines::at(offset, &last);
        let mut source = Self {
            file,
            facts,
            read_at: offset,
            last,
            head: Vec::new(),
            head_print: Print::of(&[]),
            lines,
            rungs: Vec::new(),
            placed: 0,
            is_copy: false,
            grown: now,
        };
        // If it fails now, it fails again when more is read.
        source.learn_head().ok();
        source
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn id(&self) -> Id {
        self.facts.id
    }

    /// As at the latest look.
    pub(super) const fn facts(&self) -> Facts {
        self.facts
    }

    pub(super) const fn read_at(&self) -> u64 {
        self.read_at
    }

    /// The place of the first byte that was not given out.
    pub(super) fn mark(&self) -> Mark {
        self.mark_of(self.lines.offset(), &self.lines.guard())
    }

    /// The place of the first byte that was not read.
    pub(super) fn mark_of_read(&self) -> Mark {
        self.mark_of(self.read_at, &self.last)
    }

    fn mark_of(&self, offset: u64, guard: &[u8]) -> Mark {
        Mark {
            device: self.facts.id.device,
            inode: self.facts.id.inode,
            born: self.facts.born,
            modified: self.facts.modified,
            placed: self.placed,
            size: self.facts.size.max(self.read_at),
            offset,
            head: self.head_print,
            guard: Print::of(guard),
            is_copy: self.is_copy,
        }
    }

    /// Nothing of it was seen since it was created: a copy that is newer than that is one of it.
    pub(super) fn is_unseen(&mut self) {
        self.facts.modified = self.facts.born.unwrap_or(self.facts.modified);
    }

    /// It was seen at the log's path.
    pub(super) fn is_placed(&mut self) {
        self.placed = self.placed.max(self.facts.modified);
    }

    /// A copy of what was in it before was read: what comes after it is newer than that.
    pub(super) fn follows_copy(&mut self, copy: &Self) {
        self.placed = self.placed.max(copy.facts.born.map_or(0, |born| born.saturating_add(1)));
    }

    pub(super) const fn placed(&self) -> u64 {
        self.placed
    }

    /// Takes up what was seen of it before a restart.
    pub(super) fn was_seen(&mut self, mark: &Mark) {
        self.placed = mark.placed;
        self.is_copy = mark.is_copy;
    }

    /// Looks at the file again.
    pub(super) fn refresh(&mut self) -> io::Result<Facts> {
        self.facts = Facts::of(&self.file.metadata()?);
        Ok(self.facts)
    }

    /// Whether it was written to since the latest look.
    pub(super) fn may_have_changed(&self) -> bool {
        let now = self.file.metadata().ok().map(|meta| Facts::of(&meta));
        now.is_none_or(|now| now.size != self.read_at || now.modified != self.facts.modified)
    }

    /// Reads more bytes, if there are any.
    pub(super) fn fill(&mut self, now: Instant) -> io::Result<Fill> {
        let seen = self.facts;
        let facts = self.refresh()?;
        let fill = self.fill_from(facts, seen, now);
        if matches!(fill, Ok(Fill::Changed)) {
            // When what was read was written is what tells its copy from others.
            self.facts = seen;
        }
        fill
    }

    fn fill_from(&mut self, facts: Facts, seen: Facts, now: Instant) -> io::Result<Fill> {
        if facts.size < self.read_at {
            return Ok(Fill::Changed);
        }
        if facts.size == self.read_at && facts.modified == seen.modified {
            return Ok(Fill::End);
        }
        if !self.learn_head()? {
            return Ok(Fill::Changed);
        }
        let (offset, lines) = (self.lines.offset(), &self.lines);
        add_rung(&mut self.rungs, offset, || Print::of(&lines.guard()));
        let wanted = (facts.size - self.read_at).min(CHUNK_BYTES);
        let fill = self.read(usize::try_from(wanted).unwrap_or(0))?;
        if fill == Fill::Bytes {
            self.grown = now;
        }
        Ok(fill)
    }

    /// Reads the first bytes until there are as many as are wanted; says whether they begin as they did.
    fn learn_head(&mut self) -> io::Result<bool> {
        let mut bytes = [0; HEAD_MAX];
        let count = self.file.read_at(&mut bytes, 0)?;
        let bytes = bytes.get(..count).unwrap_or_default();
        let is_same = bytes.starts_with(&self.head);
        if is_same && bytes.len() > self.head.len() {
            self.head = bytes.to_vec();
            self.head_print = Print::of(bytes);
        }
        Ok(is_same)
    }

    /// Reads so many bytes and those before them in one call, so that no truncation comes between the two.
    fn read(&mut self, wanted: usize) -> io::Result<Fill> {
        let mut guard = [0; GUARD_MAX];
        let Some(guard) = guard.get_mut(..self.last.len()) else { return Ok(Fill::Changed) };
        let buffer = self.lines.buffer();
        let held = buffer.len();
        buffer.resize(held + wanted, 0);
        let from = self.read_at - guard.len() as u64;
        let (_, to) = buffer.split_at_mut(held);
        let parts = &mut [IoSliceMut::new(guard), IoSliceMut::new(to)];
        let read = rustix::io::preadv(&self.file, parts, from);
        let more = read.as_ref().ok().and_then(|count| count.checked_sub(self.last.len()));
        let is_same = *guard == *self.last;
        buffer.truncate(held + more.filter(|_| is_same).unwrap_or(0));
        read?;
        let (Some(count), true) = (more, is_same) else { return Ok(Fill::Changed) };
        self.last = last_of(&self.last, buffer.get(held..).unwrap_or_default());
        self.read_at += count as u64;
        Ok(if count == 0 { Fill::End } else { Fill::Bytes })
    }

    /// Reads the file as a new one, whose text begins at this offset. What is held of the old one is forgotten.
    pub(super) fn begin_anew(&mut self, at: u64) {
        // A copy that is older than this belongs to what was in it before.
        self.refresh().ok();
        self.is_copy = false;
        self.read_at = at;
        self.last = Vec::new();
        self.lines = Lines::at(at, &[]);
        self.head = Vec::new();
        self.head_print = Print::of(&[]);
        self.rungs = Vec::new();
    }

    /// Where its text begins: after the hole that a program leaves which goes on writing where it was when its file
    /// was truncated. `None` if the file is empty.
    pub(super) fn first_text(&self) -> io::Result<Option<u64>> {
        if self.file.metadata()?.len() == 0 {
            return Ok(None);
        }
        let data = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(0));
        // Not every file system knows its holes.
        let mut at = data.unwrap_or(0);
        let mut bytes = vec![0; NUL_CHUNK];
        for _ in 0..NUL_CHUNKS_MAX {
            let count = self.file.read_at(&mut bytes, at)?;
            if count == 0 {
                return Ok(None);
            }
            let text =
                bytes.get(..count).and_then(|bytes| bytes.iter().position(|byte| *byte != 0));
            if let Some(text) = text {
                return Ok(Some(at + text as u64));
            }
            at += count as u64;
        }
        Ok(Some(at))
    }
}

/// NUL bytes are looked through in pieces of this size.
const NUL_CHUNK: usize = 64 * 1024;

/// The most such pieces, 1 GiB, on a file system that doesn't know its holes.
const NUL_CHUNKS_MAX: usize = 16 * 1024;
