//! A node as the pages see it: only what is known of it.

use serde::Serialize;
use serde_json::Value;

use super::super::Node;
use crate::clock::Timestamp;
use crate::fleet::clocks::Standing;
use crate::ids::Address;

/// A node in a list. Times are milliseconds since 1970; what is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it calls itself.
    pub name: String,
    /// Its account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The address that it told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// What it told of itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meta: String,
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    pub since: u64,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// When the hub first heard of it.
    pub first: u64,
    /// Its last own beat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<u64>,
    /// Whether that beat said that it is down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub says_down: bool,
    /// Its last message on NATS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<u64>,
    /// The sequence number of that message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_seq: Option<u64>,
    /// Its last heartbeat on the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<u64>,
    /// The block of that heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_block: Option<u64>,
    /// Its cards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Cards>,
    /// How many slots jobs hold, and how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<(u64, u64)>,
    /// The version of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The owner's tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Row {
    /// The node's row.
    pub fn of(node: &Node) -> Self {
        let ms = |at: Option<Timestamp>| at.map(Timestamp::unix_ms);
        let version = node.presence.as_ref().and_then(|it| it.get("version")?.as_str());
        Self {
            name: node.name.clone(),
            address: node.address,
            ip: node.ip.clone(),
            meta: node.meta.clone(),
            standing: node.standing,
            since: node.standing_since.unix_ms(),
            why: node.why.clone(),
            first: node.first.unix_ms(),
            own: ms(node.heard.own),
            says_down: node.heard.says_down,
            nats: ms(node.heard.nats),
            nats_seq: node.nats_seq,
            chain: ms(node.heard.chain),
            chain_block: node.chain_block,
            gpus: Cards::of(node),
            jobs: jobs(node),
            version: version.map(str::to_owned),
            tags: node.tags.clone(),
        }
    }

    /// The row of somebody who may see names and standings only.
    #[must_use]
    pub fn in_public(node: &Node) -> Self {
        let mut seen = Node::new(node.name.clone(), node.first);
        (seen.standing, seen.standing_since) = (node.standing, node.standing_since);
        Self::of(&seen)
    }
}

/// The cards that one of our nodes says it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cards {
    /// How many.
    pub count: usize,
    /// The first one's model; empty if there is none.
    pub model: String,
    /// Whether others are of another model.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_mixed: bool,
    /// Their memory together, in MiB.
    pub vram_mib: u64,
    /// How many of them get no job now.
    #[serde(skip_serializing_if = "is_zero")]
    pub out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Cards {
    /// The node's cards; `None` if it doesn't say.
    pub fn of(node: &Node) -> Option<Self> {
        let cards = node.presence.as_ref()?.get("gpus")?.as_array()?;
        let first = cards.first().and_then(model).unwrap_or_default();
        let vram = |card: &Value| card.get("vram_mib").and_then(Value::as_u64).unwrap_or_default();
        let is_out = |card: &&Value| card.get("health").is_some_and(|health| health != "ok");
        Some(Self {
            count: cards.len(),
            is_mixed: cards.iter().any(|card| model(card) != Some(first)),
            vram_mib: cards.iter().map(vram).fold(0, u64::saturating_add),
            out: cards.iter().filter(is_out).count(),
            model: first.to_owned(),
        })
    }
}

fn model(card: &Value) -> Option<&str> {
    card.get("model")?.as_str()
}

/// How many slots of the node jobs hold, and how many it has; `None` if it doesn't say.
pub(super) fn jobs(node: &Node) -> Option<(u64, u64)> {
    let said = node.presence.as_ref()?;
    let slots = said.get("slots")?.as_u64()?;
    Some((slots.saturating_sub(said.get("free_slots")?.as_u64()?), slots))
}
