//! Deploys the contract to a chain of one's own: a development chain, or a new network.

use std::time::Duration;

use alloy::primitives::{TxKind, U64};
use serde_json::json;

use super::bindings::NodeReputation as Contract;
use super::key::Key;
use super::rpc::{EndpointLimits, Rpc};
use super::sign::{Fields, Target, sign};
use super::{Error, Mined, sender};
use crate::ids::Address;
use crate::reputation::tx::Answer;

/// How long one answer of the endpoint may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval between two requests for the receipt.
const POLL: Duration = Duration::from_millis(250);

/// Deploys the committed bytecode; the account of `key` pays for it and owns the contract. With
/// `chain_id` of `None`, any chain will do. The one transaction is not journaled: a person runs this.
pub async fn deploy(
    rpc_urls: &[String],
    key: &Key,
    chain_id: Option<u64>,
    receipt_deadline: Duration,
) -> Result<(Address, Mined), Error> {
    let rpc = Rpc::new(rpc_urls, chain_id, REQUEST_TIMEOUT, EndpointLimits::default())?;
    let chain_id = rpc.chain_id().await?;
    let from = key.address();
    let target = Target { to: TxKind::Create, data: Contract::BYTECODE.clone() };
    let quote = sender::quote(&rpc, from, &target).await?;
    let account = sender::account(&rpc, from).await?;
    if account.balance_wei < quote.fees.worst(quote.gas_limit) {
        return Err(Error::Unpaid { account: from });
    }
    // "pending" queues this transaction behind those that are not in a block yet.
    let nonce: U64 = rpc.ask("eth_getTransactionCount", json!([from, "pending"])).await?;
    let (nonce, gas_limit, fees) = (nonce.to(), quote.gas_limit, quote.fees);
    let signed = sign(key, Fields { chain_id, nonce, gas_limit, fees, target });
    if sender::send(&rpc, from, &signed.raw).await? != Answer::Taken {
        let reason = "the transaction is refused: its price is too low, or another one waits under \
                      its nonce; try again";
        return Err(Error::Unexpected { reason: reason.into() });
    }
    let look = async {
        loop {
            if let Ok(Some(found)) = sender::included(&rpc, signed.hash).await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let tx_hash = signed.hash.to_string();
    let Ok((outcome, contract)) = tokio::time::timeout(receipt_deadline, look).await else {
        return Err(Error::NotMined { tx_hash, seconds: receipt_deadline.as_secs() });
    };
    if !outcome.success {
        let reason = format!("transaction {tx_hash} failed in its block");
        return Err(Error::Reverted { reason });
    }
    let contract = contract
        .ok_or_else(|| Error::Unexpected { reason: "a receipt that names no contract".into() })?;
    Ok((contract, Mined { tx_hash, block: outcome.block, gas_used: outcome.gas_used }))
}
