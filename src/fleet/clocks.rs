//! Whether a node is there, by up to three clocks: its own beat to the hub, its messages on NATS, its heartbeats
//! on the chain.
//!
//! Must hold: nothing is called silent that was not listened to for as long as its patience; what the clocks
//! disagree about is a standing of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Two programs use the same key.
    Clash,
    /// It says that it is down, or has not been heard in time.
    Down,
    /// The chain hears it, and nobody else does: it earns uptime without being there for jobs.
    Zombie,
    /// Nobody has listened for long enough to know.
    NotWatched,
    /// It was heard in time.
    Up,
}

impl Standing {
    /// All standings, the worst first.
    pub const ALL: [Self; 5] = [Self::Clash, Self::Down, Self::Zombie, Self::NotWatched, Self::Up];

    /// The standing as it is written: `not_watched`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clash => "clash",
            Self::Down => "down",
            Self::Zombie => "zombie",
            Self::NotWatched => "not_watched",
            Self::Up => "up",
        }
    }

    /// The standing that this names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// When a node was last heard, by each clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its own beat to the hub.
    pub own: Option<Timestamp>,
    /// Whether that beat said that the node is down.
    pub says_down: bool,
    /// Its last message on NATS.
    pub nats: Option<Timestamp>,
    /// Its last heartbeat in a block.
    pub chain: Option<Timestamp>,
    /// When two programs with its key were last seen.
    pub clash: Option<Timestamp>,
    /// Whether it is one of our nodes, which are on NATS while they run.
    pub is_ours: bool,
}

/// How long a clock may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The node's own beat (`DOWN_THRESHOLD_SEC`).
    pub own: Duration,
    /// NATS: three of the node's presence intervals.
    pub nats: Duration,
    /// The chain: three of the contract's heartbeat intervals.
    pub chain: Duration,
}

/// Since when each clock is listened to without a break; `None` while it isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The hub takes beats.
    pub own: Timestamp,
    /// The hub is connected to NATS.
    pub nats: Option<Timestamp>,
    /// The hub reads the chain.
    pub chain: Option<Timestamp>,
}

/// What one clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Heard within its patience.
    Fresh,
    /// Not heard, though it was listened to for longer than its patience.
    Silent,
    /// Nobody has listened for long enough.
    Unknown,
    /// Not a clock of this node.
    Absent,
}

/// The standing of a node, and why, in words.
pub fn standing(
    heard: &Heard,
    patience: &Patience,
    listening: &Listening,
    now: Timestamp,
) -> (Standing, String) {
    if heard.clash.is_some_and(|at| now.since(at) <= patience.nats) {
        return (Standing::Clash, "two programs use its key".to_owned());
    }
    let own = match heard.own {
        None => Word::Absent,
        heard => word(heard, patience.own, Some(listening.own), now),
    };
    if own == Word::Fresh && heard.says_down {
        return (Standing::Down, "it says so itself".to_owned());
    }
    let nats = if heard.is_ours {
        word(heard.nats, patience.nats, listening.nats, now)
    } else {
        Word::Absent
    };
    if own == Word::Fresh || nats == Word::Fresh {
        return (Standing::Up, heard_by(own, nats).to_owned());
    }
    if own == Word::Unknown || nats == Word::Unknown {
        return (Standing::NotWatched, "the hub has not listened for long enough".to_owned());
    }
    let silence = silence(heard, now);
    match word(heard.chain, patience.chain, listening.chain, now) {
        Word::Fresh if nats == Word::Silent => {
            (Standing::Zombie, format!("its heartbeats reach the chain, but {silence}"))
        }
        _ => (Standing::Down, silence),
    }
}

/// When a standing that follows from silence begins, so that a late look at it doesn't move its start: the moment
/// at which the last clock's patience ended.
pub fn silent_since(heard: &Heard, patience: &Patience) -> Option<Timestamp> {
    let own = heard.own.map(|at| at.plus(patience.own));
    let nats = heard.nats.map(|at| at.plus(patience.nats));
    own.max(nats)
}

fn word(
    heard: Option<Timestamp>,
    patience: Duration,
    listening: Option<Timestamp>,
    now: Timestamp,
) -> Word {
    if heard.is_some_and(|at| now.since(at) <= patience) {
        return Word::Fresh;
    }
    match listening {
        Some(since) if now.since(since) > patience => Word::Silent,
        _ => Word::Unknown,
    }
}

const fn heard_by(own: Word, nats: Word) -> &'static str {
    match (own, nats) {
        (Word::Fresh, Word::Fresh) => "its beats and its messages on NATS come in time",
        (Word::Fresh, Word::Silent) => "its beats come in time; on NATS it is silent",
        (Word::Fresh, _) => "its beats come in time",
        (Word::Silent, _) => "its messages on NATS come in time; its beats have stopped",
        _ => "its messages on NATS come in time",
    }
}

fn silence(heard: &Heard, now: Timestamp) -> String {
    let age = |at: Timestamp| super::words::age(now.since(at));
    match (heard.own, heard.nats) {
        (Some(own), Some(nats)) => {
            format!("its last beat is {} old, its last message on NATS {}", age(own), age(nats))
        }
        (Some(own), None) => format!("its last beat is {} old", age(own)),
        (None, Some(nats)) => format!("its last message on NATS is {} old", age(nats)),
        (None, None) => "it has never been heard on NATS".to_owned(),
    }
}
