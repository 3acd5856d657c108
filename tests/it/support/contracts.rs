//! The contracts that a node may meet: this project's, and two that stand for a deployed one.

use lamda_node::ids::Address;
use serde_json::Value;

use super::anvil::{Anvil, cast};

/// A contract with the deployed interface and a committed artefact.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `contracts/src/NodeReputation.sol`.
    Ours,
    /// The deployed interface only.
    Plain,
    /// The deployed interface only; a node can register just once.
    Once,
}

impl Kind {
    /// Its ABI and bytecode.
    pub(crate) fn artefact(self) -> Value {
        let text = match self {
            Self::Ours => include_str!("../../../abi/NodeReputation.json"),
            Self::Plain => include_str!("../../fixtures/PlainReputation.json"),
            Self::Once => include_str!("../../fixtures/OnceReputation.json"),
        };
        serde_json::from_str(text).expect("a committed artefact")
    }

    /// Puts it on the chain; account 0 owns it.
    pub(crate) fn deploy(self, anvil: &Anvil) -> Address {
        deploy(&self.artefact(), anvil)
    }
}

/// Puts a contract on the chain with foundry's `cast`, from account 0.
pub(crate) fn deploy(artefact: &Value, anvil: &Anvil) -> Address {
    let bytecode = artefact["bytecode"].as_str().expect("its bytecode");
    let key = ["--private-key", Anvil::key_hex(0), "--rpc-url", &anvil.rpc_url];
    let told = cast(&[&["send", "--json"], &key[..], &["--create", bytecode]].concat());
    let receipt: Value = serde_json::from_str(&told).expect("a receipt");
    receipt["contractAddress"].as_str().expect("an address").parse().expect("an address")
}
