//! A real EVM node for one test: `anvil`, empty, with a few funded accounts.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use lamda_node::chain::deploy::deploy;
use lamda_node::chain::{Chain, Config, EndpointLimits, Error, Key};
use lamda_node::ids::{Address, Hash};
use lamda_node::reputation::Call;
use lamda_node::reputation::tx::{Answer, Outcome};
use lamda_node::secret::Secret;

use super::tools::{Running, eventually, free_port, tool};

/// The id of anvil's chain.
pub(crate) const CHAIN_ID: u64 = 31337;

/// The first accounts of the mnemonic that all development chains share. They are funded.
const KEYS: [&str; 4] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
];

/// A chain that ends with this value. It makes a block for each transaction.
#[derive(Debug)]
pub(crate) struct Anvil {
    /// Its JSON-RPC endpoint.
    pub(crate) rpc_url: String,
    _process: Running,
}

impl Anvil {
    /// An empty chain, ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Anvil::start`], with further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let port = free_port();
        let process = Running::start(
            Command::new(tool("anvil"))
                .args(["--silent", "--host", "127.0.0.1", "--port", &port.to_string()])
                .args(["--chain-id", &CHAIN_ID.to_string()])
                .args(flags)
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        );
        let limit = Duration::from_secs(30);
        eventually("anvil answers", limit, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { rpc_url: format!("http://127.0.0.1:{port}"), _process: process }
    }

    /// The key of a funded account, 0 to 3. Account 0 owns what [`Anvil::deploy`] deploys.
    pub(crate) fn key(account: usize) -> Key {
        Key::from_hex(&Secret::new(KEYS[account])).expect("anvil's keys are keys")
    }

    /// [`Anvil::key`] as the text that `cast --private-key` takes.
    pub(crate) fn key_hex(account: usize) -> &'static str {
        KEYS[account]
    }

    /// Deploys the reputation contract.
    pub(crate) async fn deploy(&self) -> Address {
        let deadline = Duration::from_secs(30);
        let deployed =
            deploy(std::slice::from_ref(&self.rpc_url), &Self::key(0), Some(CHAIN_ID), deadline)
                .await;
        deployed.expect("the contract can be deployed").0
    }

    /// Deploys the contract, and registers this account as its only node.
    pub(crate) async fn deploy_with_node(&self, account: usize) -> Address {
        let contract = self.deploy().await;
        let (to, call) = (contract.to_string(), "registerNode(string,uint256)");
        self.cast(&["send", &to, call, "GPU", "1", "--private-key", KEYS[account]]);
        contract
    }

    /// Settings that fit this chain.
    pub(crate) fn config(&self, contract: Address) -> Config {
        Config {
            rpc_urls: vec![self.rpc_url.clone()],
            chain_id: Some(CHAIN_ID),
            contract,
            request_timeout: Duration::from_secs(10),
            endpoints: EndpointLimits::default(),
        }
    }

    /// The output of foundry's `cast` for these arguments on this chain.
    pub(crate) fn cast(&self, args: &[&str]) -> String {
        cast(&[args, &["--rpc-url", &self.rpc_url]].concat())
    }
}

/// Has one call mined, as the pipeline does if nothing goes wrong.
pub(crate) async fn carry_out(node: &impl Chain, call: &Call) -> Result<Outcome, Error> {
    let (quote, account) = (node.quote(call).await?, node.account().await?);
    let signed = node.sign(call, account.nonce, quote).await?;
    assert_eq!(node.send(&signed.raw).await?, Answer::Taken);
    Ok(mined(node, signed.hash).await)
}

/// Waits until a transaction is mined: anvil answers before it makes the block.
pub(crate) async fn mined(node: &impl Chain, hash: Hash) -> Outcome {
    for _ in 0..1000 {
        if let Some(outcome) = node.included(hash).await.expect("an answer") {
            return outcome;
        }
        tokio::task::yield_now().await;
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("transaction {hash} is in no block");
}

/// The output of foundry's `cast` for these arguments; panics if it fails.
pub(crate) fn cast(args: &[&str]) -> String {
    let output = Command::new(tool("cast")).args(args).output().expect("cast runs");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cast {}: {said} {complaint}", args[0]);
    said
}
