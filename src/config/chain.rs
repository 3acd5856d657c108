//! The chain: endpoint, contract, and which chain it must be.

use std::time::Duration;

use super::env::{Env, Variable};
use super::gpu::Gpu;
use crate::chain::Config;
use crate::node::{Address, LOCAL_CHAINS};

const OPBNB_RPC_URL: Variable =
    Variable::new("OPBNB_RPC_URL", "https://opbnb-testnet-rpc.bnbchain.org");
const REPUTATION_CONTRACT_ADDRESS: Variable =
    Variable::new("REPUTATION_CONTRACT_ADDRESS", "0x108f2c400C9828d8044a5F6985f0C9589B90758D");
const CHAIN_ID: Variable = Variable::new("CHAIN_ID", "5611");

/// The network's own contract is on opBNB's testnet and nowhere else.
const NETWORK: (&str, u64) = ("0x108f2c400C9828d8044a5F6985f0C9589B90758D", 5611);

/// A block comes in a second or two; a transaction that is in none after this was dropped.
pub const RECEIPT_DEADLINE: Duration = Duration::from_secs(90);
/// How long one answer of a public endpoint may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The chain as far as it is set: enough to sign for it, or to ask it.
#[derive(Debug, Clone)]
pub struct Signing {
    /// `OPBNB_RPC_URL`. May carry a key: shown redacted only.
    pub rpc_url: Option<crate::secret::Secret>,
    /// `CHAIN_ID`, or the one that the contract is known to be on.
    pub chain_id: Option<u64>,
    /// `REPUTATION_CONTRACT_ADDRESS`.
    pub contract: Option<Address>,
}

impl Signing {
    /// What is needed to ask the chain; `None` where endpoint or contract is not set.
    pub fn chain(&self) -> Option<Config> {
        let rpc_url = self.rpc_url.as_ref()?.expose().to_owned();
        Some(config(rpc_url, self.chain_id, self.contract?))
    }
}

pub(super) fn required(env: &mut Env<'_>, gpu: Option<&Gpu>) -> Option<Config> {
    for variable in [OPBNB_RPC_URL, REPUTATION_CONTRACT_ADDRESS] {
        if !env.is_set(variable) {
            env.problem(variable, "it is not set");
        }
    }
    let signing = signing(env)?;
    let config = signing.chain()?;
    let without_gpu = gpu.is_some_and(Gpu::is_none);
    if let Some(id) = config.chain_id.filter(|id| without_gpu && !LOCAL_CHAINS.contains(id)) {
        let what = format!(
            "a node without a GPU (GPU_MODE=none) registers on a local chain only (1337 or \
             31337), and this is {id}"
        );
        env.problem_with(CHAIN_ID, what, "CHAIN_ID=31337");
    }
    Some(config)
}

pub(super) fn signing(env: &mut Env<'_>) -> Option<Signing> {
    let rpc_url = rpc_url(env);
    let contract = contract(env);
    let chain_id = chain_id(env);
    let (network, network_chain) = NETWORK;
    let known = contract?.filter(|contract| contract.to_string() == network);
    let chain_id = chain_id?.or(known.map(|_| network_chain));
    Some(Signing { rpc_url: rpc_url?, chain_id, contract: contract? })
}

#[expect(clippy::option_option, reason = "not set and set wrong are two things")]
fn rpc_url(env: &mut Env<'_>) -> Option<Option<crate::secret::Secret>> {
    let set = env.is_set(OPBNB_RPC_URL);
    let Some(url) = env.text(OPBNB_RPC_URL) else { return (!set).then_some(None) };
    // It may carry a provider's key, so it is not repeated.
    let what = || "it is not an http:// or https:// URL".to_owned();
    let valid = crate::artifact::is_http_url(&url).then(|| crate::secret::Secret::new(url));
    env.keep(OPBNB_RPC_URL, valid.ok_or_else(what)).map(Some)
}

#[expect(clippy::option_option, reason = "not set and set wrong are two things")]
fn contract(env: &mut Env<'_>) -> Option<Option<Address>> {
    let set = env.is_set(REPUTATION_CONTRACT_ADDRESS);
    match env.parsed(REPUTATION_CONTRACT_ADDRESS) {
        None if set => None,
        contract => Some(contract),
    }
}

#[expect(clippy::option_option, reason = "not set and set wrong are two things")]
fn chain_id(env: &mut Env<'_>) -> Option<Option<u64>> {
    if !env.is_set(CHAIN_ID) {
        return Some(None);
    }
    env.number(CHAIN_ID, (1, 1 << 53), 0).map(Some)
}

fn config(rpc_url: String, chain_id: Option<u64>, contract: Address) -> Config {
    Config { rpc_url, chain_id, contract, request_timeout: REQUEST_TIMEOUT }
}
