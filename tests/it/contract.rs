//! The contract from outside: what a node's transactions cost on a real chain, what the program
//! reads of it, and what an explorer can verify. Transactions are sent with foundry's `cast`.

#![expect(clippy::unwrap_used, reason = "clippy takes only what is marked as a test for one")]

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use lamda_node::chain::{Error, Reader};
use lamda_node::ids::Address;
use lamda_node::reputation::score::{Facts, score};
use serde_json::{Value, json};

use super::support::anvil::Anvil;
use super::support::contracts::Kind;
use super::support::rpc_proxy::{RpcProxy, Weather};

const ROOT: &str = "0x7f5979fb78f082e8b1c676635db8795c4ac6faba03525fb708cb5fd68fd40c5e";

/// A contract on a chain of the test's own; accounts 1 and 2 are its nodes, account 0 its owner.
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

    /// Sends a call from an account, and gives its receipt.
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

    /// What the program prints to these arguments, and with which exit code it ends.
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

/// The program in an empty folder, with these settings alone.
fn program(settings: &[(&str, &str)], args: &[&str]) -> (String, i32) {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_lamda-node"))
        .args(args)
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8(ended.stdout).unwrap(), ended.status.code().unwrap())
}

fn address(account: usize) -> Address {
    Anvil::key(account).address()
}

fn gas(receipt: &Value) -> u64 {
    let digits = receipt["gasUsed"].as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn a_node_pays_for_a_beat_what_the_snapshots_say() {
    let chain = Chain::with(Kind::Ours);
    chain.register(1);
    chain.pass(300);
    chain.beat_with_receipts(1, "3", "1");
    chain.pass(300);
    let beat = gas(&chain.send(1, &["sendHeartbeat()"]));
    chain.pass(300);
    let with_receipts = gas(&chain.beat_with_receipts(1, "2", "1"));
    assert!(beat < 28_500, "a beat costs {beat}");
    assert!(with_receipts < 31_800, "a beat with receipts costs {with_receipts}");

    let snapshots = include_str!("../../contracts/snapshots/NodeReputation.json");
    let snapshots: Value = serde_json::from_str(snapshots).unwrap();
    assert_eq!(snapshots["sendHeartbeat"], beat.to_string());
}

#[tokio::test]
async fn the_extension_is_found_where_it_is_and_nowhere_else() {
    for (kind, has) in [(Kind::Ours, true), (Kind::Plain, false), (Kind::Once, false)] {
        let chain = Chain::with(kind);
        chain.register(1);
        let reader = chain.reader();
        assert_eq!(reader.has_extension().await.unwrap(), has, "{kind:?}");
        let told = reader.reputation(address(1)).await.unwrap();
        assert_eq!(told.is_some(), has, "{kind:?}");
        assert_eq!(reader.reputation(address(2)).await.unwrap(), None, "a stranger");
        // Code that stops, code that gives a word that is no boolean.
        for code in ["0x00", "0x600260005260206000f3"] {
            chain.anvil.cast(&["rpc", "anvil_setCode", &chain.contract.to_string(), code]);
            assert!(!reader.has_extension().await.unwrap(), "{code}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_no_contract_without_the_extension() {
    let anvil = Anvil::start();
    let reader = Reader::new(anvil.config(address(1))).unwrap();
    let told = reader.has_extension().await;
    assert!(matches!(told, Err(Error::NoContract(_))), "{told:?}");
    drop(anvil);
    let told = reader.has_extension().await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
}

#[tokio::test]
async fn a_reputation_is_shown_as_the_chain_has_it() {
    let chain = Chain::with(Kind::Ours);
    let node = address(1).to_string();
    chain.register(1);
    for _ in 0..3 {
        chain.pass_to_next_slot();
        chain.send(1, &["sendHeartbeat()"]);
    }
    chain.pass(1200);
    chain.beat_with_receipts(1, "5", "2");
    chain.send(0, &["incrementJobs(address)", &node]);

    let (told, code) = chain.program(&["contract", "show", &node, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["extension"]), (0, &json!(true)));
    let reputation = &told["node"]["reputation"];
    for (field, value) in [
        ("on_time", 4),
        ("missed", 3),
        ("streak", 1),
        ("completed_claimed", 5),
        ("failed_claimed", 2),
        ("confirmed", 1),
    ] {
        assert_eq!(reputation[field], value, "{field}: {reputation}");
    }
    let facts = Facts { on_time: 4, missed: 3, confirmed: 1, failed: 2 };
    assert_eq!(reputation["score"], score(facts), "the chain and the program agree");
    assert_eq!(told["node"]["last_seen_s"], reputation["last_seen_s"]);

    let signature =
        "reputationOf(address)(uint40,uint40,uint32,uint32,uint32,uint40,uint40,uint256,uint16)";
    let by_cast = chain.anvil.cast(&["call", &chain.contract.to_string(), signature, &node]);
    assert_eq!(by_cast.lines().last().unwrap(), score(facts).to_string(), "and so does cast");

    let (text, _) = chain.program(&["contract", "show", &node]);
    assert!(text.contains("slots of 5 minutes: 4 on time, 3 missed, 1 in a row"), "{text}");
    assert!(text.contains("jobs by its own word: 5 completed, 2 failed"), "{text}");
}

#[test]
fn a_contract_without_the_extension_is_shown_as_before() {
    let chain = Chain::with(Kind::Plain);
    chain.register(1);
    let node = address(1).to_string();
    let (told, code) = chain.program(&["contract", "show", &node, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["extension"]), (0, &json!(false)));
    assert_eq!(told["node"]["gpu_model"], "NVIDIA A10");
    assert!(told["node"].get("reputation").is_none(), "{told}");
    let (text, _) = chain.program(&["contract", "show", &node]);
    assert!(text.contains("registered as NVIDIA A10") && !text.contains("score"), "{text}");
}

#[test]
fn a_nodes_history_is_read_from_its_events_alone() {
    for kind in [Kind::Ours, Kind::Plain] {
        let chain = Chain::with(kind);
        chain.anvil.cast(&["rpc", "anvil_mine", "20"]);
        let (node, other) = (address(1).to_string(), address(2).to_string());
        chain.register(1);
        chain.register(2);
        chain.pass(300);
        let beat = chain.send(1, &["sendHeartbeat()"]);
        chain.send(2, &["sendHeartbeat()"]);
        chain.send(0, &["incrementJobs(address)", &node]);
        if matches!(kind, Kind::Ours) {
            chain.beat_with_receipts(1, "5", "2");
        }

        let entries = chain.history(&[&node]);
        let events: Vec<&str> = entries.iter().map(|e| e["event"].as_str().unwrap()).collect();
        let common = ["registered", "heartbeat", "job_confirmed"];
        let with_receipts = ["heartbeat", "receipts_committed"];
        match kind {
            Kind::Ours => assert_eq!(events, [&common[..], &with_receipts].concat()),
            _ => assert_eq!(events, common),
        }
        assert_eq!(entries[0]["gpu_model"], "NVIDIA A10");
        assert_eq!(entries[0]["vram_mib"], 24_576);
        assert_eq!(entries[1]["tx_hash"], beat["transactionHash"]);
        assert!(entries[1]["time_s"].as_u64().unwrap() >= entries[0]["block"].as_u64().unwrap());
        assert_eq!(entries[2]["jobs"], 1);
        if let Some(receipts) = entries.get(4) {
            let told = json!([receipts["root"], receipts["completed"], receipts["failed"]]);
            assert_eq!(told, json!([ROOT, 5, 2]));
        }

        assert_eq!(chain.history(&[&other]).len(), 2, "the other node's own");
        let later = entries[1]["block"].to_string();
        assert_eq!(chain.history(&[&node, "--from-block", &later]), entries[1..]);
        assert_eq!(chain.history(&[&node, "--from-block", "100000"]), [Value::Null; 0]);
        let (text, _) = chain.program(&["contract", "history", &node]);
        assert!(text.contains("registered as NVIDIA A10 with 24576 MiB"), "{text}");
        assert_eq!(text.lines().count(), entries.len());
    }
}

#[tokio::test]
async fn a_history_begins_where_the_node_registered() {
    let chain = Chain::with(Kind::Ours);
    chain.anvil.cast(&["rpc", "anvil_mine", "20"]);
    chain.pass(60);
    chain.register(1);
    chain.pass(60);
    chain.anvil.cast(&["rpc", "anvil_mine", "20"]);
    let reader = chain.reader();
    let reputation = reader.reputation(address(1)).await.unwrap().unwrap();
    let block = reader.block_at(reputation.since_s, reader.head().await.unwrap()).await.unwrap();
    let first = &chain.history(&[&address(1).to_string()])[0];
    assert_eq!((&first["event"], &first["block"]), (&json!("registered"), &json!(block)));
}

#[test]
fn an_endpoint_that_allows_few_blocks_is_asked_for_few() {
    let chain = Chain::with(Kind::Ours);
    let node = address(1).to_string();
    chain.register(1);
    for _ in 0..3 {
        chain.anvil.cast(&["rpc", "anvil_mine", "150"]);
        chain.send(1, &["sendHeartbeat()"]);
    }
    let narrow = Narrow::before(&chain.anvil, 100);
    let args = ["contract", "history", &node, "--json", "--from-block", "0"];
    let (told, code) = chain.program_by_way_of(&narrow.url, &args);
    assert_eq!((told.lines().count(), code), (4, 0), "{told}");
    let ranges = narrow.ranges.lock().unwrap().clone();
    let is_granted = |(from, to): &(u64, u64)| to - from < 100;
    let granted: Vec<(u64, u64)> = ranges.iter().copied().filter(is_granted).collect();
    assert!((1..20).contains(&(ranges.len() - granted.len())), "{ranges:?}");
    assert!(granted.is_sorted() && granted.windows(2).all(|w| w[0].1 + 1 == w[1].0), "{ranges:?}");
}

#[test]
fn a_log_that_was_not_asked_for_is_refused() {
    let chain = Chain::with(Kind::Ours);
    chain.register(1);
    chain.register(2);
    let narrow = Narrow::before(&chain.anvil, u64::MAX);
    // The proxy takes the node out of the filter.
    *narrow.forget_node.lock().unwrap() = true;
    let args = ["contract", "history", &address(1).to_string(), "--from-block", "0"];
    let (_, code) = chain.program_by_way_of(&narrow.url, &args);
    assert_eq!(code, 1);
}

#[test]
fn an_explorers_input_compiles_to_the_committed_bytecode() {
    let (input, code) = program(&[], &["contract", "verify-data", "--input"]);
    assert_eq!(code, 0);
    let solc = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/solc");
    let mut child = Command::new(&solc)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/solc runs: node is installed, and `npm ci` was run in contracts/");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let answer: Value =
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).expect("an answer");
    let built = &answer["contracts"]["src/NodeReputation.sol"]["NodeReputation"];
    let object = built["evm"]["bytecode"]["object"].as_str().unwrap_or_default();
    let committed = Kind::Ours.artefact();
    assert!(committed["bytecode"] == format!("0x{object}"), "{}", answer["errors"]);

    let (told, _) = program(&[], &["contract", "verify-data", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let metadata: Value = serde_json::from_str(built["metadata"].as_str().unwrap()).unwrap();
    let version = metadata["compiler"]["version"].as_str().unwrap();
    assert_eq!(told["compiler"], format!("v{version}"), "the compiler says so itself");
    assert_eq!(told["evm_version"], metadata["settings"]["evmVersion"]);
    assert_eq!(told["optimizer_runs"], metadata["settings"]["optimizer"]["runs"]);
    assert_eq!(told["via_ir"], metadata["settings"]["viaIR"]);
    assert_eq!(told["constructor_arguments"], "");
    assert_eq!(told["standard_json_input"], serde_json::from_str::<Value>(&input).unwrap());
    let (text, _) = program(&[], &["contract", "verify-data"]);
    assert!(text.contains(version), "{text}");
}

/// A proxy before a chain's endpoint that refuses logs of more than so many blocks.
struct Narrow {
    url: String,
    /// The ranges that logs were asked of, the refused among them.
    ranges: Arc<Mutex<Vec<(u64, u64)>>>,
    forget_node: Arc<Mutex<bool>>,
}

impl Narrow {
    fn before(anvil: &Anvil, blocks_max: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let upstream = anvil.rpc_url.trim_start_matches("http://").to_owned();
        let (ranges, forget_node) = (Arc::default(), Arc::new(Mutex::new(false)));
        let narrow =
            Self { url, ranges: Arc::clone(&ranges), forget_node: Arc::clone(&forget_node) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(mut request) = body(&mut BufReader::new(&stream)) else { continue };
                if request["method"] == "eth_getLogs" {
                    let of = |field: &str| number(&request["params"][0][field]);
                    let (from, to) = (of("fromBlock"), of("toBlock"));
                    ranges.lock().unwrap().push((from, to));
                    if to - from >= blocks_max {
                        let error = json!({"code": -32602, "message": "block range is too wide"});
                        let id = &request["id"];
                        answer(&mut stream, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
                        continue;
                    }
                    if *forget_node.lock().unwrap() {
                        request["params"][0]["topics"][1] = Value::Null;
                    }
                }
                let mut chain = TcpStream::connect(&upstream).unwrap();
                post(&mut chain, &request);
                answer(&mut stream, &body(&mut BufReader::new(&chain)).unwrap());
            }
        });
        narrow
    }
}

fn number(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// The JSON body of an HTTP message.
fn body(from: &mut impl std::io::BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(digits) = line.strip_prefix("content-length:") {
            length = digits.trim().parse().ok()?;
        }
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn answer(to: &mut TcpStream, body: &Value) {
    send(to, "HTTP/1.1 200 OK", &body.to_string());
}

fn post(to: &mut TcpStream, body: &Value) {
    send(to, "POST / HTTP/1.1\r\nhost: localhost", &body.to_string());
}

fn send(to: &mut TcpStream, head: &str, body: &str) {
    let head = format!("{head}\r\ncontent-type: application/json\r\nconnection: close");
    write!(to, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok();
}

#[tokio::test]
async fn a_contract_that_can_not_count_its_active_nodes_is_shown_all_the_same() {
    let chain = Chain::with(Kind::Ours);
    chain.register(1);
    let proxy = RpcProxy::start(&chain.anvil.rpc_url);
    // `getActiveProvidersCount()` goes over every node: with some 11,000 an endpoint cuts it short.
    proxy.set(Weather::OutOfGas("0x13c3e4b3"));
    let node = address(1).to_string();
    let (told, code) = chain.program_by_way_of(proxy.url(), &["contract", "show", &node, "--json"]);
    assert_eq!(code, 0, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["providers"], &told["active"]), (&json!(1), &Value::Null), "{told}");
    assert_eq!(told["node"]["registered"], true, "{told}");
    assert!(told["active_unknown"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
    let (told, _) = chain.program_by_way_of(proxy.url(), &["contract", "show", &node]);
    assert!(told.contains("1 registered, how many are active is unknown ("), "{told}");
}
