//! A container's output while it runs: kept in part for good, sent out live in part.
//!
//! What must hold: neither grows with what a job writes. The kept log has its first and its last
//! part where it is too long, with a line between that says how much is left out; live lines are
//! lossy by design, and a gap says how many lines it swallowed. A carriage return ends a live line,
//! too: a progress bar writes nothing else for hours.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::agent::jobs::folders::LOG_BYTES_MAX;
use crate::clock::Timestamp;
use crate::container::{LogChunk, LogStream};

/// The beginning of a log tells what was started; enough for the longest banner.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// The end tells why it stopped; enough for a traceback with its warnings.
const TAIL_BYTES_MAX: usize = 768 * 1024;
const _: () = assert!((HEAD_BYTES_MAX + TAIL_BYTES_MAX) as u64 + 64 <= LOG_BYTES_MAX);
/// A longer line is cut: it must fit into a message with room to spare.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Live lines a second, and how many may come at once.
const LINES_PER_S: f64 = 500.0;
const LINES_AT_ONCE: f64 = 2000.0;

/// A line as it is published on `jobs.logs.…`, or a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Live {
    /// One line.
    Line {
        /// From 1, by one, gaps not counted.
        seq: u64,
        /// Which output it came from.
        stream: LogStream,
        /// Its text, at most 4 KiB.
        line: String,
        /// When it was read.
        timestamp: Timestamp,
    },
    /// This many lines were left out here.
    Gap {
        /// How many.
        dropped: u64,
    },
}

/// One run's log in the making.
#[derive(Debug)]
pub struct LogBook {
    head: Vec<u8>,
    /// At most twice what is kept, so that it is moved seldom.
    tail: Vec<u8>,
    left_out: u64,
    partial: [Vec<u8>; 2],
    /// The last line was ended by a carriage return: a line feed that follows belongs to it.
    returned: [bool; 2],
    seq: u64,
    /// Lines that were published before a restart of the reading.
    skip: u64,
    dropped: u64,
    tokens: f64,
    refilled: Instant,
}

impl LogBook {
    /// An empty log whose first `skip` lines were published before: the engine is read from the
    /// container's beginning each time.
    pub fn new(skip: u64) -> Self {
        Self {
            head: Vec::new(),
            tail: Vec::new(),
            left_out: 0,
            partial: [Vec::new(), Vec::new()],
            returned: [false; 2],
            seq: 0,
            skip,
            dropped: 0,
            tokens: LINES_AT_ONCE,
            refilled: Instant::now(),
        }
    }

    /// Lines seen so far.
    pub fn lines(&self) -> u64 {
        self.seq
    }

    /// Takes a piece of output; what is to be published of it now.
    pub fn take(&mut self, chunk: &LogChunk, now: Timestamp) -> Vec<Live> {
        self.keep(&chunk.bytes);
        let mut live = Vec::new();
        let mut rest: &[u8] = &chunk.bytes;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            self.extend_line(chunk.stream, &rest[..at]);
            let is_return = rest[at] == b'\r';
            let is_empty = self.partial[index(chunk.stream)].is_empty();
            let was_ended = std::mem::replace(&mut self.returned[index(chunk.stream)], is_return);
            // Nothing to end: the feed of a return that did, or a return at a line's begin.
            let is_silent = is_empty && (is_return || was_ended);
            if !is_silent {
                self.end_line(chunk.stream, now, &mut live);
            } else if is_return && !was_ended {
                self.returned[index(chunk.stream)] = false;
            }
            rest = &rest[at + 1..];
        }
        self.extend_line(chunk.stream, rest);
        live
    }

    /// The last lines, where the output did not end with a line end.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Live> {
        let mut live = Vec::new();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if !self.partial[index(stream)].is_empty() {
                self.end_line(stream, now, &mut live);
            }
        }
        if self.dropped > 0 {
            live.push(Live::Gap { dropped: std::mem::take(&mut self.dropped) });
        }
        live
    }

    /// The log as it is kept.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.trim();
        let mut bytes = self.head;
        if self.left_out > 0 {
            bytes.extend_from_slice(
                format!("\n[… {} bytes left out …]\n", self.left_out).as_bytes(),
            );
        }
        bytes.extend_from_slice(&self.tail);
        bytes
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES_MAX.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[room..]);
        if self.tail.len() > 2 * TAIL_BYTES_MAX {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let over = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    fn extend_line(&mut self, stream: LogStream, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.returned[index(stream)] = false;
        }
        let line = &mut self.partial[index(stream)];
        let room = LINE_BYTES_MAX.saturating_sub(line.len()).min(bytes.len());
        line.extend_from_slice(&bytes[..room]);
    }

    fn end_line(&mut self, stream: LogStream, now: Timestamp, live: &mut Vec<Live>) {
        let bytes = std::mem::take(&mut self.partial[index(stream)]);
        self.seq += 1;
        if self.seq <= self.skip {
            return;
        }
        if !self.spend() {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            live.push(Live::Gap { dropped: std::mem::take(&mut self.dropped) });
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        live.push(Live::Line { seq: self.seq, stream, line: text, timestamp: now });
    }

    fn spend(&mut self) -> bool {
        let elapsed: Duration = self.refilled.elapsed();
        self.refilled = Instant::now();
        self.tokens = (self.tokens + elapsed.as_secs_f64() * LINES_PER_S).min(LINES_AT_ONCE);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

const fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn chunk(stream: LogStream, text: &str) -> LogChunk {
        LogChunk { stream, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn lines(live: &[Live]) -> Vec<(u64, &str)> {
        live.iter()
            .filter_map(|live| match live {
                Live::Line { seq, line, .. } => Some((*seq, line.as_str())),
                Live::Gap { .. } => None,
            })
            .collect()
    }

    #[test]
    fn lines_are_put_together_per_stream_and_numbered() {
        let mut book = LogBook::new(0);
        let now = Timestamp::default();
        assert_eq!(book.take(&chunk(LogStream::Stdout, "on"), now), []);
        assert_eq!(lines(&book.take(&chunk(LogStream::Stderr, "err\n"), now)), [(1, "err")]);
        assert_eq!(lines(&book.take(&chunk(LogStream::Stdout, "e\r\ntwo"), now)), [(2, "one")]);
        assert_eq!(lines(&book.finish(now)), [(3, "two")]);
        assert_eq!(book.into_bytes(), b"onerr\ne\r\ntwo");
    }

    #[test]
    fn a_progress_bar_is_told_as_it_moves_and_kept_as_it_came() {
        for (text, told) in [
            ("\r 1%\r 2%\r 3%\n", &[" 1%", " 2%", " 3%"][..]),
            ("1%\r2%\r\ndone\n", &["1%", "2%", "done"]),
            ("a\r\n\r\nb\r\n", &["a", "", "b"]),
            ("a\n\nb", &["a", "", "b"]),
            ("1%\r\r\r2%", &["1%", "2%"]),
        ] {
            // Whole, and a byte at a time.
            for size in [text.len(), 1] {
                let mut book = LogBook::new(0);
                let mut live = Vec::new();
                for piece in text.as_bytes().chunks(size) {
                    let piece = std::str::from_utf8(piece).unwrap();
                    live.extend(book.take(&chunk(LogStream::Stdout, piece), Timestamp::default()));
                }
                live.extend(book.finish(Timestamp::default()));
                let lines: Vec<&str> = lines(&live).into_iter().map(|(_, line)| line).collect();
                assert_eq!(lines, told, "{text:?} by {size}");
                assert_eq!(book.into_bytes(), text.as_bytes());
            }
        }
    }

    #[test]
    fn a_flood_is_kept_in_part_and_published_with_a_gap() {
        let mut book = LogBook::new(0);
        let mut live = Vec::new();
        for _ in 0..3000 {
            live.extend(book.take(
                &chunk(LogStream::Stdout, &format!("{}\n", "x".repeat(999))),
                Timestamp::default(),
            ));
        }
        live.extend(book.finish(Timestamp::default()));
        assert!(lines(&live).len() < 3000);
        assert!(live.iter().any(|live| matches!(live, Live::Gap { .. })));
        let kept = book.into_bytes();
        assert!(kept.len() as u64 <= LOG_BYTES_MAX);
        assert!(String::from_utf8_lossy(&kept).contains("bytes left out"));
    }

    #[test]
    fn lines_that_were_published_before_are_not_published_again() {
        let mut book = LogBook::new(2);
        let live = book.take(&chunk(LogStream::Stdout, "a\nb\nc\n"), Timestamp::default());
        assert_eq!(lines(&live), [(3, "c")]);
    }
}
