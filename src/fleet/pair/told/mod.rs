//! What people were told over a channel, by either hub, and whether a message says anything else.
//!
//! A [`Subject`] is a node in trouble by a rule. What was told of it last is its entry: in trouble, or well again, and
//! when that began. A hub's own notice says the same if the entry has the same state and this hub has seen no change
//! since that the entry doesn't know of.
//!
//! Must hold: a subject that changed after what was told is never taken for told, as long as the hubs' clocks are
//! within [`SKEW`] of each other; what may be either is told again and marked.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::fleet::notice::NoticeKind;
use crate::ids::hash::keccak256;

/// How far two hubs' clocks may be apart.
pub const SKEW: Duration = Duration::from_secs(5);

/// A reminder is told already if one was within this time before it was decided. Shorter than any `remind_s`.
const REMINDED: Duration = Duration::from_secs(30);

/// Two messages about no node, such as a day's digest, are the same if both were decided within this time.
const SAME_DAY: Duration = Duration::from_hours(1);

/// The most subjects that are remembered; the ones that were told longest ago are forgotten.
const ENTRIES_MAX: usize = 200_000;

/// A node by a rule, or a message about no node: 64 bits of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(pub u64);

impl Subject {
    /// The subject of this node by this rule.
    pub fn of(rule: &str, node: &str) -> Self {
        let hash = keccak256(format!("{rule}\0{node}").as_bytes());
        let first = hash.0.first_chunk::<8>().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

/// What a message says of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Say {
    /// Of whom.
    pub subject: Subject,
    /// Whether it is well again; else it is in trouble.
    pub is_well: bool,
    /// Since when.
    pub when: Timestamp,
}

/// What a hub is about to say of one subject, with what it knows of its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saying {
    /// What it says.
    pub say: Say,
    /// When this trouble began for this hub.
    pub joined: Timestamp,
    /// When this hub last saw an earlier trouble of it end.
    pub well_before: Option<Timestamp>,
}

/// All that a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tells {
    /// Why it is sent.
    pub kind: NoticeKind,
    /// When it was decided.
    pub decided: Timestamp,
    /// Of whom it says what.
    pub sayings: Vec<Saying>,
}

impl Tells {
    /// What a message says that is about no node.
    pub fn of_none(kind: NoticeKind, title: &str, decided: Timestamp) -> Self {
        let subject = Subject::of(kind.as_str(), title);
        let say = Say { subject, is_well: false, when: decided };
        let sayings = vec![Saying { say, joined: decided, well_before: None }];
        Self { kind, decided, sayings }
    }
}

/// Whether a message was told already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It says something that was not told.
    New,
    /// It may have been told.
    Doubtful,
    /// It says nothing that was not told.
    Told,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    is_well: bool,
    when: Timestamp,
    /// When it was told.
    at: Timestamp,
    /// Whether it isn't known that it arrived.
    is_doubtful: bool,
}

/// What was told over one channel.
#[derive(Debug, Clone, Default)]
pub struct Told(HashMap<Subject, Entry>);

impl Told {
    /// Takes note of a message that was told, or may have been.
    pub fn note(&mut self, says: &[Say], at: Timestamp, is_doubtful: bool) {
        for say in says {
            let new = Entry { is_well: say.is_well, when: say.when, at, is_doubtful };
            match self.0.get_mut(&say.subject) {
                Some(old) if old.is_well == say.is_well => {
                    // A doubt about what is known to have been told changes nothing.
                    if is_doubtful && !old.is_doubtful && say.when <= old.when.plus(SKEW) {
                        continue;
                    }
                    *old = Entry { when: old.when.max(say.when), at: old.at.max(at), ..new };
                }
                // An end that belongs to an earlier trouble of it.
                Some(old) if say.when.plus(SKEW) < old.when => {}
                _ => {
                    self.0.insert(say.subject, new);
                }
            }
        }
        self.forget();
    }

    /// Whether this message was told already.
    pub fn verdict(&self, tells: &Tells) -> Verdict {
        let all: Vec<_> = tells.sayings.iter().map(|saying| self.of_one(saying, tells)).collect();
        if all.contains(&Verdict::Doubtful) {
            Verdict::Doubtful
        } else if all.is_empty() || all.contains(&Verdict::New) {
            Verdict::New
        } else {
            Verdict::Told
        }
    }

    /// How many subjects are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of_one(&self, saying: &Saying, tells: &Tells) -> Verdict {
        let Some(entry) = self.0.get(&saying.say.subject) else { return Verdict::New };
        let said = if entry.is_doubtful { Verdict::Doubtful } else { Verdict::Told };
        match tells.kind {
            NoticeKind::Test => return Verdict::New,
            NoticeKind::Digest => {
                let (one, other) = (entry.when, tells.decided);
                let apart = one.since(other).max(other.since(one));
                return if apart <= SAME_DAY { said } else { Verdict::New };
            }
            NoticeKind::Reminder if entry.at.plus(REMINDED) < tells.decided => return Verdict::New,
            _ => {}
        }
        match (saying.say.is_well, entry.is_well) {
            (false, false) => match saying.well_before {
                Some(well) if well > entry.when.plus(SKEW) => Verdict::New,
                // It was well at about the time of which was told that it is not: before that, or after.
                Some(well) if well.plus(SKEW) >= entry.when => Verdict::Doubtful,
                _ => said,
            },
            (true, true) if entry.when.plus(SKEW) >= saying.joined => said,
            // That it is in trouble anew was told since.
            (true, false) if entry.when > saying.say.when.plus(SKEW) => said,
            _ => Verdict::New,
        }
    }

    /// Forgets what was told longest ago, where that is too much.
    fn forget(&mut self) {
        if self.0.len() <= ENTRIES_MAX {
            return;
        }
        let mut times: Vec<Timestamp> = self.0.values().map(|entry| entry.at).collect();
        let (_, middle, _) = times.select_nth_unstable(ENTRIES_MAX / 10);
        let middle = *middle;
        self.0.retain(|_, entry| entry.at > middle);
    }
}

#[cfg(test)]
mod tests;
