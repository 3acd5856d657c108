//! A node's history, from the contract's events.
//!
//! What must hold: a request asks for a bounded range of blocks, and for a smaller one where the
//! endpoint finds it too large; what comes back is taken only where it is what was asked for.

use alloy::primitives::{Address as Word, B256, Bytes, U64};
use alloy::sol_types::{SolEvent as _, SolEventInterface as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bindings::NodeReputation::{
    JobCountIncremented, NodeHeartbeat, NodeRegistered, NodeReputationEvents, ReceiptsCommitted,
};
use super::reader::word;
use super::rpc::Failure;
use super::{Error, Reader};
use crate::ids::Address;

/// Blocks that one request asks for at first. Public endpoints allow between 1,000 and 50,000.
const BLOCKS_MAX: u64 = 10_000;

/// Where nothing tells when the node registered, the history begins so many blocks ago.
pub const RECENT_BLOCKS: u64 = 50_000;

/// One event of a node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The block's number.
    pub block: u64,
    /// Unix seconds of it, where the event or the endpoint tells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_s: Option<u64>,
    /// `0x` and the transaction's hash.
    pub tx_hash: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What the contract can say of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It registered, or changed what it had registered.
    Registered {
        /// The model, as the node wrote it.
        gpu_model: String,
        /// Its memory in MiB.
        vram_mib: u64,
    },
    /// It said that it is there.
    Heartbeat,
    /// The owner confirmed a job of its.
    JobConfirmed {
        /// How many that makes.
        jobs: u64,
    },
    /// It bound itself to receipts.
    ReceiptsCommitted {
        /// `0x` and the receipts' Merkle root.
        root: String,
        /// Jobs that it says it completed.
        completed: u32,
        /// Jobs that it says it did not.
        failed: u32,
    },
}

/// A reading of a node's history, range by range, oldest first.
#[derive(Debug)]
pub struct Walk {
    provider: Address,
    next: u64,
    last: u64,
    span: u64,
}

/// A log as `eth_getLogs` gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    address: Word,
    topics: Vec<B256>,
    data: Bytes,
    block_number: U64,
    transaction_hash: B256,
    /// Newer nodes tell it.
    #[serde(default)]
    block_timestamp: Option<U64>,
}

#[derive(Debug, Deserialize)]
struct Header {
    timestamp: U64,
}

impl Walk {
    /// From this block to the other, both included.
    pub fn new(provider: Address, first: u64, last: u64) -> Self {
        Self { provider, next: first, last, span: BLOCKS_MAX }
    }
}

impl Reader {
    /// The latest block's number.
    pub async fn head(&self) -> Result<u64, Error> {
        self.chain_id().await?;
        Ok(self.rpc.ask::<U64>("eth_blockNumber", json!([])).await?.to())
    }

    /// The first block of this Unix second or a later one, up to `head`. A block that the endpoint
    /// has pruned counts as too early.
    pub async fn block_at(&self, time_s: u64, head: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (0, head);
        while low < high {
            let middle = low + (high - low) / 2;
            let params = json!([U64::from(middle), false]);
            let header: Option<Header> = self.rpc.ask("eth_getBlockByNumber", params).await?;
            if header.is_some_and(|header| header.timestamp.to::<u64>() >= time_s) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The events of the walk's next range; `None` at its end.
    pub async fn next_range(&self, walk: &mut Walk) -> Result<Option<Vec<Entry>>, Error> {
        if walk.next > walk.last {
            return Ok(None);
        }
        self.chain_id().await?;
        loop {
            let to = walk.last.min(walk.next.saturating_add(walk.span - 1));
            match self.rpc.call("eth_getLogs", self.filter(walk, to)).await {
                Ok(logs) => {
                    let entries = self.entries(walk, to, logs)?;
                    walk.next = to.saturating_add(1);
                    return Ok(Some(entries));
                }
                // Each endpoint has its own words for "too many": a refusal and an answer that is
                // too large both mean fewer blocks, as long as there are fewer.
                Err(Failure::Refused(_) | Failure::Other(Error::Unexpected { .. }))
                    if walk.span > 1 =>
                {
                    walk.span /= 2;
                }
                Err(failure) => return Err(failure.unexpected("eth_getLogs")),
            }
        }
    }

    fn filter(&self, walk: &Walk, to: u64) -> Value {
        json!([{
            "address": self.config.contract,
            "fromBlock": U64::from(walk.next),
            "toBlock": U64::from(to),
            "topics": [
                [
                    NodeRegistered::SIGNATURE_HASH,
                    NodeHeartbeat::SIGNATURE_HASH,
                    JobCountIncremented::SIGNATURE_HASH,
                    ReceiptsCommitted::SIGNATURE_HASH,
                ],
                word(walk.provider).into_word(),
            ],
        }])
    }

    fn entries(&self, walk: &Walk, to: u64, logs: Vec<Log>) -> Result<Vec<Entry>, Error> {
        let asked = walk.next..=to;
        let provider = word(walk.provider).into_word();
        let take = |log: Log| {
            let block = log.block_number.to();
            let is_asked = log.address == word(self.config.contract)
                && log.topics.get(1) == Some(&provider)
                && asked.contains(&block);
            entry(&log, block).filter(|_| is_asked).ok_or_else(|| Error::Unexpected {
                reason: format!("it answers eth_getLogs with a log of block {block} unasked"),
            })
        };
        logs.into_iter().map(take).collect()
    }
}

/// `None` where the log is none of the four events.
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
