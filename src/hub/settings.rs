//! What the owner of a hub sets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::fleet::clocks::Patience;
use crate::fleet::rule::Rule;
use crate::node::presence;
use crate::secret::Secret;

/// What a hub shows to people who did not log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Public {
    /// All that it knows of its nodes.
    Full,
    /// Their names and whether they are up.
    Status,
    /// Nothing.
    Off,
}

/// The settings of a hub.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `HUB_LISTEN`: where it is asked.
    pub listen: SocketAddr,
    /// `SITE_TITLE`: the title of its pages.
    pub title: String,
    /// `SHARED_SECRET`: the token of all nodes that have none of their own.
    pub shared_secret: Secret,
    /// `ADMIN_TOKEN`: the token that may change nodes; without it, nobody may.
    pub admin_token: Option<Secret>,
    /// `DOWN_THRESHOLD_SEC`: how long a node's beats may be silent.
    pub down_threshold: Duration,
    /// `PRUNE_DAYS`: nodes that were silent for longer are forgotten; `None`: never.
    pub prune: Option<Duration>,
    /// `DB_PATH`: its database.
    pub db: PathBuf,
    /// `HUB_PUBLIC`.
    pub public: Public,
    /// Whether that holds for this machine alone, since nobody has said it: who asks for another host's page, by a proxy
    /// or by a name that leads here, sees nothing.
    pub is_only_here: bool,
    /// `HUB_KEYS`: whether beats are also taken for the signature of a key that nobody enrolled, if the hub knows its node
    /// and the contract calls that one active.
    pub takes_chains_keys: bool,
    /// `HUB_RULES`: what somebody wants to be woken for.
    pub rules: Vec<Rule>,
    /// What is not set, and so not watched or told; a sentence each.
    pub without: Vec<&'static str>,
}

/// The contract's own window of activity: three heartbeats of five minutes.
const CHAIN_PATIENCE: Duration = Duration::from_mins(15);

/// How many presences of a node may be missed.
const PRESENCES_MISSED: u64 = 3;

/// How long two programs with one key may not be heard by turns before one of them has ended: three beats of theirs.
const CLASH_PATIENCE: Duration = Duration::from_secs(90);

impl Settings {
    /// How long each clock of a node may be silent.
    pub const fn patience(&self) -> Patience {
        Patience {
            own: self.down_threshold,
            nats: Duration::from_secs(PRESENCES_MISSED * presence::EVERY_S),
            chain: CHAIN_PATIENCE,
            clash: CLASH_PATIENCE,
        }
    }
}
