//! Assembles records out of the lines of one log.
//!
//! Must hold: a record has at most [`RECORD_LINES_MAX`] lines and [`RECORD_BYTES_MAX`] bytes, and ends when the next
//! one begins or when nothing came for [`IDLE`]; a line that doesn't fit is counted.

use std::sync::Arc;
use std::time::Duration;

use regex::CaptureLocations;
use serde::{Deserialize, Serialize};

use super::moment::{Local, Moments};
use super::{Form, Grammar, JsonKeys, json, level};
use crate::clock::Timestamp;
use crate::watch::line::{Line, RECORD_BYTES_MAX, RECORD_LINES_MAX, Record};
use crate::watch::pattern::Pattern;

/// How long a record may still be continued after its last line.
pub const IDLE: Duration = Duration::from_secs(1);

/// Assembles the records of one log. `M` is whatever the caller knows each line by, such as the position behind
/// it: a record comes with that of its last line.
#[derive(Debug)]
pub struct Assembler<M> {
    grammar: Arc<Grammar>,
    moments: Option<Moments>,
    header: Option<Header>,
    open: Option<Open<M>>,
}

/// A record that may go on.
#[derive(Debug)]
struct Open<M> {
    record: Record,
    lines: u32,
    mark: M,
    last: Timestamp,
}

/// Where the groups of a header's pattern are, and room for them.
#[derive(Debug)]
struct Header {
    pattern: Pattern,
    room: CaptureLocations,
    time: Option<usize>,
    level: Option<usize>,
    logger: Option<usize>,
    message: Option<usize>,
}

impl Header {
    fn new(pattern: &Pattern) -> Self {
        let regex = pattern.regex();
        let group = |name: &str| regex.capture_names().position(|it| it == Some(name));
        Self {
            room: regex.capture_locations(),
            time: group("time"),
            level: group("level"),
            logger: group("logger"),
            message: group("message"),
            pattern: pattern.clone(),
        }
    }

    /// What a line says, if it begins a record.
    fn read(&mut self, line: &str, moments: Option<&mut Moments>) -> Option<Record> {
        let whole = self.pattern.regex().captures_read(&mut self.room, line)?;
        let group = |at: Option<usize>| {
            let (start, end) = self.room.get(at?)?;
            line.get(start..end)
        };
        let message = match self.message {
            Some(_) => group(self.message),
            None => line.get(whole.end()..),
        };
        Some(Record {
            at: moments.zip(group(self.time)).and_then(|(moments, text)| moments.read(text)),
            level: group(self.level).and_then(level::of),
            logger: group(self.logger).unwrap_or_default().to_owned(),
            text: message.unwrap_or_default().to_owned(),
            left_out: 0,
        })
    }
}

impl<M> Assembler<M> {
    /// Of a log with this grammar, written on a host of this zone.
    pub fn new(grammar: Arc<Grammar>, local: &Local) -> Self {
        let header = match &grammar.form {
            Form::Header(pattern) => Some(Header::new(pattern)),
            Form::Plain | Form::Json(_) => None,
        };
        let moments = grammar.time.as_ref().map(|form| Moments::new(form, local));
        Self { grammar, moments, header, open: None }
    }

    /// Takes the next line, read `now`. Returns the record that is complete by it, with the mark of its last line.
    pub fn take(&mut self, line: &Line, mark: M, now: Timestamp) -> Option<(Record, M)> {
        let text = line.as_str();
        if let Some(header) = &mut self.header {
            if let Some(record) = header.read(text, self.moments.as_mut()) {
                let before = self.open.replace(Open { record, lines: 1, mark, last: now });
                return before.map(|open| (open.record, open.mark));
            }
            match &mut self.open {
                Some(open) => open.go_on(text, mark, now),
                None if text.trim().is_empty() => {}
                None => {
                    self.open = Some(Open { record: plain(text), lines: 1, mark, last: now });
                }
            }
            return None;
        }
        let grammar = Arc::clone(&self.grammar);
        let record = match &grammar.form {
            _ if text.trim().is_empty() => return None,
            Form::Json(keys) => self.object(keys, text),
            Form::Plain | Form::Header(_) => plain(text),
        };
        Some((record, mark))
    }

    /// The record that nothing continued for [`IDLE`].
    pub fn flush(&mut self, now: Timestamp) -> Option<(Record, M)> {
        let open = self.open.as_mut()?;
        // A clock that was set back must not hold the record.
        open.last = open.last.min(now);
        if now.since(open.last) < IDLE {
            return None;
        }
        self.end()
    }

    /// The record that is open, if any: no line follows.
    pub fn end(&mut self) -> Option<(Record, M)> {
        self.open.take().map(|open| (open.record, open.mark))
    }

    /// When the open record is complete if nothing continues it; none without one: all lines so far are in
    /// records that were handed out.
    pub fn due(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.last.plus(IDLE))
    }

    fn object(&mut self, keys: &JsonKeys, text: &str) -> Record {
        let Some(said) = json::read(keys, text) else { return plain(text) };
        let mut record = plain(&said.message.unwrap_or_else(|| text.to_owned()));
        record.at = self.moments.as_mut().zip(said.time).and_then(|(it, time)| it.read(&time));
        record.level = said.level;
        record.logger = said.logger.unwrap_or_default();
        record
    }
}

/// A record that may go on, as it is written down: with the place up to which its log was read, so that who ends
/// in the middle of a record neither loses nor doubles it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The record so far.
    record: Record,
    /// How many lines it has.
    lines: u32,
}

impl Assembler<()> {
    /// The record that may go on, if any.
    pub fn pending(&self) -> Option<Pending> {
        let Open { record, lines, .. } = self.open.as_ref()?;
        Some(Pending { record: record.clone(), lines: *lines })
    }

    /// Goes on with a record that was written down.
    pub fn resume(&mut self, pending: Pending, now: Timestamp) {
        let Pending { record, lines } = pending;
        self.open = Some(Open { record, lines, mark: (), last: now });
    }
}

impl<M> Open<M> {
    fn go_on(&mut self, text: &str, mark: M, now: Timestamp) {
        self.mark = mark;
        self.last = now;
        let fits = self.record.text.len() + 1 + text.len() <= RECORD_BYTES_MAX;
        if self.lines < RECORD_LINES_MAX && fits {
            self.record.text.push('\n');
            self.record.text.push_str(text);
            self.lines += 1;
        } else {
            self.record.left_out = self.record.left_out.saturating_add(1);
        }
    }
}

/// A record of nothing but text.
fn plain(text: &str) -> Record {
    let text = text.get(..text.floor_char_boundary(RECORD_BYTES_MAX)).unwrap_or_default();
    Record { at: None, level: None, logger: String::new(), text: text.to_owned(), left_out: 0 }
}

#[cfg(test)]
mod tests;
