//! The contract on any EVM chain, over JSON-RPC: a [`Reader`] and the node's key.

use alloy::primitives::{TxKind, U256};
use alloy::sol_types::SolCall as _;

use super::bindings::NodeReputation as Contract;
use super::key::Key;
use super::reader::{Reader, word};
use super::sign::{Fields, Target, sign};
use super::{
    AccountState, Chain, ChainFacts, Config, EndpointState, Error, Provider, Quote, Signed, sender,
};
use crate::ids::{Address, Hash};
use crate::reputation::tx::{Answer, Outcome};
use crate::reputation::{Call, Fees};

/// A node on an EVM chain.
#[derive(Debug)]
pub struct Evm {
    reader: Reader,
    key: Key,
}

impl Evm {
    /// Makes no connection yet. [`Error::BadUrl`] if an endpoint is not an `http` or `https` URL.
    pub fn new(config: Config, key: Key) -> Result<Self, Error> {
        Ok(Self { reader: Reader::new(config)?, key })
    }

    /// The part that needs no key.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl Reader {
    fn target(&self, call: &Call) -> Target {
        let data = match call {
            Call::Register { gpu_model, vram_mib } => Contract::registerNodeCall {
                gpuModel: gpu_model.clone(),
                vram: U256::from(*vram_mib),
            }
            .abi_encode(),
            Call::Heartbeat => Contract::sendHeartbeatCall {}.abi_encode(),
            Call::HeartbeatWithReceipts { root, completed, failed } => {
                Contract::sendHeartbeatWithReceiptsCall {
                    receiptsRoot: root.0.into(),
                    completed: *completed,
                    failed: *failed,
                }
                .abi_encode()
            }
        };
        Target { to: TxKind::Call(word(self.config.contract)), data: data.into() }
    }

    /// The state of each endpoint, in order of preference: whether it serves blocks and every request that
    /// precedes `call` from `from`. A revert and a missing balance count as answers.
    pub async fn endpoints(&self, from: Address, call: &Call) -> Vec<EndpointState> {
        self.rpc.survey(&sender::questions(from, &self.target(call))).await
    }

    /// The present cost of a plain heartbeat of `node`, in wei; `None` if the contract would revert or
    /// the account could not pay.
    pub async fn beat_price(&self, node: Address) -> Result<Option<u128>, Error> {
        self.chain_id().await?;
        match sender::quote(&self.rpc, node, &self.target(&Call::Heartbeat)).await {
            Ok(quote) => Ok(Some(quote.fees.usual(quote.gas_limit))),
            Err(Error::Reverted { .. } | Error::Unpaid { .. }) => Ok(None),
            Err(err) => Err(err),
        }
    }
}

impl Chain for Evm {
    fn address(&self) -> Address {
        self.key.address()
    }

    fn contract(&self) -> Address {
        self.reader.contract()
    }

    async fn check(&self) -> Result<ChainFacts, Error> {
        self.reader.facts(self.address()).await
    }

    async fn provider(&self, provider: Address) -> Result<Option<Provider>, Error> {
        self.reader.provider(provider).await
    }

    async fn has_extension(&self) -> Result<bool, Error> {
        self.reader.has_extension().await
    }

    async fn survey(&self, register: &Call) -> Vec<EndpointState> {
        if self.reader.config.rpc_urls.len() < 2 {
            return Vec::new();
        }
        let known = self.reader.provider(self.address()).await;
        let call = if matches!(known, Ok(None)) { register } else { &Call::Heartbeat };
        self.reader.endpoints(self.address(), call).await
    }

    async fn account(&self) -> Result<AccountState, Error> {
        self.reader.chain_id().await?;
        sender::account(&self.reader.rpc, self.address()).await
    }

    async fn quote(&self, call: &Call) -> Result<Quote, Error> {
        // Checks the contract's code first: a call to an address without code succeeds and does nothing.
        self.reader.chain_id().await?;
        sender::quote(&self.reader.rpc, self.address(), &self.reader.target(call)).await
    }

    async fn fees(&self) -> Result<Fees, Error> {
        sender::fees(&self.reader.rpc).await
    }

    async fn sign(&self, call: &Call, nonce: u64, quote: Quote) -> Result<Signed, Error> {
        let chain_id = self.reader.chain_id().await?;
        let Quote { gas_limit, fees } = quote;
        let target = self.reader.target(call);
        Ok(sign(&self.key, Fields { chain_id, nonce, gas_limit, fees, target }))
    }

    async fn send(&self, raw: &[u8]) -> Result<Answer, Error> {
        sender::send(&self.reader.rpc, self.address(), raw).await
    }

    async fn send_everywhere(&self, raw: &[u8]) -> Result<Answer, Error> {
        sender::spread(&self.reader.rpc, raw).await;
        // Endpoints that have it already answer "already known", which counts as taken.
        self.send(raw).await
    }

    async fn included(&self, hash: Hash) -> Result<Option<Outcome>, Error> {
        let included = sender::included(&self.reader.rpc, hash).await?;
        Ok(included.map(|(outcome, _)| outcome))
    }
}
