//! The reputation contract on an EVM chain.
//!
//! [`Chain`] is the interface. [`evm`] implements it over JSON-RPC, [`fake`] in memory; one suite of
//! contract tests checks both. [`Reader`] is the read-only part, which needs no key. [`key`] holds the
//! node's key and signs digests; [`keystore`] reads and writes Web3 Secret Storage; [`deploy`] deploys
//! the contract to a chain of one's own. [`extension`] reads what this project's contract offers beyond
//! the deployed interface; [`history`] reads a node's events. [`coordinator`] reads somebody else's contract.
//!
//! Must hold: this folder signs the fields that it is given, sends and reads; it makes no decisions.
//! Nothing is paid for before `eth_call` has shown that the call would succeed. Every wait has a
//! deadline.

mod bindings;
mod commitment;
pub mod coordinator;
pub mod deploy;
pub mod evm;
pub mod extension;
pub mod fake;
pub mod history;
pub mod key;
pub mod keystore;
mod logs;
pub mod pulse;
mod reader;
mod revert;
mod rpc;
mod sender;
mod sign;

use std::fmt;
use std::future::Future;
use std::time::Duration;

pub use commitment::{Commitment, Depth};
pub use evm::Evm;
pub use key::Key;
pub use reader::Reader;
pub use rpc::{EndpointLimits, EndpointState};

use crate::ids::{Address, Hash};
use crate::reputation::tx::{Answer, Outcome};
use crate::reputation::{Call, Fees};
use crate::secret::redact_url;

/// Where the contract is, and how long a request may take.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The JSON-RPC endpoints, `http` or `https`, in order of preference. `Debug` redacts them, since
    /// providers put API keys in their URLs.
    pub rpc_urls: Vec<String>,
    /// The chain that every endpoint must be on; `None` takes the id of the first one to answer.
    pub chain_id: Option<u64>,
    /// The reputation contract.
    pub contract: Address,
    /// How long one answer of an endpoint may take.
    pub request_timeout: Duration,
    /// When an endpoint is set aside, and for how long.
    pub endpoints: EndpointLimits,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rpc_urls: Vec<String> = self.rpc_urls.iter().map(|url| redact_url(url)).collect();
        f.debug_struct("Config")
            .field("rpc_urls", &rpc_urls)
            .field("chain_id", &self.chain_id)
            .field("contract", &self.contract)
            .field("request_timeout", &self.request_timeout)
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

/// What a node needs of the chain. It makes no decisions: the caller chooses what is sent, when and at
/// what price, and journals that first.
pub trait Chain: fmt::Debug + Send + Sync + 'static {
    /// The address of the node's account.
    fn address(&self) -> Address;

    /// The address of the reputation contract.
    fn contract(&self) -> Address;

    /// The chain's id (`eth_chainId`), the node's balance and the latest block. Also checks that the
    /// contract's address holds code.
    fn check(&self) -> impl Future<Output = Result<ChainFacts, Error>> + Send;

    /// The contract's record of `provider`; `None` if it is not registered.
    fn provider(
        &self,
        provider: Address,
    ) -> impl Future<Output = Result<Option<Provider>, Error>> + Send;

    /// Whether the contract accepts receipt roots (ERC-165 interface `0x8cc8a900`).
    fn has_extension(&self) -> impl Future<Output = Result<bool, Error>> + Send;

    /// The state of each endpoint: whether it serves blocks and every request that precedes a heartbeat,
    /// or `register` if the node is not registered. With a single endpoint: empty, and nothing is asked.
    fn survey(&self, register: &Call) -> impl Future<Output = Vec<EndpointState>> + Send;

    /// The state of the node's account in the latest block.
    fn account(&self) -> impl Future<Output = Result<AccountState, Error>> + Send;

    /// Simulates `call` and returns its present cost; [`Error::Reverted`] if it would fail.
    fn quote(&self, call: &Call) -> impl Future<Output = Result<Quote, Error>> + Send;

    /// The present price of a unit of gas.
    fn fees(&self) -> impl Future<Output = Result<Fees, Error>> + Send;

    /// Signs `call` with this nonce and price. The same fields give the same bytes.
    fn sign(
        &self,
        call: &Call,
        nonce: u64,
        quote: Quote,
    ) -> impl Future<Output = Result<Signed, Error>> + Send;

    /// Sends the bytes of [`Chain::sign`], for the first time or again.
    fn send(&self, raw: &[u8]) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// [`Chain::send`] to every endpoint, for a transaction that no block has included.
    fn send_everywhere(&self, raw: &[u8]) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// The outcome of the transaction with this hash; `None` while it is in no block.
    fn included(&self, hash: Hash) -> impl Future<Output = Result<Option<Outcome>, Error>> + Send;
}

/// The state of an account in the latest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// The count of its transactions in blocks, which is the next nonce.
    pub nonce: u64,
    /// Its balance in wei.
    pub balance_wei: u128,
    /// The latest block's number.
    pub head: u64,
}

/// The cost of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quote {
    /// The gas limit of the transaction.
    pub gas_limit: u64,
    /// The price of a unit of gas.
    pub fees: Fees,
}

/// A signed transaction and the hash that it will have in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// keccak-256 of `raw`.
    pub hash: Hash,
    /// The EIP-2718 encoding, for `eth_sendRawTransaction`.
    pub raw: Vec<u8>,
}

/// The chain that the endpoints are on, and the node's balance there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChainFacts {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The node's balance in wei, as decimal text (it can exceed 64 bits).
    pub balance_wei: String,
    /// The latest block's number.
    pub block: u64,
}

/// The contract's record of a registered node.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Provider {
    /// The GPU model that it registered.
    pub gpu_model: String,
    /// The memory of that GPU in MiB.
    pub vram_mib: u64,
    /// Unix seconds of its last registration or heartbeat.
    pub last_seen_s: u64,
    /// Jobs that the contract's owner confirmed.
    pub jobs: u64,
    /// Whether the contract counts it as active now.
    pub active: bool,
}

/// A transaction that succeeded in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mined {
    /// `0x` and the transaction's hash.
    pub tx_hash: String,
    /// The block's number.
    pub block: u64,
    /// The gas that it used.
    pub gas_used: u64,
}

/// Why a request to the chain failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is not an `http` or `https` URL. Ends the program.
    #[error("the chain's RPC URL is not an http or https URL")]
    BadUrl,
    /// The endpoint does not answer, or can't serve the request now: try again later.
    #[error("the chain's endpoint {url} does not answer")]
    Unreachable {
        /// The endpoint, redacted.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The endpoint is on another chain than the configured one. Ends the program.
    #[error("the endpoint {url} is on chain {actual}, but {expected} is set")]
    WrongChain {
        /// The endpoint, redacted.
        url: String,
        /// The configured chain id.
        expected: u64,
        /// The endpoint's chain id.
        actual: u64,
    },
    /// The contract's address holds no code. Ends the program.
    #[error("there is no contract at {0} on this chain")]
    NoContract(Address),
    /// The contract is not the coordinator of a swarm.
    #[error("the contract at {contract} is not a swarm's coordinator: {reason}")]
    NoCoordinator {
        /// The contract.
        contract: Address,
        /// What it answered.
        reason: String,
    },
    /// The contract would revert, or did.
    #[error("the contract refuses: {reason}")]
    Reverted {
        /// The reason of the revert, in words.
        reason: String,
    },
    /// The account's balance does not cover the transaction.
    #[error("{account} can't pay for the transaction: send it some of the chain's gas token")]
    Unpaid {
        /// The node's account.
        account: Address,
    },
    /// The transaction was sent, but no block included it by the deadline.
    #[error("transaction {tx_hash} was in no block after {seconds} s")]
    NotMined {
        /// `0x` and the transaction's hash.
        tx_hash: String,
        /// How long the caller waited, in seconds.
        seconds: u64,
    },
    /// The endpoint's answer can't be used: malformed, implausible, stale, or an unexpected refusal.
    #[error("the chain's endpoint answered something unexpected: {reason}")]
    Unexpected {
        /// A description of the answer.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without a change of settings.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::BadUrl | Self::WrongChain { .. } | Self::NoContract(_))
    }
}
