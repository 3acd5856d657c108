//! Who is told what and when. [`Alerts`] has the open incidents; [`Alerts::decide`] holds them against what is so
//! now and says what changes and what somebody is told; [`Alerts::apply`] takes that over once it is written
//! down.
//!
//! Nodes that come into the same trouble at about the same time are one incident: its first notice goes at once,
//! further nodes and recoveries are told at most once in [`Policy::update_every`], and its end is told once.
//!
//! Must hold: a decision is a function of what is written down and of what is so now, so that a hub that is killed
//! between two steps decides the same again; of whom nothing is known, nothing changes; no incident is told as
//! over that was not told as open.

mod incident;
mod members;
mod quiet;
mod replay;
mod silence;
mod tell;
#[cfg(test)]
mod tests;
mod title;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::fleet::notice::Notice;
use crate::fleet::rule::Rule;

pub use incident::{Fact, Facts, Flaps, Head, Incident, Member};
pub use quiet::{Daily, InvalidDaily, Quiet, Weekdays};
pub use replay::{Change, replay};
pub(crate) use replay::{count, share_holds};
pub use silence::Silence;

/// The subject of a fact about the fleet as a whole.
pub const FLEET: &str = "";

/// How people want to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How often an incident that changes is told again at most.
    pub update_every: Duration,
    /// When only what is critical is told.
    pub quiet: Vec<Quiet>,
    /// When a node counts as flapping.
    pub flapping: Flapping,
}

/// When a node counts as flapping: it comes into the same trouble again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// With so many times ...
    pub times: usize,
    /// ... within this span ...
    pub within: Duration,
    /// ... its incident stays open until it has been well for so long.
    pub calm: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            update_every: minutes(1),
            quiet: Vec::new(),
            flapping: Flapping { times: 3, within: minutes(60), calm: minutes(30) },
        }
    }
}

/// The incidents that are open, and what else decisions rest on.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    open: BTreeMap<u64, Incident>,
    /// The number of the newest incident.
    newest: u64,
    flaps: Flaps,
    silences: Vec<Silence>,
}

/// What was decided: to be written in one commit before anything of it is acted upon.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The incidents that changed, each with the names of its members that did.
    pub incidents: Vec<(Incident, BTreeSet<String>)>,
    /// What somebody is told.
    pub notices: Vec<Notice>,
}

impl Decision {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.notices.is_empty()
    }
}

impl Alerts {
    /// What was written down: the incidents that are open, the number of the newest one, when nodes came into
    /// trouble lately, and the silences.
    pub fn new(
        open: impl IntoIterator<Item = Incident>,
        newest: u64,
        flaps: Flaps,
        silences: Vec<Silence>,
    ) -> Self {
        let open: BTreeMap<u64, Incident> = open.into_iter().map(|it| (it.id, it)).collect();
        let newest = open.keys().copied().chain([newest]).max().unwrap_or(newest);
        Self { open, newest, flaps, silences }
    }

    /// The incidents that are open.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }

    /// Replaces the silences.
    pub fn set_silences(&mut self, silences: Vec<Silence>) {
        self.silences = silences;
    }

    /// What changes, given what is so now: the facts of each rule, in the order of the rules.
    pub fn decide(
        &self,
        rules: &[Rule],
        facts: &[Facts],
        policy: &Policy,
        now: Timestamp,
    ) -> Decision {
        let mut work =
            Work { open: self.open.clone(), newest: self.newest, changed: BTreeMap::new(), now };
        for (rule, facts) in rules.iter().zip(facts) {
            members::end(&mut work, rule, facts, &self.flaps, policy);
            members::join(&mut work, rule, facts, &self.flaps, policy);
        }
        work.close_of_no_rule(rules);
        let notices = tell::all(&mut work, rules, &self.silences, policy);
        let Work { open, changed, .. } = work;
        let incidents = changed
            .into_iter()
            .filter_map(|(id, names)| open.get(&id).map(|incident| (incident.clone(), names)))
            .collect();
        Decision { incidents, notices }
    }

    /// Takes over a decision that is written down.
    pub fn apply(&mut self, decision: &Decision, policy: &Policy, now: Timestamp) {
        for (incident, names) in &decision.incidents {
            self.newest = self.newest.max(incident.id);
            for name in names {
                let joined = incident.members.get(name).map(|member| member.joined);
                if let Some(joined) = joined {
                    self.flaps.note(&incident.rule, name, joined);
                }
            }
            if incident.closed.is_some() {
                self.open.remove(&incident.id);
            } else {
                self.open.insert(incident.id, incident.clone());
            }
        }
        self.flaps.forget(policy.flapping.within, now);
        self.silences.retain(|silence| silence.until > now);
    }
}

/// A decision in the making.
struct Work {
    open: BTreeMap<u64, Incident>,
    newest: u64,
    changed: BTreeMap<u64, BTreeSet<String>>,
    now: Timestamp,
}

impl Work {
    /// Notes that an incident changed.
    fn touch(&mut self, id: u64) {
        self.changed.entry(id).or_default();
    }

    /// Notes that a member of an incident changed.
    fn touch_member(&mut self, id: u64, name: &str) {
        self.changed.entry(id).or_default().insert(name.to_owned());
    }

    /// Incidents of rules that are no more end without a word: nobody wants to know.
    fn close_of_no_rule(&mut self, rules: &[Rule]) {
        let now = self.now;
        let orphans: Vec<u64> = self
            .open
            .values()
            .filter(|incident| !rules.iter().any(|rule| rule.name == incident.rule))
            .map(|incident| incident.id)
            .collect();
        for id in orphans {
            if let Some(incident) = self.open.get_mut(&id) {
                incident.closed = Some(now);
            }
            self.touch(id);
        }
    }
}
