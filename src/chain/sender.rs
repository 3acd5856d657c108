//! One key's transactions: simulate, price, sign, send, wait. In this order, one at a time.
//!
//! What must hold: nothing is signed before `eth_call` has shown that it would succeed; a
//! transaction's hash is known before it is sent; what is sent again is the same bytes, so that
//! nothing is ever paid for twice; every wait ends at the deadline.

use std::time::Duration;

use alloy::consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy::eips::eip2718::Encodable2718 as _;
use alloy::hex;
use alloy::primitives::{B256, Bytes, TxKind, U64, U128, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fees::{Fees, gas_limit};
use super::key::Key;
use super::reader::word;
use super::rpc::{Failure, Head, Refusal, Rpc, words};
use super::{Error, Mined, revert};
use crate::node::{Address, LOCAL_CHAINS};

/// A nonce that another program with this key took in between is asked for again this often.
const NONCE_TRIES: u32 = 3;

/// Receipts are asked for this often between two broadcasts of the same bytes.
const POLLS_PER_BROADCAST: u32 = 10;

/// Sends for one key. Whoever shares the key shares the sender.
#[derive(Debug)]
pub(super) struct Sender {
    key: Key,
    receipt_deadline: Duration,
    /// Held from the nonce's question to the receipt: two transactions never share a nonce.
    turn: tokio::sync::Mutex<()>,
}

/// What is to be done on the chain.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) to: TxKind,
    pub(super) data: Bytes,
}

/// What of a receipt is read here. Chains add fields of their own to it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    status: U64,
    block_number: U64,
    gas_used: U64,
    contract_address: Option<alloy::primitives::Address>,
}

/// A transaction in its block, with the contract that it made.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) mined: Mined,
    pub(super) contract: Option<Address>,
}

/// Signed, with the hash that it will have.
#[derive(Debug)]
struct Signed {
    hash: B256,
    raw: String,
}

/// What the endpoint said to a transaction.
enum Sent {
    Taken,
    NonceTaken(Error),
}

impl Sender {
    pub(super) fn new(key: Key, receipt_deadline: Duration) -> Self {
        Self { key, receipt_deadline, turn: tokio::sync::Mutex::new(()) }
    }

    pub(super) fn address(&self) -> Address {
        self.key.address()
    }

    /// Carries `intent` out on the chain of this id, and waits until it is in a block.
    pub(super) async fn send(
        &self,
        rpc: &Rpc,
        chain_id: u64,
        intent: &Intent,
    ) -> Result<Settled, Error> {
        let _turn = self.turn.lock().await;
        self.simulate(rpc, intent, json!("latest")).await?;
        let gas = self.gas(rpc, intent).await?;
        let fees = fees(rpc).await?;
        self.check_balance(rpc, gas, fees).await?;
        let signed = self.sign_and_send(rpc, chain_id, intent, (gas, fees)).await?;

        let poll = poll_interval(chain_id);
        let wait = tokio::time::timeout(self.receipt_deadline, receipt(rpc, &signed, poll));
        let Ok(receipt) = wait.await else {
            let seconds = self.receipt_deadline.as_secs();
            return Err(Error::NotMined { tx_hash: signed.hash.to_string(), seconds });
        };
        self.settle(rpc, intent, &signed, receipt).await
    }

    /// What the contract would say, at no cost.
    async fn simulate(&self, rpc: &Rpc, intent: &Intent, block: Value) -> Result<(), Error> {
        let params = json!([self.call_object(intent), block]);
        let answer: Result<Bytes, Failure> = rpc.call("eth_call", params).await;
        answer.map(drop).map_err(|failure| self.refused(failure, "eth_call"))
    }

    async fn gas(&self, rpc: &Rpc, intent: &Intent) -> Result<u64, Error> {
        let params = json!([self.call_object(intent)]);
        let estimate: Result<U64, Failure> = rpc.call("eth_estimateGas", params).await;
        let estimate = estimate.map_err(|failure| self.refused(failure, "eth_estimateGas"))?;
        gas_limit(estimate.to())
    }

    /// Nodes refuse what the balance can't cover at the highest price; said here in our words.
    async fn check_balance(&self, rpc: &Rpc, gas: u64, fees: Fees) -> Result<(), Error> {
        let account = self.address();
        let balance: U256 = rpc.ask("eth_getBalance", json!([account, "latest"])).await?;
        if balance < U256::from(fees.per_gas()) * U256::from(gas) {
            return Err(Error::Unpaid { account });
        }
        Ok(())
    }

    async fn sign_and_send(
        &self,
        rpc: &Rpc,
        chain_id: u64,
        intent: &Intent,
        price: (u64, Fees),
    ) -> Result<Signed, Error> {
        let mut tries = 0;
        loop {
            let nonce: U64 =
                rpc.ask("eth_getTransactionCount", json!([self.address(), "pending"])).await?;
            let signed = self.sign(chain_id, nonce.to(), intent, price);
            tries += 1;
            match self.broadcast(rpc, &signed).await? {
                Sent::Taken => return Ok(signed),
                Sent::NonceTaken(error) if tries == NONCE_TRIES => return Err(error),
                // The endpoint may be a little behind the chain.
                Sent::NonceTaken(_) => tokio::time::sleep(poll_interval(chain_id)).await,
            }
        }
    }

    fn sign(&self, chain_id: u64, nonce: u64, intent: &Intent, price: (u64, Fees)) -> Signed {
        let (gas_limit, fees) = price;
        let Intent { to, data: input } = intent.clone();
        let value = U256::ZERO;
        match fees {
            Fees::Legacy { gas_price } => {
                let chain_id = Some(chain_id);
                seal(
                    &self.key,
                    TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input },
                )
            }
            Fees::Eip1559 { max, tip } => seal(
                &self.key,
                TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: max,
                    max_priority_fee_per_gas: tip,
                    to,
                    value,
                    access_list: alloy::eips::eip2930::AccessList::default(),
                    input,
                },
            ),
        }
    }

    async fn broadcast(&self, rpc: &Rpc, signed: &Signed) -> Result<Sent, Error> {
        match rpc.call::<Value>("eth_sendRawTransaction", json!([signed.raw])).await {
            // Where the answer got lost, the transaction perhaps did not: its receipt tells.
            Ok(_) | Err(Failure::Other(Error::Unreachable { .. })) => Ok(Sent::Taken),
            Err(Failure::Refused(refusal)) if is_known(&refusal) => Ok(Sent::Taken),
            Err(Failure::Refused(refusal)) if refusal.says(&["nonce", "underpriced"]) => {
                let reason = format!("the transaction was refused: {}", words(&refusal.message));
                Ok(Sent::NonceTaken(Error::Unexpected { reason }))
            }
            Err(failure) => Err(self.refused(failure, "eth_sendRawTransaction")),
        }
    }

    async fn settle(
        &self,
        rpc: &Rpc,
        intent: &Intent,
        signed: &Signed,
        receipt: Receipt,
    ) -> Result<Settled, Error> {
        if receipt.status.is_zero() {
            // The reason is not in the receipt: asked for again as of that block.
            let block = json!(receipt.block_number);
            return Err(match self.simulate(rpc, intent, block).await {
                Err(reverted @ Error::Reverted { .. }) => reverted,
                _ => Error::Reverted {
                    reason: format!("transaction {} failed in its block", signed.hash),
                },
            });
        }
        let mined = Mined {
            tx_hash: signed.hash.to_string(),
            block: receipt.block_number.to(),
            gas_used: receipt.gas_used.to(),
        };
        let contract = receipt.contract_address.map(|made| Address::new(made.into_array()));
        Ok(Settled { mined, contract })
    }

    fn call_object(&self, intent: &Intent) -> Value {
        let from = word(self.address());
        match intent.to {
            TxKind::Call(to) => json!({"from": from, "to": to, "data": intent.data}),
            TxKind::Create => json!({"from": from, "data": intent.data}),
        }
    }

    fn refused(&self, failure: Failure, method: &str) -> Error {
        if let Failure::Refused(refusal) = &failure {
            // The second is what geth says where the balance caps an estimate.
            if refusal.says(&["insufficient funds", "gas required exceeds allowance"]) {
                return Error::Unpaid { account: self.address() };
            }
            if let Some(reason) = revert::reason(refusal) {
                return Error::Reverted { reason };
            }
        }
        failure.unexpected(method)
    }
}

/// What the chain asks for now.
async fn fees(rpc: &Rpc) -> Result<Fees, Error> {
    let (head, price): (Head, U128) =
        tokio::try_join!(rpc.head(), rpc.ask("eth_gasPrice", json!([])))?;
    Fees::offer(head.base_fee, price.to())
}

fn seal<T>(key: &Key, tx: T) -> Signed
where
    T: SignableTransaction<alloy::primitives::Signature>,
    alloy::consensus::Signed<T>: alloy::eips::eip2718::Encodable2718,
{
    let signature = key.sign(&tx.signature_hash());
    let tx = tx.into_signed(signature);
    Signed { hash: tx.trie_hash(), raw: hex::encode_prefixed(tx.encoded_2718()) }
}

/// Asks until the transaction is in a block; the caller's deadline ends it. An endpoint that
/// forgot the transaction is told again.
async fn receipt(rpc: &Rpc, signed: &Signed, poll: Duration) -> Receipt {
    let mut polls = 0;
    loop {
        let params = json!([signed.hash]);
        if let Ok(Some(receipt)) = rpc.ask("eth_getTransactionReceipt", params).await {
            return receipt;
        }
        polls += 1;
        if polls % POLLS_PER_BROADCAST == 0 {
            // Whatever it says, the receipt is what counts.
            let again = rpc.call::<Value>("eth_sendRawTransaction", json!([signed.raw]));
            if let Err(Failure::Refused(refusal)) = again.await {
                tracing::debug!(tx.hash = %signed.hash, "sent again: {}", words(&refusal.message));
            }
        }
        tokio::time::sleep(poll).await;
    }
}

/// The ways in which clients say that they have these very bytes already.
fn is_known(refusal: &Refusal) -> bool {
    refusal.says(&["already known", "alreadyknown", "known transaction", "already imported"])
}

/// About a block's time; development chains make a block for each transaction.
fn poll_interval(chain_id: u64) -> Duration {
    Duration::from_millis(if LOCAL_CHAINS.contains(&chain_id) { 100 } else { 1000 })
}
