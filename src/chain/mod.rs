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
pub mod deploy;
pub mod evm;
pub mod extension;
pub mod fake;
mod fees;
pub mod history;
pub mod key;
pub mod keystore;
mod reader;
mod revert;
mod rpc;
mod sender;

use std::fmt;
use std::future::Future;
use std::time::Duration;

pub use evm::Evm;
pub use key::Key;
pub use reader::Reader;

use crate::node::Address;
use crate::secret::redact_url;

/// Where the contract is, and how long anything about it may take.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The JSON-RPC endpoint, `http` or `https`. Providers put their keys in it: shown redacted.
    pub rpc_url: String,
    /// The chain that the endpoint must be on; any, where it is `None`.
    pub chain_id: Option<u64>,
    /// The reputation contract.
    pub contract: Address,
    /// How long a transaction may take to get into a block.
    pub receipt_deadline: Duration,
    /// How long one answer of the endpoint may take.
    pub request_timeout: Duration,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("rpc_url", &redact_url(&self.rpc_url))
            .field("chain_id", &self.chain_id)
            .field("contract", &self.contract)
            .field("receipt_deadline", &self.receipt_deadline)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// What a node needs of the chain.
pub trait Chain: fmt::Debug + Send + Sync + 'static {
    /// The chain's id, from `eth_chainId`; also checks that the contract's address holds code.
    fn check(&self) -> impl Future<Output = Result<ChainFacts, Error>> + Send;

    /// What the contract says of `provider`; `None` where it is not registered.
    fn provider(
        &self,
        provider: Address,
    ) -> impl Future<Output = Result<Option<Provider>, Error>> + Send;

    /// Simulates, signs, sends and waits for `registerNode(gpu_model, vram_mib)`.
    fn register(
        &self,
        gpu_model: &str,
        vram_mib: u64,
    ) -> impl Future<Output = Result<Mined, Error>> + Send;

    /// Simulates, signs, sends and waits for `sendHeartbeat()`.
    fn heartbeat(&self) -> impl Future<Output = Result<Mined, Error>> + Send;
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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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
