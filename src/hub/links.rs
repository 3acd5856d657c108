//! What a hub is linked with besides its nodes' beats: each part may be missing.

use crate::bus;
use crate::chain;
use crate::fleet::alerts::{Daily, Policy};
use crate::fleet::pair::HubName;
use crate::http::Url;
use crate::notify;

/// What a hub listens to and whom it tells.
#[derive(Debug)]
pub struct Links {
    /// `NATS_URL` and what belongs to it: what our nodes say.
    pub bus: Option<bus::Config>,
    /// `OPBNB_RPC_URL` and `REPUTATION_CONTRACT_ADDRESS`: the nodes' heartbeats.
    pub chain: Option<chain::Config>,
    /// The channels over which people are told.
    pub channels: notify::Config,
    /// `HUB_PING_URL`: a dead man's switch.
    pub ping: Option<Url>,
    /// `HUB_PAIR`: this hub's name, if it shares its alerts with another one over NATS.
    pub pair: Option<HubName>,
    /// How people want to be told (`HUB_RULES`).
    pub policy: Policy,
    /// When they are told of the day (`HUB_RULES`).
    pub digest: Option<Daily>,
}
