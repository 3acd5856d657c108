//! What the original's service is sent, in its form.
//!
//! Must hold: the keys and their order are the original's; what is not known is left out, and never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Timestamp;

/// The longest text of one event, in bytes: what a log's line is cut at.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Most peers of one event.
const PEERS_MAX: usize = 64;

/// One event of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestEvent {
    /// The node's name.
    pub node_id: String,
    /// When it was written.
    pub timestamp: Timestamp,
    /// `peer_event`, `raw`, or the level of the line in small letters.
    pub event_type: String,
    /// What belongs to that type.
    pub details: BTreeMap<String, Value>,
}

impl IngestEvent {
    /// A line with a level. All texts must be without personal data.
    pub fn record(node: &str, at: Timestamp, level: &str, (logger, message): (&str, &str)) -> Self {
        let details = [("logger", json!(cut(logger))), ("message", json!(cut(message)))];
        Self::of(node, at, &level.to_ascii_lowercase(), details)
    }

    /// A line in no known form.
    pub fn raw(node: &str, at: Timestamp, line: &str) -> Self {
        Self::of(node, at, "raw", [("raw_line", json!(cut(line)))])
    }

    /// The line that says which peers the program joins by.
    pub fn join(node: &str, at: Timestamp, peers: &[String], (logger, raw): (&str, &str)) -> Self {
        let peers: Vec<&str> = peers.iter().take(PEERS_MAX).map(|peer| cut(peer)).collect();
        let details = [
            ("action", json!("join")),
            ("peers", json!(peers)),
            ("logger", json!(cut(logger))),
            ("raw", json!(cut(raw))),
        ];
        Self::of(node, at, "peer_event", details)
    }

    fn of<const N: usize>(
        node: &str,
        at: Timestamp,
        event_type: &str,
        details: [(&str, Value); N],
    ) -> Self {
        let details = details.map(|(key, value)| (key.to_owned(), value)).into();
        Self { node_id: node.to_owned(), timestamp: at, event_type: event_type.to_owned(), details }
    }
}

/// The text up to [`TEXT_BYTES_MAX`], at the end of a character.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text)
}

/// Samples of the machine, or figures of the chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "metrics_type", content = "data", rename_all = "lowercase")]
pub enum Metrics {
    /// Samples of the machine.
    Hardware(Hardware),
    /// What the coordinator says of the node's peer.
    Blockchain(Blockchain),
}

/// Samples of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// The processor, unless it is not sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// The memory, unless it is not sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<Ram>,
    /// The GPUs, unless they are not sampled; each once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Vec<Gpu>>,
}

/// The processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// How busy all cores together are, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_percent: Option<f64>,
    /// Number of cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_count: Option<u32>,
    /// In degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// The memory, in bytes and percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ram {
    /// All that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// In use, caches excluded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What programs could still get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// In use, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_percent: Option<f64>,
    /// All swap space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total: Option<u64>,
    /// Swap space in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_used: Option<u64>,
    /// Swap space in use, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_percent: Option<f64>,
}

/// One GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number, as the driver counts.
    pub index: u32,
    /// How busy it is, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub util_percent: Option<u32>,
    /// In degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_c: Option<u32>,
    /// Memory in use, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_used_mb: Option<u64>,
    /// All memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_total_mb: Option<u64>,
}

/// What the coordinator says of the node's peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Blockchain {
    /// The coordinator's events since the last send.
    pub contract_events: Vec<ContractEvent>,
    /// Of the node's transactions: its bundler pays, so nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas_used: Option<u64>,
    /// The block at which the rest was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_number: Option<u64>,
    /// How often the peer has voted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participation: Option<u64>,
    /// The peer's rewards, which may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_rewards: Option<i64>,
    /// How often the peer has won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_wins: Option<u64>,
}

/// One event of the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContractEvent {
    /// Its name, such as `RewardSubmitted`.
    pub event_type: String,
    /// The time of its block.
    pub timestamp: Timestamp,
    /// Its arguments by their names; numbers as texts.
    pub data: BTreeMap<String, Value>,
    /// The block's hash, with `0x`.
    pub block_hash: String,
    /// The transaction's hash, with `0x`.
    pub tx_hash: String,
}

/// A message with metrics, as it goes over the wire.
#[derive(Debug, Serialize)]
pub(super) struct Envelope<'a> {
    pub(super) node_id: &'a str,
    pub(super) timestamp: Timestamp,
    #[serde(flatten)]
    pub(super) metrics: &'a Metrics,
}
