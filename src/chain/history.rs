//! A node's history, read from the contract's events.
//!
//! Must hold: a request covers a bounded range of blocks, and a smaller one after the endpoint refused
//! it as too large. A log is accepted only if it matches the request.

use std::ops::RangeInclusive;

use alloy::primitives::{Address as Word, B256, U64};
use alloy::sol_types::{SolEvent as _, SolEventInterface as _};
use serde::Serialize;
use serde_json::{Value, json};

use super::bindings::NodeReputation::{
    JobCountIncremented, NodeHeartbeat, NodeRegistered, NodeReputationEvents, ReceiptsCommitted,
};
use super::logs::{Log, Ranges};
use super::reader::word;
use super::rpc::Block;
use super::{Error, Reader};
use crate::ids::Address;

/// How many blocks back the history begins if the time of the node's registration is unknown.
pub const RECENT_BLOCKS: u64 = 50_000;

/// One event of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The block's number.
    pub block: u64,
    /// Its time in Unix seconds, if the event or the endpoint provides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_s: Option<u64>,
    /// `0x` and the transaction's hash.
    pub tx_hash: String,
    /// The decoded event.
    #[serde(flatten)]
    pub event: Event,
}

/// The contract's events about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The node registered, or replaced its registration.
    Registered {
        /// The GPU model, as the node wrote it.
        gpu_model: String,
        /// The memory of that GPU in MiB.
        vram_mib: u64,
    },
    /// The node sent a heartbeat.
    Heartbeat,
    /// The contract's owner confirmed one of the node's jobs.
    JobConfirmed {
        /// The node's confirmed jobs, this one included.
        jobs: u64,
    },
    /// The node committed to receipts.
    ReceiptsCommitted {
        /// `0x` and the Merkle root of the receipts.
        root: String,
        /// Jobs that the node claims to have completed.
        completed: u32,
        /// Jobs that the node reports as not completed.
        failed: u32,
    },
}

/// The progress of reading a node's history, range by range, oldest first.
#[derive(Debug)]
pub struct Walk {
    /// The node whose events are read; `None`: all nodes.
    provider: Option<Address>,
    ranges: Ranges,
}

impl Walk {
    /// A walk from block `first` to block `last`, both included.
    pub fn new(provider: Address, first: u64, last: u64) -> Self {
        Self { provider: Some(provider), ranges: Ranges::new(first, last) }
    }

    /// As [`Walk::new`], over the events of all nodes.
    pub fn of_all(first: u64, last: u64) -> Self {
        Self { provider: None, ranges: Ranges::new(first, last) }
    }
}

impl Reader {
    /// The latest block's number.
    pub async fn head(&self) -> Result<u64, Error> {
        self.chain_id().await?;
        Ok(self.rpc.ask::<U64>("eth_blockNumber", json!([])).await?.to())
    }

    /// The first block whose timestamp is at least `time_s`, searched up to `head`. A block that the
    /// endpoint has pruned counts as too early.
    pub async fn block_at(&self, time_s: u64, head: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (0, head);
        while low < high {
            let middle = low + (high - low) / 2;
            let params = json!([U64::from(middle), false]);
            let block: Option<Block> = self.rpc.ask("eth_getBlockByNumber", params).await?;
            if block.is_some_and(|block| block.head().timestamp_s >= time_s) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The events of the walk's next range; `None` at the end of the walk.
    pub async fn next_range(&self, walk: &mut Walk) -> Result<Option<Vec<Entry>>, Error> {
        let entries = self.next_of_all(walk).await?;
        Ok(entries.map(|entries| entries.into_iter().map(|(_, entry)| entry).collect()))
    }

    /// As [`Reader::next_range`], each event with the node that it is about.
    pub async fn next_of_all(
        &self,
        walk: &mut Walk,
    ) -> Result<Option<Vec<(Address, Entry)>>, Error> {
        self.chain_id().await?;
        let filter = self.filter(walk.provider);
        let Some((blocks, logs)) = walk.ranges.next(&self.rpc, &filter).await? else {
            return Ok(None);
        };
        self.entries(walk.provider, &blocks, logs).map(Some)
    }

    /// The Unix second of a block's timestamp.
    pub async fn time_of(&self, block: u64) -> Result<u64, Error> {
        let params = json!([U64::from(block), false]);
        let found: Option<Block> = self.rpc.ask("eth_getBlockByNumber", params).await?;
        found
            .map(|block| block.head().timestamp_s)
            .ok_or_else(|| Error::Unexpected { reason: format!("it has no block {block}") })
    }

    fn filter(&self, provider: Option<Address>) -> Value {
        let kinds = json!([
            NodeRegistered::SIGNATURE_HASH,
            NodeHeartbeat::SIGNATURE_HASH,
            JobCountIncremented::SIGNATURE_HASH,
            ReceiptsCommitted::SIGNATURE_HASH,
        ]);
        let topics = match provider {
            Some(provider) => json!([kinds, word(provider).into_word()]),
            None => json!([kinds]),
        };
        json!({ "address": self.config.contract, "topics": topics })
    }

    fn entries(
        &self,
        provider: Option<Address>,
        asked: &RangeInclusive<u64>,
        logs: Vec<Log>,
    ) -> Result<Vec<(Address, Entry)>, Error> {
        let contract = word(self.config.contract);
        let take = |log: Log| {
            let block = log.block_number.to();
            let about = log.topics.get(1).and_then(account);
            let is_asked = log.address == contract
                && (provider.is_none() || about == provider)
                && asked.contains(&block);
            let entry = about.zip(entry(&log, block)).filter(|_| is_asked);
            entry.ok_or_else(|| Error::Unexpected {
                reason: format!("it answers eth_getLogs with a log of block {block} unasked"),
            })
        };
        logs.into_iter().map(take).collect()
    }
}

/// The account in an indexed argument: twelve zero bytes, then its own.
pub(super) fn account(topic: &B256) -> Option<Address> {
    let is_account = topic.iter().take(12).all(|byte| *byte == 0);
    is_account.then(|| Address::new(Word::from_word(*topic).into_array()))
}

/// Decodes a log; `None` unless it is one of the four events.
fn entry(log: &Log, block: u64) -> Option<Entry> {
    let mut time_s = log.block_timestamp.map(|time| time.to());
    let event = match NodeReputationEvents::decode_raw_log(&log.topics, &log.data).ok()? {
        NodeReputationEvents::NodeRegistered(NodeRegistered { gpuModel, vram, .. }) => {
            Event::Registered { gpu_model: gpuModel, vram_mib: vram.saturating_to() }
        }
        NodeReputationEvents::NodeHeartbeat(NodeHeartbeat { timestamp, .. }) => {
            time_s = Some(timestamp.saturating_to());
            Event::Heartbeat
        }
        NodeReputationEvents::JobCountIncremented(JobCountIncremented { newCount, .. }) => {
            Event::JobConfirmed { jobs: newCount.saturating_to() }
        }
        NodeReputationEvents::ReceiptsCommitted(ReceiptsCommitted {
            receiptsRoot,
            completed,
            failed,
            ..
        }) => Event::ReceiptsCommitted { root: receiptsRoot.to_string(), completed, failed },
        NodeReputationEvents::OwnershipTransferred(_) => return None,
    };
    Some(Entry { block, time_s, tx_hash: log.transaction_hash.to_string(), event })
}
