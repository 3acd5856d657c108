//! Proofs that a receipt is under a root that its node committed on the chain.

use lamda_node::chain::Reader;
use lamda_node::ids::{Address, Hash};
use serde_json::{Value, json};

use super::{Node, at, text, verify, verify_changed};
use crate::support::anvil::Anvil;
use crate::support::oracle::python;
use crate::support::program::Program;
use crate::support::tools::free_port;

/// Puts the root on the chain as the node does, and returns the transaction's receipt.
fn commit(anvil: &Anvil, contract: Address, root: Hash, (completed, failed): (u32, u32)) -> Value {
    let (to, root) = (contract.to_string(), root.to_string());
    let call = "sendHeartbeatWithReceipts(bytes32,uint32,uint32)";
    let (completed, failed) = (completed.to_string(), failed.to_string());
    let key = Anvil::key_hex(1);
    let args = [&to, call, &root, &completed, &failed, "--private-key", key, "--json"];
    // What cast estimates it sends without a margin: in the next second the same call may cost more, and fail.
    let args = [&["send", "--gas-limit", "500000"], &args[..]].concat();
    let mined: Value = serde_json::from_str(&anvil.cast(&args)).expect("JSON");
    assert_eq!(mined["status"], "0x1", "{mined}");
    mined
}

#[tokio::test]
async fn a_receipt_is_proved_to_be_under_a_root_on_the_chain() {
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await;
    let node = Node::new(contract);
    // Neither in the order of their ends nor in reverse, and two ended together.
    for (id, finished_ms, code) in
        [("b", 3000, 1), ("late", 4000, 0), ("last", 9000, 3), ("a", 3000, 0), ("early", 2000, 0)]
    {
        node.run(id, finished_ms, code).await;
    }
    let (transaction, root, counts) = node.reserve(0).await;
    assert_eq!(counts, (3, 2));
    let mined = commit(&anvil, contract, root, counts);
    node.settle(&transaction, &mined).await;
    node.run("next", 10_000, 0).await;

    for id in ["late", "b", "a", "early", "last"] {
        let proof = node.receipt(&["proof", id]).object();
        assert_eq!(python("merkle.py", &["verify"], &proof.to_string()), "proved", "{id}");
        assert_eq!(verify(&proof, &[]).code(), 0);
        let found = verify(&proof, &["--json", "--rpc", &anvil.rpc_url]).object();
        assert_eq!(text(&found, "job_id"), id);
        let committed = &found["committed"];
        assert_eq!(committed["tx_hash"], mined["transactionHash"]);
        assert_eq!((&committed["completed"], &committed["failed"]), (&json!(3), &json!(2)));
    }
    node.receipt(&["proof", "next"]).is_refused(1, "it goes with the next heartbeat");
    let listed = node.receipt(&["list"]).stdout();
    let order: Vec<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(order, ["next", "last", "late", "a", "b", "early"], "{listed}");
    assert_eq!(listed.matches("committed in block ").count(), 5, "{listed}");
    // Reading the journal did not block the node.
    node.run("after", 11_000, 0).await;

    let file = node.dir.path().join("proof.json");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(node.receipt(&["proof", "a", "--out", file]).code(), 0);
    let told = Program::with(&[]).run(&["verify", file, "--rpc", &anvil.rpc_url]);
    assert_eq!(told.code(), 0, "{}", told.both());
    let block_time = anvil.cast(&["block", "latest", "--field", "timestamp"]);
    let at = at(block_time.parse::<u64>().expect("seconds") * 1000).to_string();
    assert!(told.stdout().contains(&format!("committed at {at}")), "{}", told.stdout());
}

#[test]
fn the_vectors_of_the_tree_are_what_another_implementation_makes() {
    let vectors = include_str!("../../../contracts/test/vectors/receipts.json");
    assert_eq!(python("merkle.py", &["vectors"], ""), vectors);
}

#[tokio::test]
async fn a_root_is_found_in_its_block_without_its_transaction() {
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await;
    let root = Hash([7; 32]);
    let mined = commit(&anvil, contract, root, (2, 1));
    let reader = Reader::new(anvil.config(contract)).expect("a reader");
    let unknown = reader.committed_by(Hash([9; 32])).await.expect("an answer");
    assert_eq!(unknown, None, "the endpoint knows no such transaction");
    let node = Anvil::key(1).address();
    let found = reader.committed_in(3, node, root).await.expect("an answer").expect("a root");
    assert_eq!(found.tx_hash.to_string(), text(&mined, "transactionHash"));
    assert_eq!((found.provider, found.completed, found.failed), (node, 2, 1));
    let by = reader.committed_by(found.tx_hash).await.expect("an answer");
    assert_eq!(by, Some(vec![found]));
    for (block, node, root) in
        [(2, node, root), (3, Anvil::key(2).address(), root), (3, node, Hash([8; 32]))]
    {
        assert_eq!(reader.committed_in(block, node, root).await.expect("an answer"), None);
    }
}

#[tokio::test]
async fn whatever_is_changed_in_a_proof_is_noticed() {
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await;
    let node = Node::new(contract);
    for (id, finished_ms) in [("a", 2000), ("b", 3000), ("c", 4000)] {
        node.run(id, finished_ms, 0).await;
    }
    let (transaction, root, counts) = node.reserve(0).await;
    let mined = commit(&anvil, contract, root, counts);
    node.settle(&transaction, &mined).await;
    let proof = node.receipt(&["proof", "b"]).object();
    let rpc = ["--rpc", anvil.rpc_url.as_str()];

    let other = json!(Hash([9; 32]));
    for (pointer, value, why) in [
        ("/digest", other.clone(), "the proof's digest is not that of its receipt"),
        ("/leaf", other.clone(), "the proof's leaf is not that of its receipt"),
        ("/chain_id", json!(1), "the proof's chain_id is not that of its receipt"),
        ("/contract", json!(Address::new([9; 20])), "the proof's contract is not that"),
        ("/root", other.clone(), "does not lead from its receipt to its root"),
        ("/proof/0", other.clone(), "does not lead from its receipt to its root"),
        ("/proof", json!([]), "does not lead from its receipt to its root"),
        ("/receipt/message/exitCode", json!(1), "the proof's digest is not that"),
        ("/receipt/signature", json!(format!("0x{}", "11".repeat(65))), "its signature is not"),
    ] {
        verify_changed(&proof, pointer, value, &[]).is_not_valid(why);
    }
    // Only the chain shows that these are wrong.
    let registration = anvil.cast(&["block", "2", "--json"]);
    let registration: Value = serde_json::from_str(&registration).expect("JSON");
    let registration = registration["transactions"][0].clone();
    verify_changed(&proof, "/tx_hash", registration, &rpc).is_not_valid("did not commit");
    verify_changed(&proof, "/tx_hash", other, &rpc).is_not_valid("the chain knows no transaction");
    verify_changed(&proof, "/block", json!(1), &rpc).is_not_valid("is in block 3, not in 1");

    let empty = Anvil::start();
    verify(&proof, &["--rpc", &empty.rpc_url]).is_not_valid("there is no contract at");
    // An endpoint that can't be asked makes no proof invalid.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    verify(&proof, &["--rpc", &nobody]).is_refused(1, "the chain could not be asked");
    verify(&proof, &["--rpc", "nobody"]).is_refused(64, "--rpc: it is not an http");
}

#[tokio::test]
async fn a_root_of_another_node_or_chain_or_over_fewer_jobs_proves_nothing() {
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await;
    let node = Node::new(contract);
    for (id, finished_ms) in [("a", 2000), ("b", 3000), ("c", 4000)] {
        node.run(id, finished_ms, 0).await;
    }
    let (transaction, root, _) = node.reserve(0).await;
    let fewer = commit(&anvil, contract, root, (1, 0));
    node.settle(&transaction, &fewer).await;
    let proof = node.receipt(&["proof", "a"]).object();
    let ended = verify(&proof, &["--rpc", &anvil.rpc_url]);
    ended.is_not_valid("the proof has 2 steps, but the root counts 1 jobs");

    // The root is right, but on another chain than the receipt was signed for.
    let mut elsewhere = Node::new(contract);
    elsewhere.domain.chain_id = 1337;
    elsewhere.run("a", 2000, 0).await;
    let (transaction, ..) = elsewhere.reserve(0).await;
    elsewhere.settle(&transaction, &fewer).await;
    let proof = elsewhere.receipt(&["proof", "a"]).object();
    let ended = verify(&proof, &["--rpc", &anvil.rpc_url]);
    ended.is_not_valid("signed for chain 1337, and the endpoint is on chain 31337");

    // Root and node are right, but the event is of another contract.
    let copy = anvil.deploy_with_node(1).await;
    let node = Node::new(contract);
    node.run("a", 2000, 0).await;
    let (transaction, root, counts) = node.reserve(0).await;
    node.settle(&transaction, &commit(&anvil, copy, root, counts)).await;
    let proof = node.receipt(&["proof", "a"]).object();
    verify(&proof, &["--rpc", &anvil.rpc_url]).is_not_valid("did not commit 0x7099");

    // The root is on the chain, but another node put it there.
    let mut stolen = Node::new(contract);
    stolen.key = Anvil::key(2);
    stolen.run("a", 2000, 0).await;
    let (transaction, root, counts) = stolen.reserve(0).await;
    let mined = commit(&anvil, contract, root, counts);
    stolen.settle(&transaction, &mined).await;
    let proof = stolen.receipt(&["proof", "a"]).object();
    verify(&proof, &["--rpc", &anvil.rpc_url]).is_not_valid("did not commit 0x3C44");
}
