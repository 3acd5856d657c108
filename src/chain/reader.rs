//! Reads the contract without a key and without transactions.

use alloy::hex;
use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::bindings::NodeReputation as Contract;
use super::rpc::{Head, Rpc, RpcError};
use super::{ChainFacts, Config, Error, Provider, revert};
use crate::ids::Address;

/// Reads the reputation contract. The chain's id and the contract's code are checked once, before the
/// first read.
#[derive(Debug)]
pub struct Reader {
    pub(super) rpc: Rpc,
    pub(super) config: Config,
    checked: OnceCell<u64>,
}

impl Reader {
    /// Makes no connection yet. [`Error::BadUrl`] if an endpoint is not an `http` or `https` URL.
    pub fn new(config: Config) -> Result<Self, Error> {
        let Config { rpc_urls, chain_id, request_timeout, endpoints, .. } = &config;
        let rpc = Rpc::new(rpc_urls, *chain_id, *request_timeout, endpoints.clone())?;
        Ok(Self { rpc, config, checked: OnceCell::new() })
    }

    /// The contract's address.
    pub fn contract(&self) -> Address {
        self.config.contract
    }

    /// The chain's id, its latest block and the balance of `account`. Checks the chain's id and the
    /// contract's code anew.
    pub async fn facts(&self, account: Address) -> Result<ChainFacts, Error> {
        let chain_id = self.check().await?;
        let (balance, head): (U256, Head) = tokio::try_join!(
            self.rpc.ask("eth_getBalance", json!([account, "latest"])),
            self.rpc.head(),
        )?;
        Ok(ChainFacts { chain_id, balance_wei: balance.to_string(), block: head.number })
    }

    /// The contract's record of `provider`; `None` if it is not registered.
    pub async fn provider(&self, provider: Address) -> Result<Option<Provider>, Error> {
        let address = word(provider);
        let (answer, active) = tokio::try_join!(
            self.read(Contract::getProviderInfoCall { provider: address }),
            self.read(Contract::isProviderActiveCall { provider: address }),
        )?;
        let info = answer.providerInfo;
        Ok(info.isRegistered.then(|| Provider {
            gpu_model: info.gpuModel,
            vram_mib: info.vram.saturating_to(),
            last_seen_s: info.lastSeen.saturating_to(),
            jobs: answer.jobCount.saturating_to(),
            active,
        }))
    }

    /// The owner, who alone may confirm jobs; the zero address if ownership was renounced.
    pub async fn owner(&self) -> Result<Address, Error> {
        let owner = self.read(Contract::ownerCall {}).await?;
        Ok(Address::new(owner.into_array()))
    }

    /// The number of nodes that ever registered.
    pub async fn total_providers(&self) -> Result<u64, Error> {
        Ok(self.read(Contract::totalProvidersCall {}).await?.saturating_to())
    }

    /// The number of nodes that are active now.
    pub async fn active_count(&self) -> Result<u64, Error> {
        Ok(self.read(Contract::getActiveProvidersCountCall {}).await?.saturating_to())
    }

    /// The chain's id; the first call checks it and the contract's code.
    pub async fn chain_id(&self) -> Result<u64, Error> {
        self.checked.get_or_try_init(|| self.check()).await.copied()
    }

    async fn check(&self) -> Result<u64, Error> {
        let chain_id = self.rpc.chain_id().await?;
        let code: Bytes =
            self.rpc.ask("eth_getCode", json!([self.config.contract, "latest"])).await?;
        if code.is_empty() {
            return Err(Error::NoContract(self.config.contract));
        }
        Ok(chain_id)
    }

    /// Calls the contract and decodes its answer as the call's return type.
    pub(super) async fn read<C: SolCall>(&self, call: C) -> Result<C::Return, Error> {
        let answer = self.answer(&call.abi_encode()).await?;
        C::abi_decode_returns(&answer).map_err(|_| Error::Unexpected {
            reason: format!(
                "{} answers {} in another form; is it the reputation contract?",
                self.config.contract,
                C::SIGNATURE
            ),
        })
    }

    /// The contract's undecoded answer to this calldata; [`Error::Reverted`] if it reverts.
    pub(super) async fn answer(&self, call: &[u8]) -> Result<Bytes, Error> {
        self.chain_id().await?;
        self.rpc.call("eth_call", self.call_object(call)).await.map_err(|failure| {
            let reason = match &failure {
                RpcError::Refused(refusal) => revert::reason(refusal),
                RpcError::Other(_) => None,
            };
            match reason {
                Some(reason) => Error::Reverted { reason },
                None => failure.unexpected("eth_call"),
            }
        })
    }

    fn call_object(&self, call: &[u8]) -> Value {
        let data = hex::encode_prefixed(call);
        json!([{"to": self.config.contract, "data": data}, "latest"])
    }
}

/// An address in alloy's type.
pub(super) fn word(address: Address) -> alloy::primitives::Address {
    alloy::primitives::Address::from(*address.as_bytes())
}
