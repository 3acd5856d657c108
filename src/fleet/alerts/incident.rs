//! Incidents, their members, and the facts that they follow from.
//!
//! Must hold: these types are written down as JSON; a key that is added has a default, so that older rows are
//! still read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fleet::notice::Severity;

/// Something that is so now, of one node (or of the fleet: [`FLEET`](super::FLEET)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The node.
    pub node: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// Why, in words.
    pub why: String,
    /// The address that the node told last; empty if it told none.
    pub ip: String,
    /// When the node was heard last.
    pub heard: Option<Timestamp>,
}

/// All that is so now for one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where the rule's condition holds.
    pub holds: Vec<Fact>,
    /// The nodes of which nobody can say whether it holds.
    pub unknown: BTreeSet<String>,
    /// The nodes that were removed by their owner.
    pub removed: BTreeSet<String>,
}

/// What is written of an incident besides its number, its rule and its times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How urgent it is.
    pub severity: Severity,
    /// When somebody was told of it last; `None`: nobody knows of it.
    #[serde(default)]
    pub told: Option<Timestamp>,
    /// Whether something changed that nobody was told of.
    #[serde(default)]
    pub is_news: bool,
    /// What is the matter, as it was last told, or as it would have been.
    #[serde(default)]
    pub title: String,
    /// What to do about it.
    #[serde(default)]
    pub remedy: String,
    /// Why it isn't told at present, if so: `silenced`, `inhibited by …`, `quiet hours`.
    #[serde(default)]
    pub muted: Option<String>,
}

/// A node in an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// When it came into the incident.
    pub joined: Timestamp,
    /// Since when it is in trouble.
    pub since: Timestamp,
    /// Why.
    pub why: String,
    /// The address that it told last.
    #[serde(default)]
    pub ip: String,
    /// When it was heard last.
    #[serde(default)]
    pub heard: Option<Timestamp>,
    /// Since when the rule's condition holds no more; it isn't well yet.
    #[serde(default)]
    pub calm: Option<Timestamp>,
    /// When it was well again.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Whether it ended because its owner removed it.
    #[serde(default)]
    pub is_removed: bool,
    /// Whether it is flapping.
    #[serde(default)]
    pub is_flapping: bool,
}

/// Nodes that have the same trouble and came into it at about the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its number, counted from 1.
    pub id: u64,
    /// The name of its rule.
    pub rule: String,
    /// When it opened.
    pub opened: Timestamp,
    /// When it was over.
    pub closed: Option<Timestamp>,
    /// What else is written of it.
    pub head: Head,
    /// Its nodes, also those that are well again.
    pub members: BTreeMap<String, Member>,
}

impl Incident {
    /// The members that are still in trouble.
    pub fn live(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(|(_, member)| member.ended.is_none())
    }

    /// Whether no member is in trouble any more.
    pub fn is_calm(&self) -> bool {
        self.live().next().is_none()
    }
}

/// When nodes came into trouble lately, by rule and node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flaps(BTreeMap<(String, String), VecDeque<Timestamp>>);

impl Flaps {
    /// How many times are kept of one node: more than any policy asks for.
    const KEPT: usize = 32;

    /// Notes that a node came into trouble; the same moment counts once.
    pub fn note(&mut self, rule: &str, node: &str, at: Timestamp) {
        let times = self.0.entry((rule.to_owned(), node.to_owned())).or_default();
        if !times.contains(&at) {
            times.push_back(at);
        }
        if times.len() > Self::KEPT {
            times.pop_front();
        }
    }

    /// How often the node came into trouble within this span.
    pub(super) fn count(&self, rule: &str, node: &str, within: Duration, now: Timestamp) -> usize {
        let times = self.0.get(&(rule.to_owned(), node.to_owned()));
        times.map_or(0, |times| times.iter().filter(|at| now.since(**at) <= within).count())
    }

    /// Forgets what is older than the span.
    pub(super) fn forget(&mut self, within: Duration, now: Timestamp) {
        self.0.retain(|_, times| times.iter().any(|at| now.since(*at) <= within));
    }
}
