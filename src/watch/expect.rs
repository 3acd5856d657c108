//! What is expected of a watched program: the part of its profile that verdicts rest on.
//!
//! Must hold: whatever a profile leaves out is not expected, and can't be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::meaning::Cause;

/// What is expected of a program.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// Its logs that must be there, by name.
    pub logs: Vec<String>,
    /// Whether its host is asked for its process, unit, container or screen.
    pub has_process: bool,
    /// Its ports that must be open, by name.
    pub ports: Vec<String>,
    /// Whether its logs say when it works.
    pub says_work: bool,
    /// The longest that it waits without a word.
    pub idle: Duration,
    /// How long past that until it counts as silent.
    pub grace: Duration,
    /// How long a value stays with its peers; `None`: it publishes nothing.
    pub published_for: Option<Duration>,
    /// When it should be paid; `None`: it isn't.
    pub earning: Option<Earning>,
    /// Why it may not do what its owner wants, by id.
    pub causes: BTreeMap<String, Cause>,
}

/// When a program should be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earning {
    /// For the first time so long after its start.
    pub first: Duration,
    /// Then each time so long after the time before.
    pub every: Duration,
}

impl Expect {
    /// What a cause means and what to do about it.
    pub fn cause(&self, id: &str) -> Option<&Cause> {
        self.causes.get(id)
    }
}
