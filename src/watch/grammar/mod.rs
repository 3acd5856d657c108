//! How lines become records, as data.
//!
//! Must hold: a record is bounded; each line belongs to one record or is counted as left out; what a line says
//! never decides how long the next takes.

mod assemble;
mod json;
mod level;
mod moment;

use super::pattern::Pattern;

pub use assemble::{Assembler, IDLE, Pending};
pub use moment::Local;

/// How the lines of a log become records: a `[[grammar]]` of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Grammar {
    /// Its name.
    pub name: String,
    /// What a line looks like.
    pub form: Form,
    /// How the time is written, if it is.
    pub time: Option<TimeForm>,
}

/// What a line looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Each line is a record of its own.
    Plain,
    /// A line that matches begins a record; those that don't continue it.
    Header(Pattern),
    /// Each line is a JSON object; these are the names of its keys, the first that is there counts.
    Json(JsonKeys),
}

/// The keys of a log whose lines are JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonKeys {
    /// The time, as text or as a number.
    pub time: Vec<String>,
    /// The level, as a word or as a number.
    pub level: Vec<String>,
    /// The part of the program that wrote it.
    pub logger: Vec<String>,
    /// The message.
    pub message: Vec<String>,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeForm {
    /// In the directives of strftime, without the fraction of a second, which is read if it stands at the end;
    /// or `rfc3339`, or `unix`: seconds since 1970, or milli-, micro- or nanoseconds if the number is that large.
    pub format: String,
    /// Whether it is UTC, instead of the time of the host's zone, if it doesn't say its offset.
    pub is_utc: bool,
}

impl TimeForm {
    /// Checks that a time which is written in this format can be read. The error is a clause.
    pub(super) fn check(&self) -> Result<(), String> {
        moment::check(&self.format)
    }
}
