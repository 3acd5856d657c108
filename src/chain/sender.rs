//! The requests around a transaction: simulation and price, submission, and receipt.
//!
//! Must hold: a resend carries the same bytes, so that nothing is paid for twice. A refusal by an
//! endpoint is distinguished from a missing answer.

use alloy::hex;
use alloy::primitives::{B256, Bytes, TxKind, U64, U128, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reader::word;
use super::rpc::{ErrorObject, Head, Rpc, RpcError, Verdict, words};
use super::sign::Target;
use super::{AccountState, Error, Quote, revert};
use crate::ids::{Address, Hash};
use crate::reputation::Fees;
use crate::reputation::fees::gas_limit;
use crate::reputation::tx::{Answer, Outcome};

/// 5,000 gwei in wei, far above any chain's price at peak load. A higher price is an error.
const FEE_PER_GAS_MAX: u128 = 5_000_000_000_000;

/// The fields of a transaction receipt that are read here. Chains add fields of their own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    status: U64,
    block_number: U64,
    gas_used: U64,
    effective_gas_price: Option<U128>,
    /// The data fee that OP Stack chains, such as opBNB, add.
    l1_fee: Option<U256>,
    contract_address: Option<alloy::primitives::Address>,
}

/// The state of the account in the latest block.
pub(super) async fn account(rpc: &Rpc, address: Address) -> Result<AccountState, Error> {
    // The head comes first: it sets a stale endpoint aside before its nonce is believed.
    let head = rpc.head().await?;
    let (nonce, balance): (U64, U256) = tokio::try_join!(
        rpc.ask("eth_getTransactionCount", json!([address, "latest"])),
        rpc.ask("eth_getBalance", json!([address, "latest"])),
    )?;
    let (nonce, balance_wei) = (nonce.to(), balance.saturating_to());
    Ok(AccountState { nonce, balance_wei, head: head.number })
}

/// The requests that precede the call's transaction, as methods and parameters.
pub(super) fn questions(from: Address, target: &Target) -> [(&'static str, Value); 2] {
    let object = call_object(from, target);
    [("eth_call", json!([object, "latest"])), ("eth_estimateGas", json!([object]))]
}

/// The present cost of the call; an error if it would fail.
pub(super) async fn quote(rpc: &Rpc, from: Address, target: &Target) -> Result<Quote, Error> {
    simulate(rpc, from, target).await?;
    let params = json!([call_object(from, target)]);
    let estimate: Result<U64, RpcError> = rpc.call("eth_estimateGas", params).await;
    let estimate = estimate.map_err(|failure| refused(failure, from, "eth_estimateGas"))?;
    let gas_limit = gas_limit(estimate.to())
        .ok_or_else(|| Error::Unexpected { reason: format!("an estimate of {estimate} gas") })?;
    Ok(Quote { gas_limit, fees: fees(rpc).await? })
}

/// Runs the call with `eth_call`, which costs nothing.
async fn simulate(rpc: &Rpc, from: Address, target: &Target) -> Result<(), Error> {
    let params = json!([call_object(from, target), "latest"]);
    let answer: Result<Bytes, RpcError> = rpc.call("eth_call", params).await;
    answer.map(drop).map_err(|failure| refused(failure, from, "eth_call"))
}

/// The present price of a unit of gas; an error above [`FEE_PER_GAS_MAX`].
pub(super) async fn fees(rpc: &Rpc) -> Result<Fees, Error> {
    let (head, price): (Head, U128) =
        tokio::try_join!(rpc.head(), rpc.ask("eth_gasPrice", json!([])))?;
    let fees = Fees::offer(head.base_fee, price.to());
    if fees.per_gas() > FEE_PER_GAS_MAX {
        let reason = format!("a fee of {} wei for a unit of gas", fees.per_gas());
        return Err(Error::Unexpected { reason });
    }
    Ok(fees)
}

/// Sends a transaction, for the first time or again.
pub(super) async fn send(rpc: &Rpc, from: Address, raw: &[u8]) -> Result<Answer, Error> {
    let params = json!([hex::encode_prefixed(raw)]);
    match rpc.call::<Value>("eth_sendRawTransaction", params).await {
        // The answer was lost, but the transaction may have arrived. Its receipt will show it.
        Ok(_) | Err(RpcError::Other(Error::Unreachable { .. })) => Ok(Answer::Taken),
        Err(RpcError::Refused(refusal)) => match answer(&refusal) {
            Some(answer) => {
                tracing::debug!("the endpoint says of a transaction: {}", words(&refusal.message));
                Ok(answer)
            }
            None => Err(refused(RpcError::Refused(refusal), from, "eth_sendRawTransaction")),
        },
        Err(failure) => Err(failure.unexpected("eth_sendRawTransaction")),
    }
}

/// Sends a transaction to every endpoint that is not resting; ignores their answers.
pub(super) async fn spread(rpc: &Rpc, raw: &[u8]) {
    rpc.spread("eth_sendRawTransaction", &json!([hex::encode_prefixed(raw)])).await;
}

/// The state of a transaction that a refusal implies; `None` if it can't be mined as it is.
fn answer(refusal: &ErrorObject) -> Option<Answer> {
    match refusal.verdict()? {
        // The account's nonce decides later; this endpoint may only lag behind or be ahead.
        Verdict::Known | Verdict::Nonce => Some(Answer::Taken),
        Verdict::Occupied => Some(Answer::Occupied),
        Verdict::TooCheap => Some(Answer::TooCheap { tip_min: refusal.tip_min() }),
        Verdict::Reverted | Verdict::Unpaid | Verdict::Gas => None,
    }
}

/// The transaction's outcome and the contract that it created; `None` while it is in no block.
pub(super) async fn included(
    rpc: &Rpc,
    hash: Hash,
) -> Result<Option<(Outcome, Option<Address>)>, Error> {
    let params = json!([B256::from(hash.0)]);
    let receipt: Option<Receipt> = rpc.ask("eth_getTransactionReceipt", params).await?;
    Ok(receipt.map(|receipt| {
        let gas_used: u64 = receipt.gas_used.to();
        let price: u128 = receipt.effective_gas_price.map_or(0, |price| price.to());
        let l1_fee: u128 = receipt.l1_fee.map_or(0, |fee| fee.saturating_to());
        let outcome = Outcome {
            hash,
            block: receipt.block_number.to(),
            success: !receipt.status.is_zero(),
            gas_used,
            fee_wei: price.saturating_mul(u128::from(gas_used)).saturating_add(l1_fee),
        };
        let contract = receipt.contract_address.map(|made| Address::new(made.into_array()));
        (outcome, contract)
    }))
}

fn call_object(from: Address, target: &Target) -> Value {
    let from = word(from);
    match target.to {
        TxKind::Call(to) => json!({"from": from, "to": to, "data": target.data}),
        TxKind::Create => json!({"from": from, "data": target.data}),
    }
}

fn refused(failure: RpcError, account: Address, method: &str) -> Error {
    if let RpcError::Refused(refusal) = &failure {
        if refusal.verdict() == Some(Verdict::Unpaid) {
            return Error::Unpaid { account };
        }
        if let Some(reason) = revert::reason(refusal) {
            return Error::Reverted { reason };
        }
    }
    failure.unexpected(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_in_the_words_of_the_clients_in_use() {
        let cheap = |tip_min| Some(Answer::TooCheap { tip_min });
        for (message, told) in [
            ("already known", Some(Answer::Taken)),
            ("AlreadyKnown", Some(Answer::Taken)),
            ("nonce too low: next nonce 5, tx nonce 4", Some(Answer::Taken)),
            ("replacement transaction underpriced", Some(Answer::Occupied)),
            ("transaction underpriced: gas tip cap 1, minimum needed 2", cheap(Some(2))),
            (
                "transaction underpriced: tip needed 1000000000, tip permitted 0",
                cheap(Some(1_000_000_000)),
            ),
            ("max fee per gas less than block base fee: address 0x…, maxFeePerGas: 1", cheap(None)),
            ("FeeTooLow, MaxFeePerGas too low", cheap(None)),
            ("unknown transaction type", None),
            ("exceeds block gas limit", None),
        ] {
            let (data, by) = (Value::Null, String::new());
            let refusal = ErrorObject { code: -32000, message: message.into(), data, by };
            assert_eq!(answer(&refusal), told, "{message}");
        }
    }
}
