//! Receipts checked without a chain.

use lamda_node::ids::{Address, Hash};
use lamda_node::reputation::Call;
use serde_json::{Value, json};

use super::{Node, at, program_at, text, verify, verify_changed};
use crate::support::anvil::{CHAIN_ID, cast};
use crate::support::oracle::python;
use crate::support::program::Program;
use crate::support::speaker::CID;

#[tokio::test]
async fn a_receipt_is_checked_offline_in_every_form_that_it_travels_in() {
    let node = Node::new(Address::new([3; 20]));
    node.run("job-1", 2000, 0).await;
    let statuses = node.journal.unsent(100).await.expect("statuses");
    let status = statuses.last().expect("a terminal status").body.clone();
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    let shown = node.receipt(&["show", "job-1"]).object();
    assert_eq!(shown, status["receipt"], "what is shown is what was published");

    for document in [&shown, &status, &json!({"event": "receipt", "receipt": shown})] {
        let found = verify(document, &["--json"]).object();
        assert_eq!(found["valid"], true);
        assert_eq!(text(&found, "signer"), node.key.address().to_string());
        assert_eq!((text(&found, "job_id"), &found["chain_id"]), ("job-1", &json!(CHAIN_ID)));
    }
    let lines: String = statuses
        .iter()
        .map(|row| String::from_utf8(row.body.clone()).expect("UTF-8") + "\n")
        .collect();
    let watched = Program::with(&[]).run_with_input(&["verify", "-"], &lines);
    assert_eq!(watched.code(), 0, "{}", watched.stderr());
    assert!(watched.stdout().starts_with("valid: ") && watched.stdout().contains(CID));

    let program = Program::with(&[]);
    let file = node.dir.path().join("receipt.json");
    std::fs::write(&file, shown.to_string()).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let mine = node.domain.contract.to_string();
    assert_eq!(program.run(&["verify", file, "--contract", &mine]).code(), 0);
    let other = Address::new([4; 20]).to_string();
    program.run(&["verify", file, "--contract", &other]).is_not_valid(&other);
    let asked = program.run(&["verify", file, "--rpc", "http://127.0.0.1:1"]);
    asked.is_refused(64, "lamda-node receipt proof job-1");
}

#[tokio::test]
async fn a_receipt_is_the_nodes_for_eth_account_and_for_cast() {
    let node = Node::new(Address::new([3; 20]));
    node.run("job-1", 2000, 1).await;
    let mut document = node.receipt(&["show", "job-1"]).object();
    let signature = document.as_object_mut().and_then(|it| it.remove("signature"));
    let signature = signature.expect("a signature");
    let (signature, signer) = (signature.as_str().expect("text"), node.key.address().to_string());
    assert_eq!(python("typed_data.py", &["signer", signature], &document.to_string()), signer);

    let file = node.dir.path().join("typed.json");
    std::fs::write(&file, document.to_string()).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let args = ["wallet", "verify", "--address", &signer, "--data", "--from-file", file, signature];
    let said = cast(&args);
    assert!(said.contains("succeeded"), "{said}");
}

#[tokio::test]
async fn whatever_is_changed_in_a_receipt_is_noticed() {
    let node = Node::new(Address::new([3; 20]));
    node.run("job-1", 2000, 0).await;
    let document = node.receipt(&["show", "job-1"]).object();
    let unsigned = "its signature is not that of the node it names";
    let other = Address::new([9; 20]).to_string();
    let hash = Hash([9; 32]).to_string();
    let cases = [
        ("/message/jobId", json!("job-2"), unsigned),
        ("/message/node", json!(other), unsigned),
        ("/message/specHash", json!(hash), unsigned),
        ("/message/imageDigest", json!("sha256:3"), unsigned),
        ("/message/gpuUuids", json!("GPU-1"), unsigned),
        ("/message/inputCid", json!(CID), unsigned),
        ("/message/outputCid", json!(""), unsigned),
        ("/message/exitCode", json!(1), unsigned),
        ("/message/startedAt", json!(0), unsigned),
        ("/message/finishedAt", json!(0), unsigned),
        ("/domain/chainId", json!(1), unsigned),
        ("/domain/verifyingContract", json!(other), unsigned),
        ("/domain/name", json!("Other"), "not this protocol's"),
        ("/primaryType", json!("Job"), "not this protocol's"),
        ("/types/Receipt/0/type", json!("bytes"), "not this protocol's"),
        ("/signature", json!(format!("0x{}", "11".repeat(65))), unsigned),
        ("/signature", json!("0x11"), "its signature"),
        ("/message/exitCode", json!("zero"), "its message"),
    ];
    for (pointer, value, why) in cases {
        verify_changed(&document, pointer, value, &[]).is_not_valid(why);
    }
    let program = Program::with(&[]);
    for text in ["", "{}", "[1]", "{\"receipt\":{}}", "not json"] {
        let ended = program.run_with_input(&["verify", "-", "--json"], text);
        assert_eq!(ended.code(), 1, "{text}: {}", ended.both());
        let said: Value = serde_json::from_str(&ended.stdout()).expect("JSON");
        assert!(said["valid"] == false && said["problem"].is_string(), "{text}: {said}");
    }
    program.run(&["verify", "absent.json"]).is_refused(64, "absent.json can't be read");

    let mut status = json!({
        "agent_address": node.key.address(), "job_id": "job-1", "status": "completed",
        "output_cid": CID, "timestamp": "2024-01-01T12:00:00.000Z", "seq": 5, "attempt": 1,
        "stage": "completed", "exit_code": 0, "receipt": document,
    });
    assert_eq!(verify(&status, &[]).code(), 0);
    status["output_cid"] = json!("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
    verify(&status, &[]).is_not_valid("it names another output than the status");
}

#[tokio::test]
async fn a_job_without_a_proof_is_told_what_it_waits_for() {
    let node = Node::new(Address::new([3; 20]));
    node.receipt(&["proof", "nobody"]).is_refused(1, "knows no job nobody");
    node.take("taken").await;
    node.receipt(&["show", "taken"]).is_refused(1, "has no receipt (it is accepted)");

    node.run("job-1", 2000, 0).await;
    node.receipt(&["proof", "job-1"]).is_refused(1, "it goes with the next heartbeat to 0x0303");
    let (transaction, root, _) = node.reserve(0).await;
    node.receipt(&["proof", "job-1"]).is_refused(1, &format!("under the root {root}"));
    let listed = node.receipt(&["list", "--json"]).object();
    assert_eq!((text(&listed, "state"), text(&listed, "root")), ("sent", &*root.to_string()));

    // The transaction got into no block: the receipt waits again, and the next beat carries none.
    node.journal.displace(transaction.id, at(3000)).await.expect("displaced");
    node.receipt(&["proof", "job-1"]).is_refused(1, &format!("under the root {root}"));
    node.journal.abandon(transaction.id, at(3500)).await.expect("given up");
    node.receipt(&["proof", "job-1"]).is_refused(1, "it goes with the next heartbeat");
    let call = (Call::Heartbeat, Vec::new());
    let to = (node.domain.contract, 1);
    let beat = node.journal.reserve(node.account(), to, call, at(4000)).await.expect("reserved");
    let mined = json!({"transactionHash": Hash([7; 32]), "blockNumber": "0x1"});
    node.settle(&beat, &mined).await;
    node.receipt(&["proof", "job-1"]).is_refused(1, "most likely that contract takes none");

    // The journal can also be read without its node.
    let Node { dir, journal, .. } = node;
    drop(journal);
    let listed = program_at(dir.path()).run(&["receipt", "list"]);
    assert_eq!((listed.code(), listed.stdout().lines().count()), (0, 1), "{}", listed.stderr());

    let empty = tempfile::tempdir().expect("a folder");
    let ended = program_at(empty.path()).run(&["receipt", "list"]);
    ended.is_refused(1, "there is no journal in");
}
