//! What a watcher saw of a program, one thing at a time: written down, recorded and replayed in this form.
//!
//! Must hold: nothing is in it that was not scrubbed; the same observations in the same order give the same
//! verdicts, whoever feeds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meaning::Meaning;
use crate::clock::Timestamp;

/// The longest text of an observation, in bytes.
pub const TEXT_BYTES_MAX: usize = 2_000;

/// The source of what is known of processes.
pub const PROCESS: &str = "process";

/// The source of what the DHT says.
pub const DHT: &str = "dht";

/// The source of what the chain says.
pub const CHAIN: &str = "chain";

/// The source of who was paid: the contract's events, which an endpoint may refuse.
pub const EVENTS: &str = "chain events";

/// The name of a log as a source: `log swarm`.
pub fn log_source(log: &str) -> String {
    format!("log {log}")
}

/// Something seen, at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was seen, by the watcher's clock.
    pub at: Timestamp,
    /// What was seen.
    #[serde(flatten)]
    pub seen: Seen,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "seen", rename_all = "snake_case")]
pub enum Seen {
    /// The watcher begins to look, also after a pause: of before, nothing is known.
    Watching,
    /// Lines were read from a log.
    Lines {
        /// The log's name in the profile.
        log: String,
        /// How many.
        lines: u64,
    },
    /// A record of a log has a meaning.
    Told {
        /// The log's name in the profile.
        log: String,
        /// What it means.
        meaning: Meaning,
        /// The record, scrubbed and cut to [`TEXT_BYTES_MAX`].
        text: String,
        /// When the program wrote it, if the record says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<Timestamp>,
    },
    /// A part of a log can't be had any more.
    Gap {
        /// The log's name in the profile.
        log: String,
        /// How much, if that is known.
        bytes: Option<u64>,
        /// Why.
        why: String,
    },
    /// A source can't be asked, or can be again.
    Source {
        /// Which one: [`PROCESS`], [`DHT`], [`CHAIN`], [`log_source`], `port NAME`.
        source: String,
        /// Why it can't; `None`: it can again.
        trouble: Option<String>,
    },
    /// Whether the program runs, as its host says.
    Process {
        /// Whether it does.
        is_running: bool,
        /// Since when, if that is known.
        started: Option<Timestamp>,
        /// What was found, or is missing, in words.
        why: String,
    },
    /// Whether something answers at a port.
    Port {
        /// The port's name in the profile, or `host:port` of a backend.
        name: String,
        /// Whether it does.
        is_open: bool,
    },
    /// What the program's peers keep of it.
    Dht {
        /// How many bootnodes were asked.
        asked: u32,
        /// How many of them answered.
        alive: u32,
        /// What is kept under each key.
        kept: BTreeMap<String, Kept>,
    },
    /// What the contract says of the program and of all others.
    Chain(ChainSeen),
    /// A reorganisation took away what the chain said after this block; what stayed is observed again.
    TakenBack {
        /// The last block that stays.
        after: u64,
    },
    /// Somebody was paid.
    Paid {
        /// Who.
        whose: Whose,
        /// For which round.
        round: u64,
        /// How much, as a decimal number that may be negative.
        reward: String,
        /// In which block.
        block: u64,
        /// When, by the block's own time.
        paid: Timestamp,
    },
}

/// What peers keep of a program under one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept", rename_all = "snake_case")]
pub enum Kept {
    /// It published at this time.
    Published {
        /// When.
        at: Timestamp,
    },
    /// Whoever should keep it answered, and does not.
    Absent,
    /// Nobody can say.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A look at the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSeen {
    /// The block of the look.
    pub block: u64,
    /// The current round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// All that was ever paid to this peer, as a decimal number that may be negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<String>,
    /// Its wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wins: Option<u64>,
    /// Its votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<u64>,
    /// Whether the peer is registered; unknown if the contract did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_registered: Option<bool>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Who was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The watched program.
    Ours,
    /// Another one of the same account: where an account is paid once a round, one of the two gets nothing.
    Twin,
    /// Somebody else.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_reads_as_it_was_written() {
        let at = Timestamp::from_unix_ms(1_800_000_000_123);
        for (seen, written) in [
            (Seen::Watching, r#"{"at":"2027-01-15T08:00:00.123Z","seen":"watching"}"#),
            (
                Seen::Source { source: DHT.to_owned(), trouble: None },
                r#"{"at":"2027-01-15T08:00:00.123Z","seen":"source","source":"dht","trouble":null}"#,
            ),
            (
                Seen::Dht {
                    asked: 2,
                    alive: 1,
                    kept: [("solver".to_owned(), Kept::Published { at })].into(),
                },
                r#"{"at":"2027-01-15T08:00:00.123Z","seen":"dht","asked":2,"alive":1,"kept":{"solver":{"kept":"published","at":"2027-01-15T08:00:00.123Z"}}}"#,
            ),
            (
                Seen::Chain(ChainSeen { block: 7, round: Some(3), ..ChainSeen::default() }),
                r#"{"at":"2027-01-15T08:00:00.123Z","seen":"chain","block":7,"round":3}"#,
            ),
        ] {
            let observation = Observation { at, seen };
            assert_eq!(serde_json::to_string(&observation).unwrap(), written);
            assert_eq!(serde_json::from_str::<Observation>(written).unwrap(), observation);
        }
    }
}
