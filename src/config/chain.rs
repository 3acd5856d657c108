//! Chain settings: the endpoints, the contract, and the id of the chain that they must be on.

use std::time::Duration;

use super::env::{Env, Variable};
use super::gpu::Gpu;
use crate::chain::{Config, EndpointLimits};
use crate::ids::Address;
use crate::node::LOCAL_CHAINS;
use crate::secret::Secret;

const OPBNB_RPC_URL: Variable =
    Variable::new("OPBNB_RPC_URL", "https://opbnb-testnet-rpc.bnbchain.org");
const REPUTATION_CONTRACT_ADDRESS: Variable =
    Variable::new("REPUTATION_CONTRACT_ADDRESS", "0x108f2c400C9828d8044a5F6985f0C9589B90758D");
const CHAIN_ID: Variable = Variable::new("CHAIN_ID", "5611");

/// The network's own contract, with the only chain that it is on: opBNB's testnet.
const NETWORK: (&str, u64) = ("0x108f2c400C9828d8044a5F6985f0C9589B90758D", 5611);

/// Most endpoints: more make no node safer, and a call may try all of them.
const RPC_URLS_MAX: usize = 8;

/// How long to wait for a receipt. A block comes every second or two; a transaction that is in none by then
/// was dropped.
pub const RECEIPT_DEADLINE: Duration = Duration::from_secs(90);
/// How long one answer of a public endpoint may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The chain settings as far as they are set: enough to sign for the chain, or to call it.
#[derive(Debug, Clone)]
pub struct Signing {
    /// `OPBNB_RPC_URL`, in its order; empty if it is not set. The URLs may carry keys.
    pub rpc_urls: Vec<Secret>,
    /// `CHAIN_ID`, or the chain that the contract is known to be on.
    pub chain_id: Option<u64>,
    /// `REPUTATION_CONTRACT_ADDRESS`.
    pub contract: Option<Address>,
}

impl Signing {
    /// The configuration for calling the chain; `None` if the endpoint or the contract is not set.
    pub fn chain(&self) -> Option<Config> {
        let contract = self.contract?;
        (!self.rpc_urls.is_empty()).then(|| config(self.exposed_urls(), self.chain_id, contract))
    }

    /// The endpoints' URLs in plain text, for making calls.
    pub fn exposed_urls(&self) -> Vec<String> {
        self.rpc_urls.iter().map(|url| url.expose().to_owned()).collect()
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
    let rpc_urls = rpc_urls(env);
    let contract = contract(env);
    let chain_id = chain_id(env);
    let (network, network_chain) = NETWORK;
    let known = contract?.filter(|contract| contract.to_string() == network);
    let chain_id = chain_id?.or(known.map(|_| network_chain));
    Some(Signing { rpc_urls: rpc_urls?, chain_id, contract: contract? })
}

/// Empty if it is not set, `None` if it is invalid.
fn rpc_urls(env: &mut Env<'_>) -> Option<Vec<Secret>> {
    let set = env.is_set(OPBNB_RPC_URL);
    let Some(list) = env.text(OPBNB_RPC_URL) else { return (!set).then(Vec::new) };
    env.keep(OPBNB_RPC_URL, parse_rpc_urls(&list))
}

/// Parses a comma list of endpoints, in its order. `Err` says what is wrong without quoting the list, which
/// may carry providers' keys.
pub fn parse_rpc_urls(list: &str) -> Result<Vec<Secret>, String> {
    let urls: Vec<&str> = list.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    let count = urls.len();
    if count == 0 {
        return Err("it names no endpoint".to_owned());
    }
    if count > RPC_URLS_MAX {
        return Err(format!("it names {count} endpoints, and {RPC_URLS_MAX} is the most"));
    }
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    for (number, url) in (1..).zip(&urls) {
        if !crate::http::is_http_url(url) {
            let which = if count == 1 { "it".to_owned() } else { format!("its URL {number}") };
            return Err(format!("{which} is not an http:// or https:// URL"));
        }
        if let Some(earlier) = urls[..number - 1].iter().position(|known| bare(known) == bare(url))
        {
            return Err(format!("its URLs {} and {number} are the same", earlier + 1));
        }
    }
    Ok(urls.into_iter().map(Secret::new).collect())
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn contract(env: &mut Env<'_>) -> Option<Option<Address>> {
    let set = env.is_set(REPUTATION_CONTRACT_ADDRESS);
    match env.parsed(REPUTATION_CONTRACT_ADDRESS) {
        None if set => None,
        contract => Some(contract),
    }
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn chain_id(env: &mut Env<'_>) -> Option<Option<u64>> {
    if !env.is_set(CHAIN_ID) {
        return Some(None);
    }
    env.number(CHAIN_ID, (1, 1 << 53), 0).map(Some)
}

fn config(rpc_urls: Vec<String>, chain_id: Option<u64>, contract: Address) -> Config {
    Config {
        rpc_urls,
        chain_id,
        contract,
        request_timeout: REQUEST_TIMEOUT,
        endpoints: EndpointLimits::default(),
    }
}
