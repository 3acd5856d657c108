//! Roots of receipts on the chain: what a transaction committed to, and where a root is.
//!
//! What must hold: only an event of the contract itself counts, in a transaction that succeeded.

use alloy::primitives::{B256, Bytes, U64};
use alloy::sol_types::SolEvent as _;
use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::bindings::NodeReputation::ReceiptsCommitted;
use super::reader::{Reader, word};
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// A root that a node put on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Who.
    pub provider: Address,
    /// The Merkle root over its receipts.
    pub root: Hash,
    /// How many of them are of completed jobs, as it says.
    pub completed: u32,
    /// How many are not.
    pub failed: u32,
    /// The transaction.
    pub tx_hash: Hash,
    /// Its block.
    pub block: u64,
}

/// When a block was made, and how many lie on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// By the block's own clock.
    pub at: Timestamp,
    /// Blocks after it; 0 for the latest.
    pub above: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    status: U64,
    logs: Vec<Log>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    address: alloy::primitives::Address,
    topics: Vec<B256>,
    data: Bytes,
    block_number: Option<U64>,
    transaction_hash: Option<B256>,
    #[serde(default)]
    removed: bool,
}

#[derive(Deserialize)]
struct Block {
    timestamp: U64,
}

impl Reader {
    /// The roots that a transaction committed; none where it failed, `None` where the endpoint
    /// does not know it (any more).
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

    /// Whether `provider` committed to `root` in this block, asked without the transaction's hash:
    /// endpoints keep events for longer. One block, since they refuse wide ranges.
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
            "fromBlock": U64::from(block),
            "toBlock": U64::from(block),
        });
        let logs: Vec<Log> = self.rpc.ask("eth_getLogs", json!([filter])).await?;
        let found = self.commitments(&logs);
        Ok(found.into_iter().find(|found| (found.provider, found.root) == (provider, root)))
    }

    /// When this block was made, and how deep it lies.
    pub async fn depth(&self, block: u64) -> Result<Depth, Error> {
        let (found, head): (Option<Block>, U64) = tokio::try_join!(
            self.rpc.ask("eth_getBlockByNumber", json!([U64::from(block), false])),
            self.rpc.ask("eth_blockNumber", json!([])),
        )?;
        let found = found.ok_or_else(|| Error::Unexpected {
            reason: format!("it names block {block} and has none"),
        })?;
        let at = Timestamp::from_unix_ms(found.timestamp.to::<u64>().saturating_mul(1000));
        Ok(Depth { at, above: head.to::<u64>().saturating_sub(block) })
    }

    /// What the contract's own events say, those of other contracts left out.
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
                tx_hash: Hash(log.transaction_hash?.0),
                block: log.block_number?.to(),
            })
        };
        logs.iter().filter(|log| log.address == contract && !log.removed).filter_map(read).collect()
    }
}
