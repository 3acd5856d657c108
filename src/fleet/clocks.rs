//! Whether a node is there, by up to three clocks: its own beat to the hub, its messages on NATS, its heartbeats
//! on the chain.
//!
//! Must hold: nothing is called silent that was not listened to for as long as its patience; what the clocks
//! disagree about is a standing of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::instances::Clash;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its own beat to the hub.
    pub own: Option<Timestamp>,
    /// Whether that beat said that the node is down.
    pub says_down: bool,
    /// Its last message on NATS.
    pub nats: Option<Timestamp>,
    /// Its last heartbeat in a block.
    pub chain: Option<Timestamp>,
    /// Two programs with its key, as they were last seen.
    pub clash: Option<Clash>,
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
    /// A clash: three of the intervals at which programs with one key are heard by turns.
    pub clash: Duration,
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
    if let Some(clash) = &heard.clash
        && now.since(clash.at) <= patience.clash
    {
        return (Standing::Clash, clash.who.clone());
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
        // It was heard on the chain after it fell silent: no last heartbeat of a node that died.
        Word::Fresh if nats == Word::Silent && chain_end(heard) > silent_since(heard, patience) => {
            (Standing::Zombie, format!("its heartbeats reach the chain, but {silence}"))
        }
        _ => (Standing::Down, silence),
    }
}

/// The end of the second in which its last heartbeat was mined: blocks tell whole seconds.
fn chain_end(heard: &Heard) -> Option<Timestamp> {
    heard.chain.map(|at| at.plus(Duration::from_secs(1)))
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
    const PATIENCE: Patience = Patience {
        own: Duration::from_mins(3),
        nats: Duration::from_mins(1),
        chain: Duration::from_mins(15),
        clash: Duration::from_secs(90),
    };

    #[expect(clippy::unnecessary_wraps, reason = "it is what clocks are given as")]
    fn ago(seconds: u64) -> Option<Timestamp> {
        Some(Timestamp::from_unix_ms(NOW.unix_ms() - 1_000 * seconds))
    }

    /// The hub has listened to everything for an hour.
    fn all_ears() -> Listening {
        Listening { own: ago(3_600).unwrap(), nats: ago(3_600), chain: ago(3_600) }
    }

    fn of(heard: &Heard) -> Standing {
        standing(heard, &PATIENCE, &all_ears(), NOW).0
    }

    #[test]
    fn each_clock_counts_and_their_disagreement_has_a_name() {
        let beats = |own, says_down| Heard { own, says_down, ..Heard::default() };
        let ours = |nats, chain| Heard { nats, chain, is_ours: true, ..Heard::default() };
        let clash = |at: Option<Timestamp>| at.map(|at| Clash { at, who: "two".to_owned() });
        for (heard, expected) in [
            (beats(ago(180), false), Standing::Up),
            (beats(ago(181), false), Standing::Down),
            (beats(ago(10), true), Standing::Down),
            (ours(ago(60), None), Standing::Up),
            (ours(ago(61), None), Standing::Down),
            (ours(ago(61), ago(300)), Standing::Down),
            (ours(ago(400), ago(300)), Standing::Zombie),
            // Mined in the second in which its silence became known: the block tells the second's begin.
            (
                ours(ago(361).map(|at| at.plus(Duration::from_millis(700))), ago(301)),
                Standing::Zombie,
            ),
            (
                ours(ago(360).map(|at| at.plus(Duration::from_millis(300))), ago(301)),
                Standing::Down,
            ),
            (ours(None, ago(300)), Standing::Zombie),
            (ours(None, ago(1_000)), Standing::Down),
            (Heard { own: ago(10), ..ours(ago(600), ago(300)) }, Standing::Up),
            (Heard { clash: clash(ago(30)), ..ours(ago(1), ago(1)) }, Standing::Clash),
            (Heard { clash: clash(ago(90)), ..ours(ago(1), ago(1)) }, Standing::Clash),
            (Heard { clash: clash(ago(91)), ..ours(ago(1), ago(1)) }, Standing::Up),
            (Heard { clash: clash(ago(30)), ..beats(ago(10), true) }, Standing::Clash),
            (Heard { clash: clash(ago(91)), ..beats(ago(181), false) }, Standing::Down),
        ] {
            assert_eq!(of(&heard), expected, "{heard:?}");
        }
    }

    #[test]
    fn what_was_not_listened_to_for_long_enough_is_not_called_silent() {
        let old = Heard { own: ago(7_200), ..Heard::default() };
        let just_started = Listening { own: ago(179).unwrap(), nats: None, chain: None };
        assert_eq!(standing(&old, &PATIENCE, &just_started, NOW).0, Standing::NotWatched);
        let ours = Heard { nats: ago(7_200), is_ours: true, ..Heard::default() };
        let without_nats = Listening { nats: None, ..all_ears() };
        assert_eq!(standing(&ours, &PATIENCE, &without_nats, NOW).0, Standing::NotWatched);
        assert_eq!(standing(&ours, &PATIENCE, &all_ears(), NOW).0, Standing::Down);
    }

    #[test]
    fn the_reason_says_what_was_last_heard() {
        let old = Heard { own: ago(7_200), ..Heard::default() };
        let (_, why) = standing(&old, &PATIENCE, &all_ears(), NOW);
        assert_eq!(why, "its last beat is 2 h old");
        assert_eq!(silent_since(&old, &PATIENCE), ago(7_020));
    }
}
