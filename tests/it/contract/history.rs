//! `contract history`, also over an endpoint that allows few blocks per request.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Chain, ROOT, address};
use crate::support::acceptor::Acceptor;
use crate::support::anvil::Anvil;
use crate::support::contracts::Kind;
use crate::support::http::{post, read_http};

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
    let block =
        reader.block_at(reputation.standing.since_s, reader.head().await.unwrap()).await.unwrap();
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

/// A proxy in front of a chain's endpoint that refuses logs of more than `blocks_max` blocks.
struct Narrow {
    url: String,
    _acceptor: Acceptor,
    /// The block ranges of all requests for logs, also of the refused ones.
    ranges: Arc<Mutex<Vec<(u64, u64)>>>,
    forget_node: Arc<Mutex<bool>>,
}

impl Narrow {
    fn before(anvil: &Anvil, blocks_max: u64) -> Self {
        let upstream = anvil.rpc_url.trim_start_matches("http://").to_owned();
        let (ranges, forget_node): (Arc<Mutex<Vec<_>>>, Arc<Mutex<bool>>) = Default::default();
        let (asked, forgets) = (Arc::clone(&ranges), Arc::clone(&forget_node));
        let acceptor = Acceptor::start(move |mut stream| {
            let Some((_, body)) = read_http(&mut stream) else { return };
            let mut request: Value = serde_json::from_slice(&body).unwrap();
            if request["method"] == "eth_getLogs" {
                let of = |field: &str| number(&request["params"][0][field]);
                let (from, to) = (of("fromBlock"), of("toBlock"));
                asked.lock().unwrap().push((from, to));
                if to - from >= blocks_max {
                    let error = json!({"code": -32602, "message": "block range is too wide"});
                    let id = &request["id"];
                    let refusal = json!({"jsonrpc": "2.0", "id": id, "error": error});
                    answer(&mut stream, refusal.to_string().as_bytes());
                    return;
                }
                if *forgets.lock().unwrap() {
                    request["params"][0]["topics"][1] = Value::Null;
                }
            }
            let mut chain = TcpStream::connect(&upstream).unwrap();
            post(&mut chain, &upstream, &request.to_string()).unwrap();
            answer(&mut stream, &read_http(&mut chain).unwrap().1);
        });
        let url = format!("http://{}", acceptor.address());
        Self { url, _acceptor: acceptor, ranges, forget_node }
    }
}

fn number(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn answer(to: &mut TcpStream, body: &[u8]) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    write!(to, "{head}\r\ncontent-length: {}\r\n\r\n", body.len()).ok();
    to.write_all(body).ok();
}
