//! Receipt roots on the chain: the roots that a transaction committed, and the block of a root.
//!
//! Must hold: only events of the contract itself count, and only from transactions that succeeded.

use alloy::primitives::U64;
use alloy::sol_types::SolEvent as _;
use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::bindings::NodeReputation::ReceiptsCommitted;
use super::logs::{Log, within};
use super::reader::{Reader, word};
use super::rpc::Block;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// A root that a node put on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// The node that sent the transaction.
    pub provider: Address,
    /// The Merkle root over its receipts.
    pub root: Hash,
    /// The number of receipts of completed jobs, as the node claims.
    pub completed: u32,
    /// The number of the other receipts, as the node claims.
    pub failed: u32,
    /// The hash of the transaction.
    pub tx_hash: Hash,
    /// The number of its block.
    pub block: u64,
}

/// When a block was made, and how many blocks follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// The block's own timestamp.
    pub at: Timestamp,
    /// The number of blocks after it; 0 for the latest.
    pub above: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    status: U64,
    logs: Vec<Log>,
}

impl Reader {
    /// The roots that a transaction committed: empty if it failed, `None` if the endpoint has no
    /// receipt of it, perhaps because it was pruned.
    pub async fn committed_by(&self, tx_hash: Hash) -> Result<Option<Vec<Commitment>>, Error> {
        self.chain_id().await?;
        let receipt: Option<Receipt> =
            self.rpc.ask("eth_getTransactionReceipt", json!([tx_hash])).await?;
        let Some(receipt) = receipt else { return Ok(None) };
        if receipt.status.is_zero() {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(self.commitments(&receipt.logs)))
    }

    /// The commitment of `provider` to `root` in this block, if any. Needs no transaction hash, since
    /// endpoints keep events for longer than receipts. Covers one block, since they refuse wide ranges.
    pub async fn committed_in(
        &self,
        block: u64,
        provider: Address,
        root: Hash,
    ) -> Result<Option<Commitment>, Error> {
        self.chain_id().await?;
        let filter = json!({
            "address": self.contract(),
            "topics": [ReceiptsCommitted::SIGNATURE_HASH, word(provider).into_word(), root],
        });
        let logs: Vec<Log> = self.rpc.ask("eth_getLogs", within(&filter, &(block..=block))).await?;
        let found = self.commitments(&logs);
        Ok(found.into_iter().find(|found| (found.provider, found.root) == (provider, root)))
    }

    /// When this block was made, and how many blocks follow it.
    pub async fn depth(&self, block: u64) -> Result<Depth, Error> {
        let (found, head): (Option<Block>, U64) = tokio::try_join!(
            self.rpc.ask("eth_getBlockByNumber", json!([U64::from(block), false])),
            self.rpc.ask("eth_blockNumber", json!([])),
        )?;
        let found = found.ok_or_else(|| Error::Unexpected {
            reason: format!("it names block {block} and has none"),
        })?;
        let at = Timestamp::from_unix_ms(found.head().timestamp_s.saturating_mul(1000));
        Ok(Depth { at, above: head.to::<u64>().saturating_sub(block) })
    }

    /// The commitments among these logs; ignores logs of other contracts.
    fn commitments(&self, logs: &[Log]) -> Vec<Commitment> {
        let contract = word(self.contract());
        let read = |log: &Log| {
            let said =
                ReceiptsCommitted::decode_raw_log(log.topics.iter().copied(), &log.data).ok()?;
            Some(Commitment {
                provider: Address::new(said.provider.into_array()),
                root: Hash(said.receiptsRoot.0),
                completed: said.completed,
                failed: said.failed,
                tx_hash: Hash(log.transaction_hash.0),
                block: log.block_number.to(),
            })
        };
        logs.iter().filter(|log| log.address == contract && !log.removed).filter_map(read).collect()
    }
}
