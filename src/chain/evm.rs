//! The contract on a chain of one's own choice, by JSON-RPC: a [`Reader`] and the node's key.

use alloy::primitives::{TxKind, U256};
use alloy::sol_types::SolCall;

use super::bindings::NodeReputation as Contract;
use super::key::Key;
use super::reader::{Reader, word};
use super::sender::{Intent, Sender};
use super::{Chain, ChainFacts, Config, Error, Mined, Provider};
use crate::node::Address;

/// A node on an EVM chain. One a key and process: its transactions wait for one another.
#[derive(Debug)]
pub struct Evm {
    reader: Reader,
    sender: Sender,
}

impl Evm {
    /// Opens nothing yet.
    pub fn new(config: Config, key: Key) -> Result<Self, Error> {
        let sender = Sender::new(key, config.receipt_deadline);
        Ok(Self { reader: Reader::new(config)?, sender })
    }

    /// The part that needs no key.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The node's account.
    pub fn address(&self) -> Address {
        self.sender.address()
    }

    async fn send(&self, call: impl SolCall) -> Result<Mined, Error> {
        // A call to an address without code succeeds and does nothing: checked before.
        let chain_id = self.reader.chain_id().await?;
        let to = TxKind::Call(word(self.reader.config.contract));
        let intent = Intent { to, data: call.abi_encode().into() };
        Ok(self.sender.send(&self.reader.rpc, chain_id, &intent).await?.mined)
    }
}

impl Chain for Evm {
    async fn check(&self) -> Result<ChainFacts, Error> {
        self.reader.facts(self.address()).await
    }

    async fn provider(&self, provider: Address) -> Result<Option<Provider>, Error> {
        self.reader.provider(provider).await
    }

    async fn register(&self, gpu_model: &str, vram_mib: u64) -> Result<Mined, Error> {
        let (gpu_model, vram) = (gpu_model.to_owned(), U256::from(vram_mib));
        self.send(Contract::registerNodeCall { gpuModel: gpu_model, vram }).await
    }

    async fn heartbeat(&self) -> Result<Mined, Error> {
        self.send(Contract::sendHeartbeatCall {}).await
    }
}
