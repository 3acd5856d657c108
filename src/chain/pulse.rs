//! The heartbeats of all nodes, block by block.
//!
//! Must hold: a log is accepted only if it is of the contract, of the blocks that were asked for and of a kind that
//! was asked for.

use alloy::sol_types::SolEvent as _;
use serde_json::{Value, json};

use super::bindings::NodeReputation::NodeHeartbeat;
use super::history::account;
use super::logs::{Log, Ranges};
use super::reader::word;
use super::{Error, Reader};
use crate::clock::Timestamp;
use crate::ids::Address;

/// A node's heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The node's account.
    pub node: Address,
    /// The block.
    pub block: u64,
    /// When: the block's time as the event tells it.
    pub at: Timestamp,
}

/// Blocks whose heartbeats are read range by range, the oldest first.
#[derive(Debug)]
pub struct Pulse(Ranges);

impl Pulse {
    /// The blocks from `first` to `last`, both included.
    pub fn new(first: u64, last: u64) -> Self {
        Self(Ranges::new(first, last))
    }
}

impl Reader {
    /// The heartbeats of the next blocks; `None` after the last ones.
    pub async fn next_beats(&self, pulse: &mut Pulse) -> Result<Option<Vec<Beat>>, Error> {
        let filter = filter(self.contract());
        let Some((blocks, logs)) = pulse.0.next(&self.rpc, &filter).await? else {
            return Ok(None);
        };
        let contract = word(self.contract());
        let take = |log: &Log| {
            let block = log.block_number.to();
            let is_asked = log.address == contract && blocks.contains(&block) && !log.removed;
            beat(log, block).filter(|_| is_asked).ok_or_else(|| Error::Unexpected {
                reason: format!("it answers eth_getLogs with a log of block {block} unasked"),
            })
        };
        logs.iter().map(take).collect::<Result<_, _>>().map(Some)
    }
}

fn filter(contract: Address) -> Value {
    json!({
        "address": contract,
        "topics": [NodeHeartbeat::SIGNATURE_HASH],
    })
}

/// The heartbeat that a log is; `None` if it is none.
fn beat(log: &Log, block: u64) -> Option<Beat> {
    let event = NodeHeartbeat::decode_raw_log(&log.topics, &log.data).ok()?;
    let told: u64 = event.timestamp.saturating_to();
    let at = Timestamp::from_unix_ms(told.saturating_mul(1_000));
    Some(Beat { node: account(log.topics.get(1)?)?, block, at })
}
