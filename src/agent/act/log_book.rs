//! A container's output while it runs: part of it is kept for good, part is published live.
//!
//! Invariants: both parts are bounded, however much a job writes. A log that is too long keeps its
//! beginning and its end, with a line between them that says how many bytes are left out. Live
//! lines are lossy by design, and a gap says how many are missing. A carriage return also ends a
//! live line, because a progress bar may write nothing else for hours.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::agent::jobs::folders::LOG_BYTES_MAX;
use crate::clock::Timestamp;
use crate::container::{LogChunk, LogStream};

/// Bytes kept of a log's beginning, which shows what was started: enough for the longest banner.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes kept of its end, which shows why it stopped: enough for a traceback with its warnings.
const TAIL_BYTES_MAX: usize = 768 * 1024;
const _: () = assert!((HEAD_BYTES_MAX + TAIL_BYTES_MAX) as u64 + 64 <= LOG_BYTES_MAX);
/// Longer live lines are cut, so that each fits into a message with room to spare.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Live lines per second, and how many may come at once.
const LINES_PER_S: f64 = 500.0;
const LINES_AT_ONCE: f64 = 2000.0;

/// A message on `jobs.logs.<address>.<job_id>`: a line, or a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Live {
    /// One line of output.
    Line {
        /// The line's number: from 1, counting dropped lines too, over both streams.
        seq: u64,
        /// The stream that it came from.
        stream: LogStream,
        /// Its text, cut at 4 KiB of output; invalid UTF-8 is replaced.
        line: String,
        /// When the node read the end of the line.
        timestamp: Timestamp,
    },
    /// Lines above the rate limit were dropped here.
    Gap {
        /// The number of dropped lines.
        dropped: u64,
    },
}

/// The log of one run while it is being written.
#[derive(Debug)]
pub(crate) struct LogBook {
    head: Vec<u8>,
    /// Grows to twice what is kept, so that its bytes are moved seldom.
    tail: Vec<u8>,
    left_out: u64,
    partial: [Vec<u8>; 2],
    /// By stream: the last line ended with a carriage return, which a line feed may follow.
    returned: [bool; 2],
    seq: u64,
    /// Lines that were published before the reading started over.
    skip: u64,
    dropped: u64,
    tokens: f64,
    refilled: Instant,
}

impl LogBook {
    /// An empty log. Its first `skip` lines are not published, because they were before: each
    /// reading of the engine starts with the container's first output.
    pub(crate) fn new(skip: u64) -> Self {
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

    /// The number of lines that have ended so far.
    pub(crate) fn lines(&self) -> u64 {
        self.seq
    }

    /// Adds a chunk of output and returns what to publish now.
    pub(crate) fn take(&mut self, chunk: &LogChunk, now: Timestamp) -> Vec<Live> {
        self.keep(&chunk.bytes);
        let mut live = Vec::new();
        let mut rest: &[u8] = &chunk.bytes;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            self.extend_line(chunk.stream, &rest[..at]);
            let is_return = rest[at] == b'\r';
            let is_empty = self.partial[index(chunk.stream)].is_empty();
            let was_ended = std::mem::replace(&mut self.returned[index(chunk.stream)], is_return);
            // Nothing to end: a line feed after a return that ended the line, or a return at a
            // line's start.
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

    /// The last line of each stream, if it has no line end, and the last gap.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Vec<Live> {
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

    /// The log to keep: beginning, mark of what is left out, end.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
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
