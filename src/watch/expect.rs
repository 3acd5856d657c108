//! What is expected of a watched program: the part of its profile that verdicts rest on.
//!
//! Must hold: whatever a profile leaves out is not expected, and can't be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::meaning::{Cause, Kind};
use super::profile::{Filled, Profile};

/// How long a failure may take to mend itself if the profile doesn't say.
const GRACE: Duration = Duration::from_mins(5);

/// What is expected of a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expect {
    /// Its logs that must be there, by name.
    pub logs: Vec<String>,
    /// Whether its host is asked for its process, unit, container or screen.
    pub has_process: bool,
    /// Its ports that must be open, by name.
    pub ports: Vec<String>,
    /// Whether its logs say when it works.
    pub says_work: bool,
    /// The longest that it waits without a word; `None`: its silence says nothing.
    pub idle: Option<Duration>,
    /// How long past that until it counts as silent, and how long a failure may take to mend itself.
    pub grace: Duration,
    /// How long a value stays with its peers; `None`: it publishes nothing.
    pub published_for: Option<Duration>,
    /// When it should be paid; `None`: it isn't.
    pub earning: Option<Earning>,
    /// Why it may not do what its owner wants, by id.
    pub causes: BTreeMap<String, Known>,
}

/// A known cause of trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What is wrong, as one sentence for a person.
    pub says: String,
    /// What to do about it.
    pub remedy: String,
}

/// When a program should be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earning {
    /// For the first time so long after its start.
    pub first: Duration,
    /// Then each time so long after the time before.
    pub every: Duration,
}

impl Expect {
    /// What a cause means and what to do about it.
    pub fn cause(&self, id: &str) -> Option<&Known> {
        self.causes.get(id)
    }
}

impl Expect {
    /// What is expected of a program with this profile.
    pub fn of(profile: &Profile, filled: &Filled) -> Self {
        let is_work = |kind: Kind| matches!(kind, Kind::Work | Kind::Join | Kind::Round);
        let logs = filled.logs.iter().filter(|log| !log.is_optional);
        let ports = filled.ports.iter().filter(|port| !port.is_optional);
        let has_log = !filled.logs.is_empty();
        let known =
            |cause: &Cause| Known { says: cause.says.clone(), remedy: cause.remedy.clone() };
        let process = &filled.process;
        Self {
            logs: logs.map(|log| log.name.clone()).collect(),
            has_process: filled.command.is_some()
                || process.unit.is_some()
                || process.container.is_some()
                || !process.screens.is_empty(),
            ports: ports.map(|port| port.name.clone()).collect(),
            says_work: has_log && profile.means.iter().any(|means| is_work(means.kind)),
            idle: filled.idle.map(|idle| idle.longest),
            grace: filled.idle.map_or(GRACE, |idle| idle.grace),
            published_for: filled.asked_dht().map(|dht| dht.expiration),
            // Where nobody is asked, nothing can be due.
            earning: filled
                .earning
                .filter(|_| filled.chain.is_some())
                .map(|earning| Earning { first: earning.first, every: earning.every }),
            causes: filled.causes.iter().map(|(id, cause)| (id.clone(), known(cause))).collect(),
        }
    }
}
