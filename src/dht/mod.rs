//! Asks a Hivemind DHT from outside, as a witness: which bootnodes live, and who published under which keys.
//!
//! A [`Witness`] belongs to no swarm: it dials the bootnodes, goes on to the nodes that are nearest to the keys, and
//! reads for each key which peers published under it and until when that holds. It works from any machine and for
//! any peer.
//!
//! Must hold:
//! - No answer is never "absent": [`Sought::Absent`] takes most of the nodes that would hold the key.
//! - What strangers stored is never decoded, only whose it is and when it expires.
//! - A round ends within its deadline, and holds little memory, whatever the nodes do.
//!
//! Nothing here is proof against a swarm that lies: any node may say of any peer that it published.

mod address;
mod call;
mod dictionary;
mod fault;
mod found;
mod key;
mod link;
mod round;
mod search;
mod source;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use libp2p_identity::Keypair;

pub use self::address::{Bootnode, InvalidBootnode};
pub use self::key::Key;
use crate::clock::Timestamp;

/// The most bootnodes, keys and peers of interest of one round; what is over that is not asked.
pub const BOOTNODES_MAX: usize = 64;
/// See [`BOOTNODES_MAX`].
pub const KEYS_MAX: usize = 16;
/// See [`BOOTNODES_MAX`].
pub const PEERS_MAX: usize = 1000;

/// The limits of a round.
#[derive(Debug, Clone)]
pub struct Config {
    /// For a connection, with everything until the node has proved who it is.
    pub dial: Duration,
    /// For one answer.
    pub call: Duration,
    /// For everything.
    pub whole: Duration,
    /// How far ahead an expiration may be; one that is farther is a lie. The watched programs say how long what
    /// they publish holds.
    pub ahead_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(2),
            call: Duration::from_secs(3),
            whole: Duration::from_secs(10),
            ahead_max: Duration::from_hours(24),
        }
    }
}

/// What one round found, in the order in which it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Each bootnode.
    pub asked: Vec<Asked>,
    /// Each key.
    pub sought: Vec<Sought>,
    /// How many nodes said what they hold.
    pub answered: usize,
}

/// A bootnode, and whether it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The bootnode.
    pub bootnode: Bootnode,
    /// That it is there, as a Hivemind node; or a clause that says why it's not known to be.
    pub answer: Result<Alive, String>,
}

/// A Hivemind node that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// How long its answer to a ping took.
    pub rtt: Duration,
    /// The name of its program, as it says; at most 60 characters.
    pub agent: Option<String>,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Sought {
    /// Somebody published under the key.
    Found {
        /// Those of the peers of interest that published.
        peers: BTreeMap<String, Publish>,
        /// All the others.
        others: Others,
        /// Whether most of the nodes that hold the key answered and told whose each value is, so that a peer that
        /// isn't among `peers` did not publish.
        is_complete: bool,
    },
    /// Nobody published under the key.
    Absent {
        /// How many nodes answered.
        asked: usize,
    },
    /// Too few nodes answered.
    Unknown {
        /// A clause that says why.
        why: String,
    },
}

/// The last that a peer published under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Until when it holds. What is already over, by up to a few minutes, is kept.
    pub expires: Timestamp,
}

/// The peers under a key that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Others {
    /// How many there are, as the node says that knows the most.
    pub count: usize,
    /// Until when the latest of them holds.
    pub latest: Option<Timestamp>,
}

/// Asks DHTs, with one identity for as long as it lives.
#[derive(Clone)]
pub struct Witness {
    key: Keypair,
    config: Config,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Witness {
    /// A witness with a new identity, which no node has seen before.
    pub fn new(config: Config) -> Self {
        Self { key: Keypair::generate_ed25519(), config }
    }

    /// Asks all bootnodes, and the nodes nearest to the keys, who published: which of `peers`, and how many others.
    /// `now` is the time of day, by which expirations are judged. Takes [`Config::whole`] at most.
    pub async fn round(
        &self,
        bootnodes: &[Bootnode],
        keys: &[Key],
        peers: &[String],
        now: Timestamp,
    ) -> Round {
        round::round(self, bootnodes, keys, peers, now).await
    }
}
