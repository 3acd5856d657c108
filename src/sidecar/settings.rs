//! What the owner of a sidecar sets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::chain::Key;
use crate::fleet::alerts::Policy;
use crate::fleet::rule::Rule;
use crate::http::Url;
use crate::secret::Secret;
use crate::watch::expect::Expect;
use crate::watch::profile::Filled;
use crate::{bus, gswarm, notify, push};

/// Most programs that one sidecar watches.
pub const PROGRAMS_MAX: usize = 64;

/// The settings of a sidecar.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `SIDECAR_LISTEN`, or the original's `system.health_port`: where it is asked.
    pub listen: SocketAddr,
    /// `SIDECAR_DB`: its database.
    pub db: PathBuf,
    /// `SIDECAR_KEY_FILE`: the key with which it signs; `None`: a file beside the database, made at the first start.
    pub key: Option<Key>,
    /// What it watches; names are unique.
    pub programs: Vec<Watching>,
    /// What somebody wants to be woken for.
    pub rules: Vec<Rule>,
    /// How they want to be told.
    pub policy: Policy,
    /// What is not set, and so not watched or told; a sentence each.
    pub without: Vec<String>,
    /// How what is used is sampled.
    pub sampling: Sampling,
}

/// How what programs and the machine use is sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampling {
    /// `SIDECAR_SAMPLE_S`, or the original's `system.poll_interval`: how often; `None`: never.
    pub every: Option<Duration>,
    /// `NVML_LIB`: NVIDIA's library, if it is not the host's own.
    pub library: Option<PathBuf>,
}

/// A program to be watched.
#[derive(Debug, Clone)]
pub struct Watching {
    /// What the owner calls it.
    pub name: String,
    /// Its profile, with the owner's values.
    pub profile: Filled,
    /// What is expected of it.
    pub expect: Expect,
    /// Its id among its peers, if the owner says it; otherwise its log does.
    pub peer: Option<String>,
    /// How many last lines are read of a log that was never read before.
    pub first_lines: usize,
    /// How it is started again when it is down or stuck; `None`: never.
    pub restart: Option<Restart>,
}

/// How a program is started again. Off unless its owner sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// By whom.
    pub by: RestartBy,
    /// How long it must be in trouble before.
    pub after: Duration,
    /// How often within a day at most.
    pub a_day: u32,
}

/// Who is asked to start a program again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartBy {
    /// systemd, for this unit.
    Unit(String),
    /// The container engine, for this container.
    Container(String),
}

/// What a sidecar is linked with. It does without what is not set.
#[derive(Debug)]
pub struct Links {
    /// The channels over which people are told.
    pub channels: notify::Config,
    /// The hub that is told.
    pub hub: Option<HubLink>,
    /// The original's service, spoken to as the original does.
    pub original: Option<gswarm::Config>,
    /// A dead man's switch.
    pub ping: Option<Url>,
    /// Redis, where llama.cpp's users listen.
    pub redis: Option<RedisLink>,
    /// NATS, where each verdict that changed is an event.
    pub nats: Option<bus::Config>,
}

/// A hub that is told.
#[derive(Debug, Clone)]
pub struct HubLink {
    /// Its address; beats go to `/api/heartbeat` under it.
    pub url: Url,
    /// What proves that the beats are the owner's.
    pub secret: Secret,
}

/// A Redis server that is told what happens to llama.cpp's programs.
#[derive(Debug, Clone)]
pub struct RedisLink {
    /// The server.
    pub redis: push::redis::Config,
    /// Most events that wait for it, and most lines.
    pub ring: usize,
    /// Most of them in one write.
    pub batch: usize,
    /// How long they wait for others.
    pub flush: Duration,
    /// How often a coordinator's heartbeat is told.
    pub coordinator_every: Duration,
    /// How often the registry's is; `None`: never.
    pub registry_every: Option<Duration>,
}
