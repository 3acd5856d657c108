//! What jobs write now, from NATS to the tabs that look at it.
//!
//! Must hold: the hub listens to a log only while somebody looks at it; there are at most [`LOGS_MAX`] logs at a time,
//! and [`READS_MAX`] for one reader; each piece of one is bounded, and no character that a terminal obeys is in it. Lossy
//! by design, as the live log is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::clock::Timestamp;
use crate::ids::{Address, JobId};
use crate::report::is_obeyed;

/// The most logs at a time.
pub const LOGS_MAX: usize = 32;

/// The most logs that one reader looks at, in all tabs together.
pub const READS_MAX: usize = 4;

/// How many messages a tab may be behind.
const MESSAGES_MAX: usize = 16;

/// The most lines in a message, and the most bytes of text.
const LINES_MAX: usize = 400;
const BYTES_MAX: usize = 32 * 1024;

/// The longest message of a node that is read, in bytes, and the longest line, in characters.
const PIECE_BYTES_MAX: usize = 32 * 1024;
const LINE_CHARS_MAX: usize = 4 * 1024;

/// Whose log is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// The node.
    pub node: Address,
    /// Its job.
    pub job: JobId,
}

/// Whether a log is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody listens, and somebody is to.
    Idle,
    /// It is.
    Heard,
    /// It could not be: it is tried again after a while, and not before, however many look.
    Waiting,
}

#[derive(Debug)]
struct Entry {
    sender: broadcast::Sender<Arc<str>>,
    state: State,
}

/// The logs that somebody looks at. Clones share them.
#[derive(Debug, Clone)]
pub struct Logs {
    all: Arc<Mutex<BTreeMap<Whose, Entry>>>,
    readers: Readers,
    changed: watch::Sender<()>,
}

/// How many logs each reader looks at.
type Readers = Arc<Mutex<BTreeMap<Arc<str>, usize>>>;

impl Default for Logs {
    fn default() -> Self {
        Self { all: Arc::default(), readers: Arc::default(), changed: watch::Sender::new(()) }
    }
}

/// A log that somebody looks at, until it is dropped.
#[derive(Debug)]
pub struct Followed {
    /// What the job writes from now on.
    pub lines: broadcast::Receiver<Arc<str>>,
    /// Whether it was listened to already.
    pub is_heard: bool,
    _place: Place,
}

/// A reader's place, until it is dropped.
#[derive(Debug)]
struct Place {
    reader: Arc<str>,
    readers: Readers,
}

impl Place {
    fn take(reader: &str, readers: &Readers) -> Option<Self> {
        let reader: Arc<str> = reader.into();
        let mut counts = readers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(Arc::clone(&reader)).or_default();
        if *count >= READS_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { reader, readers: Arc::clone(readers) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.reader) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.reader);
            }
        }
    }
}

/// Why a log is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The hub listens to as many as it can.
    #[error("the hub listens to {LOGS_MAX} logs already, and to no more")]
    Hub,
    /// This reader looks at as many as one may.
    #[error("you look at {READS_MAX} logs already: close one of the other tabs")]
    Reader,
}

impl Logs {
    /// What the job writes from now on, for this reader: somebody's name, or an address.
    pub fn follow(&self, whose: Whose, reader: &str) -> Result<Followed, Full> {
        let place = Place::take(reader, &self.readers).ok_or(Full::Reader)?;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Who listens to one, or waits for it, forgets it itself.
        all.retain(|other, entry| {
            *other == whose || entry.state != State::Idle || entry.sender.receiver_count() > 0
        });
        if all.len() >= LOGS_MAX && !all.contains_key(&whose) {
            return Err(Full::Hub);
        }
        let entry = all.entry(whose).or_insert_with(|| Entry {
            sender: broadcast::channel(MESSAGES_MAX).0,
            state: State::Idle,
        });
        let (lines, is_heard) = (entry.sender.subscribe(), entry.state == State::Heard);
        drop(all);
        self.changed.send_replace(());
        Ok(Followed { lines, is_heard, _place: place })
    }

    /// The logs that are to be listened to, and are neither yet nor tried again later.
    pub fn unheard(&self) -> Vec<(Whose, broadcast::Sender<Arc<str>>)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let unheard = all.iter().filter(|(_, entry)| entry.state == State::Idle);
        unheard.map(|(whose, entry)| (whose.clone(), entry.sender.clone())).collect()
    }

    /// Says that a log is listened to from now on, or no more.
    pub fn set_heard(&self, whose: &Whose, is_heard: bool) {
        self.set(whose, if is_heard { State::Heard } else { State::Idle });
    }

    /// Says that a log can't be listened to, and that who tried says when it is to be tried again.
    pub fn set_waiting(&self, whose: &Whose) {
        self.set(whose, State::Waiting);
    }

    fn set(&self, whose: &Whose, to: State) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = all.get_mut(whose) {
            entry.state = to;
            entry.sender.send(state(to == State::Heard)).ok();
        }
    }

    /// Nobody listens any more: the connection is lost.
    pub fn none_heard(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in all.values_mut().filter(|entry| entry.state != State::Idle) {
            entry.state = State::Idle;
            entry.sender.send(state(false)).ok();
        }
    }

    /// Forgets a log that nobody looks at; whether it is forgotten.
    pub fn forget(&self, whose: &Whose) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = all.get(whose).is_none_or(|entry| entry.sender.receiver_count() == 0);
        if is_unused {
            all.remove(whose);
        }
        is_unused
    }

    /// Tells when somebody looks at another log.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The message that says whether a log is listened to.
pub fn state(is_heard: bool) -> Arc<str> {
    json!({ "log": { "is_heard": is_heard } }).to_string().into()
}

/// The message to who was too slow.
pub const LOST: &str = r#"{"log":{"is_lost":true}}"#;

/// The message that says why a log is not shown.
pub fn refused(why: &str) -> String {
    json!({ "log": { "refused": why } }).to_string()
}

/// What a node sends.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Line {
        seq: u64,
        stream: String,
        #[serde(rename = "line")]
        text: String,
        timestamp: Option<Timestamp>,
    },
    Gap {
        dropped: u64,
    },
}

/// Lines that are sent together.
#[derive(Debug, Default)]
pub struct Lines {
    told: Vec<Value>,
    bytes: usize,
    dropped: u64,
}

impl Lines {
    /// Adds what a node sent; what is nothing of a log counts as a line that is missing.
    pub fn take(&mut self, body: &[u8]) {
        let piece = (body.len() <= PIECE_BYTES_MAX).then(|| serde_json::from_slice(body).ok());
        match piece.flatten() {
            Some(Piece::Line { seq, stream, text, timestamp }) => {
                let line = plain(&text);
                self.bytes = self.bytes.saturating_add(line.len());
                let is_error = stream == "stderr";
                let at = timestamp.map(Timestamp::unix_ms);
                self.told.push(json!([seq, at, is_error, line]));
            }
            Some(Piece::Gap { dropped }) => self.dropped = self.dropped.saturating_add(dropped),
            None => self.dropped = self.dropped.saturating_add(1),
        }
    }

    /// Whether no more is to be added.
    pub const fn is_full(&self) -> bool {
        self.told.len() >= LINES_MAX || self.bytes >= BYTES_MAX
    }

    /// The message.
    pub fn text(self) -> Arc<str> {
        let Self { told, dropped, .. } = self;
        json!({ "log": { "lines": told, "dropped": dropped } }).to_string().into()
    }
}

/// A line as a person sees it: without escape sequences and controls, bounded.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len().min(LINE_CHARS_MAX));
    let (mut chars, mut count) = (line.chars().peekable(), 0);
    while let Some(c) = chars.next() {
        if count >= LINE_CHARS_MAX {
            break;
        }
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    chars.by_ref().find(|c| matches!(c, '@'..='~'));
                }
                // A command to the terminal ends with a bell, or with an escape and a backslash.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    let end = chars.by_ref().find(|c| matches!(c, '\u{7}' | '\u{1b}'));
                    if end == Some('\u{1b}') {
                        chars.next_if_eq(&'\\');
                    }
                }
                _ => {}
            },
            // What a progress bar wrote before it began its line anew.
            '\r' if chars.peek().is_some() => (out, count) = (String::new(), 0),
            '\t' => (out.push(c), count += 1).0,
            c if is_obeyed(c) => {}
            c => (out.push(c), count += 1).0,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(n: usize) -> Whose {
        Whose { node: Address::new([1; 20]), job: format!("job-{n}").parse().unwrap() }
    }

    #[test]
    fn a_line_loses_what_a_terminal_obeys_and_a_progress_bar_its_past() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\tx\u{7}"), "red\tx");
        assert_eq!(plain("a\u{1b}]0;title\u{7}b\u{1b}]8;;x\u{1b}\\c"), "abc");
        assert_eq!(plain("10 %\r20 %\r30 %\r"), "30 %");
        assert_eq!(plain("\u{202e}evil\u{1b}"), "evil");
        assert_eq!(plain(&"é".repeat(9_000)).chars().count(), LINE_CHARS_MAX);
    }

    #[test]
    fn pieces_are_gathered_and_what_is_none_is_counted_as_missing() {
        let mut lines = Lines::default();
        lines.take(
            br#"{"seq":7,"stream":"stderr","line":"<b>","timestamp":"2026-01-01T00:00:00.000Z"}"#,
        );
        lines.take(br#"{"dropped":240}"#);
        lines.take(b"no JSON");
        lines.take(&vec![b' '; PIECE_BYTES_MAX + 1]);
        assert!(!lines.is_full());
        let said: Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!(said["log"]["lines"], json!([[7, 1_767_225_600_000_u64, true, "<b>"]]));
        assert_eq!(said["log"]["dropped"], 242);
    }

    #[tokio::test]
    async fn a_log_is_listened_to_while_somebody_looks_and_there_are_few_of_them() {
        let logs = Logs::default();
        let mut first = logs.follow(whose(0), "ann").unwrap();
        assert!(!first.is_heard);
        assert_eq!(logs.unheard().len(), 1);
        logs.set_heard(&whose(0), true);
        assert!(first.lines.recv().await.unwrap().contains("true"));
        assert!(logs.unheard().is_empty() && logs.follow(whose(0), "bo").unwrap().is_heard);
        assert!(!logs.forget(&whose(0)), "somebody looks at it");
        let follow = |n: usize| logs.follow(whose(n), &n.to_string());
        let others: Vec<_> = (1..LOGS_MAX).map(|n| follow(n).unwrap()).collect();
        assert_eq!(follow(LOGS_MAX).unwrap_err(), Full::Hub);
        drop(others);
        assert!(follow(LOGS_MAX).is_ok(), "who has gone makes room");
        logs.none_heard();
        assert!(first.lines.recv().await.unwrap().contains("false"));
        drop(first);
        assert!(logs.forget(&whose(0)));
    }

    #[test]
    fn one_reader_looks_at_few_logs_and_takes_no_place_from_others() {
        let logs = Logs::default();
        let mut own: Vec<_> =
            (0..READS_MAX).map(|n| logs.follow(whose(n), "ann").unwrap()).collect();
        assert_eq!(logs.follow(whose(9), "ann").unwrap_err(), Full::Reader);
        assert_eq!(logs.unheard().len(), READS_MAX, "nothing is listened to for it");
        assert!(logs.follow(whose(9), "bo").is_ok());
        own.pop();
        assert!(logs.follow(whose(9), "ann").is_ok(), "a tab that is closed makes room");
        own.clear();
        assert!(logs.readers.lock().unwrap().is_empty());
    }

    #[test]
    fn a_log_that_failed_is_tried_again_when_its_time_comes_and_not_for_each_who_looks() {
        let logs = Logs::default();
        let first = logs.follow(whose(0), "ann").unwrap();
        logs.set_heard(&whose(0), true);
        logs.set_waiting(&whose(0));
        let second = logs.follow(whose(0), "bo").unwrap();
        assert!(!second.is_heard && logs.unheard().is_empty());
        drop((first, second));
        let other = logs.follow(whose(1), "bo").unwrap();
        assert!(logs.follow(whose(0), "bo").is_ok());
        assert_eq!(logs.unheard().len(), 1, "who waits still does, though nobody looked meanwhile");
        logs.set_heard(&whose(0), false);
        assert_eq!(logs.unheard().len(), 2);
        logs.set_waiting(&whose(0));
        logs.none_heard();
        assert_eq!(logs.unheard().len(), 2, "a new connection tries all");
        drop(other);
    }
}
