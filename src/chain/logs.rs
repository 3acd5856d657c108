//! Logs as `eth_getLogs` and transaction receipts give them, and a range of blocks read in parts.
//!
//! Must hold: a request covers a bounded range of blocks, and a smaller one after the endpoint refused it as
//! too large.

use std::ops::RangeInclusive;
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Error;
use super::rpc::{LIMITED, Rpc, RpcError};

/// The number of blocks in the first request. Public endpoints allow between 10 and 50,000.
pub(super) const BLOCKS_MAX: u64 = 10_000;

/// The pause before a smaller range is asked for, where the endpoint may mean that there were too many requests.
const LIMITED_PAUSE: Duration = Duration::from_millis(200);

/// One log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log {
    /// The contract that emitted it.
    pub(super) address: Address,
    /// The event's signature and its indexed arguments.
    pub(super) topics: Vec<B256>,
    /// The event's other arguments.
    pub(super) data: Bytes,
    /// The block of its transaction; pending transactions are never asked for.
    pub(super) block_number: U64,
    /// That block's hash.
    #[serde(default)]
    pub(super) block_hash: Option<B256>,
    /// The log's place in that block.
    #[serde(default, rename = "logIndex")]
    pub(super) index: Option<U64>,
    /// Its transaction.
    pub(super) transaction_hash: B256,
    /// The block's time in Unix seconds; only newer clients provide it.
    #[serde(default)]
    pub(super) block_timestamp: Option<U64>,
    /// Whether a reorganisation took its block off the chain.
    #[serde(default)]
    pub(super) removed: bool,
}

/// Blocks that are read range by range, oldest first.
#[derive(Debug)]
pub(super) struct Ranges {
    next: u64,
    last: u64,
    span: u64,
}

impl Ranges {
    /// The blocks from `first` to `last`, both included.
    pub(super) fn new(first: u64, last: u64) -> Self {
        Self::of_span(first, last, BLOCKS_MAX)
    }

    /// The same, beginning with requests for `span` blocks, as an earlier reading found out.
    pub(super) fn of_span(first: u64, last: u64, span: u64) -> Self {
        Self { next: first, last, span: span.max(1) }
    }

    /// How many blocks a request covers by now.
    pub(super) fn span(&self) -> u64 {
        self.span
    }

    /// The next range, and its logs that match `filter` (an object with `address` and `topics`); `None` at
    /// the end.
    pub(super) async fn next(
        &mut self,
        rpc: &Rpc,
        filter: &Value,
    ) -> Result<Option<(RangeInclusive<u64>, Vec<Log>)>, Error> {
        if self.next > self.last {
            return Ok(None);
        }
        loop {
            let blocks = self.next..=self.last.min(self.next.saturating_add(self.span - 1));
            match rpc.call("eth_getLogs", within(filter, &blocks)).await {
                Ok(logs) => {
                    self.next = blocks.end().saturating_add(1);
                    return Ok(Some((blocks, logs)));
                }
                // Endpoints have no common error for "too many", so any refusal and any oversized
                // answer halves the range until one block is left.
                Err(err @ (RpcError::Refused(_) | RpcError::Other(Error::Unexpected { .. })))
                    if blocks.end() > blocks.start() =>
                {
                    if matches!(&err, RpcError::Refused(refusal) if refusal.code == LIMITED) {
                        // It may as well be a limit of requests.
                        tokio::time::sleep(LIMITED_PAUSE).await;
                    }
                    self.span = (blocks.end() - blocks.start()).div_ceil(2);
                }
                Err(err) => return Err(err.unexpected("eth_getLogs")),
            }
        }
    }
}

/// The parameters of `eth_getLogs` for these blocks.
pub(super) fn within(filter: &Value, blocks: &RangeInclusive<u64>) -> Value {
    let mut filter = filter.clone();
    filter["fromBlock"] = json!(U64::from(*blocks.start()));
    filter["toBlock"] = json!(U64::from(*blocks.end()));
    json!([filter])
}
