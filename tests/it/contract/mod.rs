//! The contract from outside: what a node's transactions cost on a real chain, what the program reads of
//! it, and what an explorer can verify. Transactions are sent with foundry's `cast`.

#![expect(clippy::unwrap_used, reason = "clippy exempts only functions marked as tests")]

mod extension;
mod history;
mod show;
mod source;

use lamda_node::chain::Reader;
use lamda_node::ids::Address;
use serde_json::Value;

use crate::support::anvil::Anvil;
use crate::support::contracts::Kind;
use crate::support::program::Program;

const ROOT: &str = "0x7f5979fb78f082e8b1c676635db8795c4ac6faba03525fb708cb5fd68fd40c5e";

/// A contract on its own chain; accounts 1 and 2 are its nodes, account 0 is its owner.
struct Chain {
    anvil: Anvil,
    contract: Address,
}

impl Chain {
    fn with(kind: Kind) -> Self {
        let anvil = Anvil::start();
        let contract = kind.deploy(&anvil);
        Self { anvil, contract }
    }

    /// Sends a call from an account, and returns the transaction's receipt.
    fn send(&self, account: usize, call: &[&str]) -> Value {
        let contract = self.contract.to_string();
        let key = ["--json", "--private-key", Anvil::key_hex(account)];
        let told = self.anvil.cast(&[&["send", &contract], call, &key].concat());
        let receipt: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    fn register(&self, account: usize) {
        self.send(account, &["registerNode(string,uint256)", "NVIDIA A10", "24576"]);
    }

    fn beat_with_receipts(&self, account: usize, completed: &str, failed: &str) -> Value {
        let signature = "sendHeartbeatWithReceipts(bytes32,uint32,uint32)";
        self.send(account, &[signature, ROOT, completed, failed])
    }

    fn pass(&self, seconds: u32) {
        self.anvil.cast(&["rpc", "evm_increaseTime", &seconds.to_string()]);
    }

    /// Moves the clock to the first second of the next slot.
    fn pass_to_next_slot(&self) {
        let now: u64 = self.anvil.cast(&["block", "latest", "-f", "timestamp"]).parse().unwrap();
        let next = (now / 300 + 1) * 300;
        self.anvil.cast(&["rpc", "evm_setNextBlockTimestamp", &next.to_string()]);
    }

    fn reader(&self) -> Reader {
        Reader::new(self.anvil.config(self.contract)).unwrap()
    }

    /// The program's output and exit code for these arguments.
    fn program(&self, args: &[&str]) -> (String, i32) {
        self.program_by_way_of(&self.anvil.rpc_url, args)
    }

    fn program_by_way_of(&self, rpc_url: &str, args: &[&str]) -> (String, i32) {
        let contract = self.contract.to_string();
        program(&[("OPBNB_RPC_URL", rpc_url), ("REPUTATION_CONTRACT_ADDRESS", &contract)], args)
    }

    fn history(&self, args: &[&str]) -> Vec<Value> {
        let args = [&["contract", "history", "--json"], args].concat();
        let (told, code) = self.program(&args);
        assert_eq!(code, 0, "{told}");
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What the program prints in an empty folder with these settings alone, and its exit code.
fn program(settings: &[(&str, &str)], args: &[&str]) -> (String, i32) {
    let ended = Program::with(settings).run(args);
    (ended.stdout(), ended.code())
}

fn address(account: usize) -> Address {
    Anvil::key(account).address()
}
