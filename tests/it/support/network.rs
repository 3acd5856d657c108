//! A simulated node, the parts that it needs, and a requester's program.

use std::io::Write as _;
use std::process::Child;

use serde_json::Value;

use super::anvil::Anvil;
use super::nats::Nats;
use super::program::{ACCOUNT, Program};
use super::tools::Running;

/// A simulated node and the parts that it needs.
pub(crate) struct Network {
    pub(crate) program: Program,
    pub(crate) nats: Nats,
    _anvil: Anvil,
    _store: Running,
    pub(crate) node: Child,
}

impl Network {
    pub(crate) fn start() -> Self {
        let (nats, anvil) = (Nats::start(), Anvil::start());
        let mut program = Program::with(&[
            ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
            ("AGENT_ADDRESS", ACCOUNT),
            ("NATS_URL", &nats.url()),
            ("OPBNB_RPC_URL", &anvil.rpc_url),
            ("PINATA_JWT", "any"),
            ("HEARTBEAT_INTERVAL", "2s"),
        ]);
        let dir = program.path("store");
        let (store, line) = program.start(&["store", "--dir", &dir, "--listen", "127.0.0.1:0"]);
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("the store says where it listens").trim_end_matches(',').to_owned();
        program.set("PINATA_API_URL", &url);
        program.set("IPFS_GATEWAYS", &url);
        let deployed = program.run(&["contract", "deploy", "--json"]).succeeds().objects();
        let contract = deployed[0]["contract"].as_str().expect("the contract's address").to_owned();
        program.set("REPUTATION_CONTRACT_ADDRESS", &contract);
        let log = std::fs::File::create(program.path("node.log")).expect("a log");
        let node = program.command(&["run", "--simulate"]).stderr(log).spawn();
        let node = node.expect("the node starts");
        Self { program, nats, _anvil: anvil, _store: store, node }
    }

    /// The node's log so far.
    pub(crate) fn node_log(&self) -> String {
        std::fs::read_to_string(self.program.path("node.log")).unwrap_or_default()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.node.kill().ok();
        self.node.wait().ok();
        if std::thread::panicking() {
            writeln!(std::io::stderr(), "the node's log:\n{}", self.node_log()).ok();
        }
    }
}

/// The objects whose `event` has this name.
pub(crate) fn events<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["event"] == name).collect()
}
