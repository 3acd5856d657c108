//! The reputation contract on an EVM chain.
//!
//! [`Chain`] is the seam: [`evm`] talks JSON-RPC, [`fake`] keeps a chain in memory; one suite of
//! contract tests holds both. [`Reader`] is what of it needs no key. [`key`] holds the node's key
//! and signs digests; [`keystore`] reads and writes Web3 Secret Storage; [`deploy`] puts the
//! contract on a chain of one's own. [`extension`] is what our contract tells beyond the deployed
//! one; [`history`] reads a node's events.
//!
//! What must hold: this folder signs the fields that it is given, sends and reads; it decides
//! nothing. Nothing is paid for before `eth_call` has shown that it would succeed, and no wait is
//! without a deadline.

mod bindings;
mod commitment;
pub mod deploy;
pub mod evm;
pub mod extension;
pub mod fake;
pub mod history;
pub mod key;
pub mod keystore;
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

/// Where the contract is, and how long anything about it may take.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The JSON-RPC endpoints, `http` or `https`, in the order of preference. Providers put their
    /// keys in them: shown redacted.
    pub rpc_urls: Vec<String>,
    /// The chain that every endpoint must be on; where it is `None`, the first to answer says it.
    pub chain_id: Option<u64>,
    /// The reputation contract.
    pub contract: Address,
    /// How long one answer of an endpoint may take.
    pub request_timeout: Duration,
    /// What is borne with an endpoint.
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

/// What a node needs of the chain. It decides nothing: what is sent, when, and at what price is the
/// caller's, who writes it down first.
pub trait Chain: fmt::Debug + Send + Sync + 'static {
    /// The node's account.
    fn address(&self) -> Address;

    /// The reputation contract.
    fn contract(&self) -> Address;

    /// The chain's id, from `eth_chainId`; also checks that the contract's address holds code.
    fn check(&self) -> impl Future<Output = Result<ChainFacts, Error>> + Send;

    /// What the contract says of `provider`; `None` where it is not registered.
    fn provider(
        &self,
        provider: Address,
    ) -> impl Future<Output = Result<Option<Provider>, Error>> + Send;

    /// Whether the contract takes receipts' roots (ERC-165, `0x8cc8a900`).
    fn has_extension(&self) -> impl Future<Output = Result<bool, Error>> + Send;

    /// How each endpoint is: whether it serves blocks, and all that is asked before a heartbeat is sent,
    /// or `register` where the node is not registered. Empty where there is one only: nobody is asked.
    fn survey(&self, register: &Call) -> impl Future<Output = Vec<EndpointState>> + Send;

    /// How the node's account stands in the latest block.
    fn account(&self) -> impl Future<Output = Result<AccountState, Error>> + Send;

    /// Simulates `call` and tells what it would cost now; [`Error::Reverted`] where it would fail.
    fn quote(&self, call: &Call) -> impl Future<Output = Result<Quote, Error>> + Send;

    /// What the chain asks for a unit of gas now.
    fn fees(&self) -> impl Future<Output = Result<Fees, Error>> + Send;

    /// Signs `call` under this nonce, at this price. The same fields give the same bytes.
    fn sign(
        &self,
        call: &Call,
        nonce: u64,
        quote: Quote,
    ) -> impl Future<Output = Result<Signed, Error>> + Send;

    /// Hands over what [`Chain::sign`] gave, for the first time or again.
    fn send(&self, raw: &[u8]) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// [`Chain::send`], to every endpoint there is: for what no block took.
    fn send_everywhere(&self, raw: &[u8]) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// The transaction of this hash in its block; `None` where it is in none.
    fn included(&self, hash: Hash) -> impl Future<Output = Result<Option<Outcome>, Error>> + Send;
}

/// How an account stands in the latest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// How many of its transactions are in blocks: the next nonce.
    pub nonce: u64,
    /// What it has, in wei.
    pub balance_wei: u128,
    /// The latest block's number.
    pub head: u64,
}

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quote {
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// What the chain asks for a unit.
    pub fees: Fees,
}

/// A transaction's bytes with the hash that it will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// keccak-256 of the bytes.
    pub hash: Hash,
    /// What is sent.
    pub raw: Vec<u8>,
}

/// What the chain is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChainFacts {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The node's balance in wei, as decimal text (it can exceed 64 bits).
    pub balance_wei: String,
    /// The latest block's number.
    pub block: u64,
}

/// A registered node, as the contract tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Provider {
    /// The model it registered with.
    pub gpu_model: String,
    /// Its memory in MiB.
    pub vram_mib: u64,
    /// Unix seconds of its last beat.
    pub last_seen_s: u64,
    /// Jobs that the contract's owner confirmed.
    pub jobs: u64,
    /// Whether the contract counts it as active now.
    pub active: bool,
}

/// A transaction that is in a block and succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mined {
    /// `0x` and the transaction's hash.
    pub tx_hash: String,
    /// The block's number.
    pub block: u64,
    /// Gas used.
    pub gas_used: u64,
}

/// Why the chain did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is no URL that can be called. Ends the program.
    #[error("the chain's RPC URL is not an http or https URL")]
    BadUrl,
    /// The endpoint does not answer, or answers that it can't now: try again later.
    #[error("the chain's endpoint {url} does not answer")]
    Unreachable {
        /// The endpoint, redacted.
        url: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The chain is another one than was set. Ends the program.
    #[error("the endpoint {url} is on chain {actual}, but {expected} is set")]
    WrongChain {
        /// The endpoint, redacted.
        url: String,
        /// What the settings say.
        expected: u64,
        /// What the endpoint says.
        actual: u64,
    },
    /// The contract's address holds no code. Ends the program.
    #[error("there is no contract at {0} on this chain")]
    NoContract(Address),
    /// The contract would revert, or did.
    #[error("the contract refuses: {reason}")]
    Reverted {
        /// The revert's reason in words.
        reason: String,
    },
    /// The account can't pay.
    #[error("{account} can't pay for the transaction: send it some of the chain's gas token")]
    Unpaid {
        /// The node's account.
        account: Address,
    },
    /// Sent, but in no block by the deadline.
    #[error("transaction {tx_hash} was in no block after {seconds} s")]
    NotMined {
        /// `0x` and the transaction's hash.
        tx_hash: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The endpoint answered something that makes no sense.
    #[error("the chain's endpoint answered something unexpected: {reason}")]
    Unexpected {
        /// What, in words.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::BadUrl | Self::WrongChain { .. } | Self::NoContract(_))
    }
}
