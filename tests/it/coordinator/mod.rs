//! A swarm's coordinator, read from a real chain: its figures, its events, and what endpoints do to both.

#![expect(clippy::unwrap_used, reason = "clippy exempts only functions marked as tests")]

mod events;
mod figures;
mod gate;
mod limits;
mod reorganised;

use std::time::Duration;

use lamda_node::backoff::Backoff;
use lamda_node::chain::coordinator::{Coordinator, Cursor, Happened, News, What};
use lamda_node::chain::{Config, EndpointLimits};
use lamda_node::ids::Address;
use serde_json::Value;

use crate::support::anvil::{Anvil, cast};
use crate::support::contracts::deploy;
use gate::Gate;

/// A peer id of account 1's, one of account 2's, and one of nobody's.
const OURS: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
const THEIRS: &str = "QmWhiaLrx3HRZfgXc2i7KW5nMUNK7P9tRc71yFJdGEZKkC";
const NOBODYS: &str = "QmQa1SCfYTxx7RvU7qJJRo79Zm1RAwPpkeLueDVJuBBmFp";

/// A swarm's coordinator on its own chain, behind a stand-in.
struct Swarm {
    anvil: Anvil,
    contract: Address,
    gate: Gate,
}

impl Swarm {
    /// With two registered peers.
    fn start() -> Self {
        Self::of(Anvil::start())
    }

    fn of(anvil: Anvil) -> Self {
        let artefact = include_str!("../../fixtures/MockSwarmCoordinator.json");
        let contract = deploy(&serde_json::from_str(artefact).unwrap(), &anvil);
        let gate = Gate::before(&anvil.rpc_url);
        let swarm = Self { anvil, contract, gate };
        swarm.send(1, &["registerPeer(string)", OURS]);
        swarm.send(2, &["registerPeer(string)", THEIRS]);
        swarm
    }

    /// Reads by way of the stand-in. A failed endpoint may be asked again at once.
    fn coordinator(&self) -> Coordinator {
        self.coordinator_at(self.contract)
    }

    fn coordinator_at(&self, contract: Address) -> Coordinator {
        Coordinator::new(self.config(contract)).unwrap()
    }

    fn config(&self, contract: Address) -> Config {
        let rest = Backoff::new(Duration::ZERO, Duration::ZERO);
        // A chain that was set back is a fact here, not a sign of a bad endpoint.
        let blocks_behind_max = u64::MAX;
        let endpoints = EndpointLimits { rest, blocks_behind_max, ..EndpointLimits::default() };
        let rpc_urls = vec![self.gate.url.clone()];
        Config { rpc_urls, endpoints, ..self.anvil.config(contract) }
    }

    /// Sends a call from an account, and returns the transaction's receipt.
    fn send(&self, account: usize, call: &[&str]) -> Value {
        let (contract, key) = (self.contract.to_string(), Anvil::key_hex(account));
        let flags = ["send", "--json", "--private-key", key, "--rpc-url", &self.anvil.rpc_url];
        // A negative number is no flag.
        let told = cast(&[&flags[..], &["--", &contract], call].concat());
        let receipt: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    /// Submits a reward for [`OURS`], one a round.
    fn reward(&self, round: u64, reward: &str) -> Value {
        let call = "submitReward(uint256,uint256,int256,string)";
        self.send(1, &[call, &round.to_string(), "0", reward, OURS])
    }

    /// Begins this many rounds.
    fn rounds(&self, count: u64) {
        for _ in 0..3 * count {
            self.send(0, &["advance()"]);
        }
    }

    fn mine(&self, blocks: u64) {
        self.anvil.cast(&["rpc", "anvil_mine", &blocks.to_string()]);
    }

    fn head(&self) -> u64 {
        self.anvil.cast(&["block-number"]).parse().unwrap()
    }
}

fn account(account: usize) -> Address {
    Anvil::key(account).address()
}

/// All news up to the head.
async fn all_news(of: &Coordinator, cursor: &Cursor) -> (Vec<Happened>, Cursor) {
    let (mut happened, mut cursor) = (Vec::new(), cursor.clone());
    for _ in 0..1000 {
        let news: News = of.news(&cursor).await.unwrap();
        happened.extend(news.happened);
        cursor = news.cursor;
        if !news.is_behind {
            return (happened, cursor);
        }
    }
    panic!("it never comes to the head")
}

/// The rewards of [`OURS`] among these, as text.
fn rewards(happened: &[Happened]) -> Vec<String> {
    let reward = |one: &Happened| match &one.what {
        What::RewardSubmitted { reward, peer, .. } if peer == OURS => Some(reward.to_string()),
        _ => None,
    };
    happened.iter().filter_map(reward).collect()
}
