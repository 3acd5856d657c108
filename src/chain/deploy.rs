//! The contract onto a chain of one's own: a development chain, or a network that starts anew.

use std::time::Duration;

use alloy::primitives::TxKind;

use super::bindings::NodeReputation as Contract;
use super::key::Key;
use super::rpc::{EndpointLimits, Rpc};
use super::sender::{Intent, Sender};
use super::{Error, Mined};
use crate::node::Address;

/// How long one answer of the endpoint may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Deploys the committed bytecode; `key`'s account pays for it and owns the contract. Any chain,
/// where `chain_id` is `None`.
pub async fn deploy(
    rpc_urls: &[String],
    key: &Key,
    chain_id: Option<u64>,
    receipt_deadline: Duration,
) -> Result<(Address, Mined), Error> {
    let rpc = Rpc::new(rpc_urls, chain_id, REQUEST_TIMEOUT, EndpointLimits::default())?;
    let chain_id = rpc.chain_id().await?;
    let intent = Intent { to: TxKind::Create, data: Contract::BYTECODE.clone() };
    let settled = Sender::new(key.clone(), receipt_deadline).send(&rpc, chain_id, &intent).await?;
    let contract = settled
        .contract
        .ok_or_else(|| Error::Unexpected { reason: "a receipt that names no contract".into() })?;
    Ok((contract, settled.mined))
}
