//! The pipeline alone, over a real chain behind a proxy.

use std::sync::Arc;
use std::time::Duration;

use lamda_node::agent::Limits;
use lamda_node::agent::account::ledger::{Error, Ledger, Pace, Parts, Spending};
use lamda_node::agent::key::sole::Sole;
use lamda_node::backoff::Backoff;
use lamda_node::chain::{EndpointLimits, Evm};
use lamda_node::clock::SystemClock;
use lamda_node::ids::Hash;
use lamda_node::journal::Journal;
use lamda_node::reputation::Call;
use lamda_node::reputation::tx::Rules;
use tempfile::TempDir;

use super::transactions;
use crate::support::anvil::{Anvil, CHAIN_ID};
use crate::support::rpc_proxy::{RpcProxy, SEND};
use crate::support::tools::eventually;

/// A pipeline with its journal, and a proxy that misbehaves on command.
pub(super) struct Bench {
    /// Blocks per second; all waits are divided by it.
    haste: u32,
    pub(super) anvil: Anvil,
    pub(super) proxy: Arc<RpcProxy>,
    pub(super) chain: Arc<Evm>,
    pub(super) journal: Journal,
    pub(super) sole: Sole,
    pub(super) dir: TempDir,
}

impl Bench {
    /// A registered node on a chain that makes a block per second.
    pub(super) async fn start() -> Self {
        Self::hasty(1).await
    }

    /// A registered node on a chain that makes `haste` blocks per second.
    pub(super) async fn hasty(haste: u32) -> Self {
        let block_time = (1.0 / f64::from(haste)).to_string();
        let anvil = Anvil::start_with(&["--block-time", &block_time]);
        let contract = anvil.deploy().await;
        let proxy = Arc::new(RpcProxy::start(&anvil.rpc_url));
        let mut config = anvil.config(contract);
        config.rpc_urls = vec![proxy.url().to_owned()];
        config.request_timeout /= haste;
        if haste > 1 {
            let rest = Backoff::new(Duration::from_secs(1) / haste, Duration::from_secs(4) / haste);
            config.endpoints = EndpointLimits { rest, ..config.endpoints };
        }
        let chain = Arc::new(Evm::new(config, Anvil::key(1)).expect("settings"));
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(dir.path()).expect("a journal");
        // The time without sending after another program's transaction was seen.
        let sole = Sole::new(Duration::from_secs(3) / haste);
        let bench = Self { haste, anvil, proxy, chain, journal, sole, dir };
        let register = Call::Register { gpu_model: "A10".to_owned(), vram_mib: 24_576 };
        bench.ledger().carry_out(register, Vec::new()).await.expect("a registration");
        bench
    }

    /// The pipeline as a start makes it, with short waits.
    pub(super) fn ledger(&self) -> Ledger<Evm, SystemClock> {
        self.ledger_within(Limits::default())
    }

    /// The pipeline with the owner's limits of spending.
    pub(super) fn ledger_within(&self, limits: Limits) -> Ledger<Evm, SystemClock> {
        let spending = Spending::of(CHAIN_ID, limits);
        let pace = Pace::of(CHAIN_ID, spending);
        let rules = Rules {
            confirmations: 2,
            replace_after: Duration::from_secs(3) / self.haste,
            replace_blocks: 2,
            resend_after: Duration::from_secs(1) / self.haste,
            displace_after: Duration::from_secs(2) / self.haste,
            ..pace.rules
        };
        let deadline = Duration::from_secs(20);
        let pace = Pace { rules, poll: pace.poll / self.haste, deadline };
        Ledger::new(Parts {
            chain: Arc::clone(&self.chain),
            chain_id: CHAIN_ID,
            journal: self.journal.clone(),
            clock: SystemClock,
            sole: self.sole.clone(),
            spending,
            pace,
        })
    }

    pub(super) async fn beat(&self) -> Result<Hash, Error> {
        let outcome = self.ledger().carry_out(Call::Heartbeat, Vec::new()).await?;
        assert!(outcome.success);
        Ok(outcome.hash)
    }

    /// Waits until the endpoint has received more than `sent` transactions.
    pub(super) async fn next_send(&self, before: usize) {
        let proxy = Arc::clone(&self.proxy);
        let seen = move || (proxy.seen(SEND).len() > before).then_some(());
        let wait = move || eventually("it is sent", Duration::from_secs(20), seen);
        tokio::task::spawn_blocking(wait).await.expect("it is sent");
    }

    /// The balance of the node's account in wei.
    pub(super) fn balance(&self) -> u128 {
        let said = self.anvil.cast(&["balance", &Anvil::key(1).address().to_string()]);
        said.parse().expect("a number")
    }

    pub(super) fn nonce(&self) -> u64 {
        let said = self.anvil.cast(&["nonce", &Anvil::key(1).address().to_string()]);
        said.parse().expect("a number")
    }

    pub(super) fn rpc(&self, arguments: &[&str]) -> String {
        self.anvil.cast(&[&["rpc"], arguments].concat())
    }

    /// A transaction's receipt from the chain; `null` if it is in no block.
    pub(super) fn receipt_of(&self, hash: Hash) -> String {
        self.rpc(&["eth_getTransactionReceipt", &hash.to_string()])
    }

    /// Asserts that of every transaction that the journal has as done exactly one form is mined, and that the
    /// account's nonce counts these and the transactions that `strangers` sent.
    pub(super) fn check(&self, strangers: u64) {
        let rows = transactions(self.dir.path());
        let settled: Vec<_> = rows.iter().filter(|row| row.state == "settled").collect();
        assert_eq!(settled.len() as u64 + strangers, self.nonce(), "{rows:?}");
        assert!(rows.iter().all(|row| row.state != "open"), "{rows:?}");
        for row in &rows {
            let mined = |hash: &&String| self.rpc(&["eth_getTransactionReceipt", hash]) != "null";
            let forms = row.forms.iter().filter(mined).count();
            assert_eq!(forms, usize::from(row.state == "settled"), "{row:?}");
        }
    }
}
