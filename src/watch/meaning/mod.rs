//! What a record means, in words that don't depend on the program that wrote it.
//!
//! Must hold: a meaning is bounded ([`FIELDS_MAX`] fields of [`FIELD_BYTES_MAX`] bytes), whoever wrote the
//! record; the same record has the same meaning each time.

mod classify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::fleet::Level;

pub use classify::Classifier;

/// The most fields of a meaning.
pub const FIELDS_MAX: usize = 8;

/// The longest value of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 200;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The program starts.
    Start,
    /// The program ends as it should.
    Stop,
    /// It loads or uses a model; field `model`.
    Model,
    /// It reached somebody that it needs; field `to`.
    Connect,
    /// It lost somebody that it needs; field `to`.
    Disconnect,
    /// It takes part in a round; fields `round`, `stage`.
    Join,
    /// A round began; fields `round`, `max`.
    Round,
    /// It waits, and says so; field `seconds`: for how long it will be silent.
    Idle,
    /// It does its work, such as a step of a training; fields `round`, `stage`.
    Work,
    /// It published a result to its peers or to a store.
    Publish,
    /// It hands in a result to be paid for; field `round`.
    Submit,
    /// What it handed in was not taken.
    SubmitFailed,
    /// It is registered with those who pay it.
    Registered,
    /// It says who it is among its peers; fields `peer`, `animal`.
    Peer,
    /// It says which account is paid; field `account`.
    Account,
    /// It says by whom it finds its peers.
    Bootnodes,
    /// It fails and ends.
    Crash,
    /// It ends, or goes on without its work, since memory is short.
    OutOfMemory,
    /// A new version of it is there or was taken.
    Update,
    /// Something failed, and it goes on.
    Error,
    /// Worth to be kept, no more.
    Note,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::Start,
        Self::Stop,
        Self::Model,
        Self::Connect,
        Self::Disconnect,
        Self::Join,
        Self::Round,
        Self::Idle,
        Self::Work,
        Self::Publish,
        Self::Submit,
        Self::SubmitFailed,
        Self::Registered,
        Self::Peer,
        Self::Account,
        Self::Bootnodes,
        Self::Crash,
        Self::OutOfMemory,
        Self::Update,
        Self::Error,
        Self::Note,
    ];

    /// The kind as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Model => "model",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Join => "join",
            Self::Round => "round",
            Self::Idle => "idle",
            Self::Work => "work",
            Self::Publish => "publish",
            Self::Submit => "submit",
            Self::SubmitFailed => "submit_failed",
            Self::Registered => "registered",
            Self::Peer => "peer",
            Self::Account => "account",
            Self::Bootnodes => "bootnodes",
            Self::Crash => "crash",
            Self::OutOfMemory => "out_of_memory",
            Self::Update => "update",
            Self::Error => "error",
            Self::Note => "note",
        }
    }

    /// How much it matters if neither the profile nor the record says so.
    pub const fn level(self) -> Level {
        match self {
            Self::Crash | Self::OutOfMemory => Level::Critical,
            Self::Error | Self::SubmitFailed => Level::Error,
            Self::Disconnect => Level::Warning,
            _ => Level::Info,
        }
    }
}

/// What a record means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub level: Level,
    /// What the record says of it: the named groups of the pattern that matched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The id of the cause that the record shows, one of the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Meaning {
    /// A field, if the record says it.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A field as a whole number, if it is one.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

/// What records of a form mean: a `[[means]]` of a profile. The first that matches counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Means {
    /// The log that it is about; none: all logs of the profile.
    pub log: Option<String>,
    /// What the record's text must match. Its named groups become fields.
    pub pattern: Pattern,
    /// What such a record is about.
    pub kind: Kind,
    /// How much it matters; none: the record's own level, but at least [`Kind::level`] for what failed.
    pub level: Option<Level>,
    /// The cause that it shows; none: the first of the profile's causes whose pattern matches the record.
    pub cause: Option<String>,
}

/// Why a program doesn't do what its owner wants, and what to do about it: a `[[cause]]` of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Its name, unique in its profile.
    pub id: String,
    /// What is wrong, as one sentence for a person.
    pub says: String,
    /// What to do about it.
    pub remedy: String,
    /// The text of a record that shows it; none: only a `[[means]]` or a verdict names it.
    pub pattern: Option<Pattern>,
}

#[cfg(test)]
mod tests;
