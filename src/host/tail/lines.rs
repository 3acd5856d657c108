//! Cuts the bytes of a file into lines.
//!
//! Must hold: each byte is given out in one line, counted as cut, or part of what ends a line; at most 64 KiB of a line
//! are kept, however long it is. `\n` and `\r\n` end a line, a lone `\r` ends a state of a progress bar.

use super::position::GUARD_MAX;

/// The most bytes of a line that are kept.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its first bytes, at most [`LINE_BYTES_MAX`], without what ended it. They may be anything: NUL, invalid UTF-8.
    pub bytes: Vec<u8>,
    /// Number of bytes of the line that were left out.
    pub cut: u64,
    /// It was ended by a lone `\r`, or not yet: a state of a progress bar, which the next one overwrites.
    pub is_progress: bool,
    /// Where it begins in its file.
    pub offset: u64,
}

/// Bytes that were read and not given out yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    begin: usize,
    /// Where in the file the next line begins.
    offset: u64,
    /// The last bytes before the buffer.
    before: Vec<u8>,
    /// The line in hand, once it is longer than what is kept of one.
    long: Option<Long>,
    /// The text before the line in hand ended with a lone `\r`.
    after_return: bool,
}

/// The beginning of a long line.
#[derive(Debug, Default)]
struct Long {
    kept: Vec<u8>,
    cut: u64,
    /// The last bytes of it that were read.
    last: Vec<u8>,
}

impl Lines {
    /// Nothing read, at this offset, which `before` precedes.
    pub(super) fn at(offset: u64, before: &[u8]) -> Self {
        Self { offset, before: before.to_vec(), ..Self::default() }
    }

    /// Where in the file the first byte lies that was not given out.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is held of a line that has not ended.
    pub(super) const fn is_empty(&self) -> bool {
        self.begin == self.buffer.len() && self.long.is_none()
    }

    /// Whether what is held of a line that has not ended is a state of a progress bar.
    pub(super) fn is_bar(&self) -> bool {
        !self.is_empty() && (self.after_return || self.buffer.last() == Some(&b'\r'))
    }

    /// The last bytes before the offset.
    pub(super) fn guard(&self) -> Vec<u8> {
        let given = self.buffer.get(..self.begin).unwrap_or_default();
        last_of(&self.before, given)
    }

    /// The buffer, for more bytes to be appended to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.before = self.guard();
        self.buffer.drain(..self.begin);
        self.begin = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > LINE_BYTES_MAX {
            // A log that rests keeps no memory.
            self.buffer = Vec::new();
        }
        &mut self.buffer
    }

    /// Appends complete lines to `to`, up to so many in it and about so many bytes more.
    pub(super) fn take(&mut self, to: &mut Vec<Line>, lines_max: usize, bytes_max: usize) {
        let mut bytes = 0;
        while to.len() < lines_max && bytes < bytes_max {
            let rest = self.buffer.get(self.begin..).unwrap_or_default();
            let Some((length, ending)) = end_of_line(rest) else { return self.shorten() };
            let is_progress = ending == Ending::Return;
            bytes += length;
            self.give(length, is_progress, to);
            self.skip(ending.len());
            self.after_return = is_progress;
        }
    }

    /// Gives out what is held of a line that has not ended, as if it had.
    pub(super) fn take_rest(&mut self) -> Option<Line> {
        if self.is_empty() {
            return None;
        }
        let mut lines = Vec::new();
        let is_bar = self.is_bar();
        let held = self.buffer.len().saturating_sub(self.begin);
        let returned = usize::from(self.buffer.last() == Some(&b'\r') && held > 0);
        self.give(held - returned, is_bar, &mut lines);
        self.skip(returned);
        self.after_return = is_bar;
        lines.pop()
    }

    /// Gives out the line in hand as if it had ended, if it is longer than what is kept of one.
    pub(super) fn take_long(&mut self) -> Option<Line> {
        self.long.is_some().then(|| self.take_rest()).flatten()
    }

    /// Moves so many bytes, and what was long before them, into a line.
    fn give(&mut self, length: usize, is_progress: bool, to: &mut Vec<Line>) {
        let offset = self.offset;
        let text = self.buffer.get(self.begin..self.begin + length).unwrap_or_default();
        let (bytes, cut) = if let Some(mut long) = self.long.take() {
            self.offset += long.kept.len() as u64 + long.cut;
            self.before = std::mem::take(&mut long.last);
            long.append(text);
            (long.kept, long.cut)
        } else {
            let kept = text.get(..LINE_BYTES_MAX).unwrap_or(text);
            (kept.to_vec(), (text.len() - kept.len()) as u64)
        };
        self.skip(length);
        // `\r` before each state makes an empty one between two.
        if !(is_progress && bytes.is_empty()) {
            to.push(Line { bytes, cut, is_progress, offset });
        }
    }

    fn skip(&mut self, length: usize) {
        self.begin += length;
        self.offset += length as u64;
    }

    /// Forgets the bytes of a line that is longer than what is kept of one.
    fn shorten(&mut self) {
        let held = self.buffer.len() - self.begin;
        // The last byte may be a `\r` that a `\n` follows.
        let (Some(sure), true) = (held.checked_sub(1), held > LINE_BYTES_MAX) else { return };
        let guard = self.guard();
        let text = self.buffer.get(self.begin..self.begin + sure).unwrap_or_default();
        let long = self.long.get_or_insert_with(|| Long { last: guard.clone(), ..Long::default() });
        long.append(text);
        long.last = last_of(&long.last, text);
        self.before = guard;
        self.buffer.drain(..self.begin + sure);
        self.begin = 0;
    }
}

impl Long {
    /// Keeps of more text what there is room for.
    fn append(&mut self, text: &[u8]) {
        let room = text.len().min(LINE_BYTES_MAX.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(text.get(..room).unwrap_or_default());
        self.cut += (text.len() - room) as u64;
    }
}

/// The last bytes of `before` and `after` together, as many as a guard has.
pub(super) fn last_of(before: &[u8], after: &[u8]) -> Vec<u8> {
    let more = GUARD_MAX.saturating_sub(after.len()).min(before.len());
    let mut last = before.get(before.len() - more..).unwrap_or_default().to_vec();
    last.extend_from_slice(after.get(after.len().saturating_sub(GUARD_MAX)..).unwrap_or_default());
    last
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Newline,
    ReturnNewline,
    Return,
}

impl Ending {
    const fn len(self) -> usize {
        if matches!(self, Self::ReturnNewline) { 2 } else { 1 }
    }
}

/// The length of the first line and what ends it; `None` if it has not ended.
fn end_of_line(text: &[u8]) -> Option<(usize, Ending)> {
    let end = memchr::memchr2(b'\n', b'\r', text)?;
    if text.get(end) == Some(&b'\n') {
        return Some((end, Ending::Newline));
    }
    let next = text.get(end + 1)?;
    Some((end, if *next == b'\n' { Ending::ReturnNewline } else { Ending::Return }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Line> {
        let mut found = Vec::new();
        lines.take(&mut found, usize::MAX, usize::MAX);
        found
    }

    fn texts(text: &str) -> Vec<(String, bool)> {
        let mut lines = Lines::at(0, b"");
        lines.buffer().extend_from_slice(text.as_bytes());
        let mut found = all(&mut lines);
        found.extend(lines.take_rest());
        let text =
            |line: Line| (String::from_utf8_lossy(&line.bytes).into_owned(), line.is_progress);
        found.into_iter().map(text).collect()
    }

    fn line(text: &str) -> (String, bool) {
        (text.to_owned(), false)
    }

    fn bar(text: &str) -> (String, bool) {
        (text.to_owned(), true)
    }

    #[test]
    fn a_line_ends_with_either_newline_and_a_bar_with_a_return() {
        assert_eq!(texts("a\nb\r\n\nc"), [line("a"), line("b"), line(""), line("c")]);
        assert_eq!(
            texts("\r 1%\r 2%\r 9%\nend\n"),
            [bar(" 1%"), bar(" 2%"), line(" 9%"), line("end")]
        );
        assert_eq!(texts("x\r1%\r2%"), [bar("x"), bar("1%"), bar("2%")]);
        assert_eq!(texts("1%\r"), [bar("1%")]);
    }

    #[test]
    fn a_line_that_has_not_ended_is_held() {
        let mut lines = Lines::at(7, b"before\n");
        lines.buffer().extend_from_slice(b"half a");
        assert_eq!(all(&mut lines), []);
        assert!(!lines.is_empty() && !lines.is_bar());
        assert_eq!((lines.offset(), lines.guard()), (7, b"before\n".to_vec()));
        lines.buffer().extend_from_slice(b" line\r");
        assert_eq!(all(&mut lines), [], "a newline may follow");
        lines.buffer().extend_from_slice(b"\nnext");
        let found = all(&mut lines);
        assert_eq!((found[0].bytes.as_slice(), found[0].offset), (b"half a line".as_slice(), 7));
        assert_eq!(lines.offset(), 20);
        assert_eq!(lines.guard(), b"before\nhalf a line\r\n");
    }

    #[test]
    fn a_long_line_is_cut_and_what_is_left_out_is_counted() {
        let mut lines = Lines::at(0, b"");
        for _ in 0..1_000 {
            lines.buffer().extend_from_slice(&[b'x'; 10_000]);
            assert_eq!(all(&mut lines), []);
        }
        assert!(lines.buffer().capacity() < 1 << 20);
        assert_eq!(lines.offset(), 0, "a restart reads the line again");
        lines.buffer().extend_from_slice(b"yz\nnext\n");
        let found = all(&mut lines);
        assert_eq!(found[0].bytes.len(), LINE_BYTES_MAX);
        assert_eq!(found[0].bytes.len() as u64 + found[0].cut, 10_000_002);
        assert_eq!((found[1].bytes.as_slice(), found[1].offset), (b"next".as_slice(), 10_000_003));
        assert_eq!(lines.offset(), 10_000_008);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_their_bytes_came(
            text in prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..200),
            cuts in prop::collection::vec(1_usize..9, 1..200),
        ) {
            let mut whole = Lines::at(0, b"");
            whole.buffer().extend_from_slice(&text);
            let expected = all(&mut whole);
            let (mut lines, mut found, mut rest) = (Lines::at(0, b""), Vec::new(), text.as_slice());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                lines.buffer().extend_from_slice(now);
                lines.take(&mut found, usize::MAX, usize::MAX);
                rest = later;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(lines.offset(), whole.offset());
            prop_assert_eq!(lines.guard(), whole.guard());
            prop_assert_eq!(lines.guard(), last_of(b"", &text[..usize::try_from(lines.offset()).unwrap()]));
        }
    }
}
