//! docs/protocol.md is right: its list of reason codes equals the code's, and its examples of a signed
//! job, a signed request, a signed end and a receipt are recomputed with an independent EIP-712 library
//! (`eth-account`) and with foundry's `cast`.

use std::io::Write as _;

use lamda_node::chain::key::recover;
use lamda_node::fleet::seed_view::table;
use lamda_node::fleet::seen::Said;
use lamda_node::fleet::{Event, TraceId, kinds};
use lamda_node::ids::hash::keccak256;
use lamda_node::ids::{Address, Domain, Hash, Signature};
use lamda_node::job::receipt::Signed;
use lamda_node::job::signed::body_hash;
use lamda_node::job::spec::parse;
use lamda_node::job::{Reason, Status};
use serde_json::{Value, json};

use super::support::anvil::cast;
use super::support::oracle::python;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The first fenced block after this line of the document.
fn block(after: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{after}\n")).expect(after);
    let (_, rest) = rest.split_once("```").expect("a fenced block");
    let (_, rest) = rest.split_once('\n').expect("its first line");
    rest.split_once("\n```").expect("its end").0
}

fn json_block(after: &str) -> Value {
    serde_json::from_str(block(after)).expect(after)
}

/// The second column of the table row with this first column.
fn cell(name: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n| {name} | `")).expect(name);
    rest.split_once('`').expect("a closed code span").0
}

fn address(name: &str) -> Address {
    cell(name).parse().expect(name)
}

fn hash(name: &str) -> Hash {
    cell(name).parse().expect(name)
}

fn domain() -> Domain {
    let chain_id = cell("`chainId`").parse().expect("a number");
    Domain { chain_id, contract: address("`verifyingContract`") }
}

fn signer(digest: Hash, signature: Signature) -> Address {
    recover(&digest.0, &signature.0).expect("a signature")
}

fn signature(of: &Value) -> Signature {
    serde_json::from_value(of["signature"].clone()).expect("a signature")
}

fn oracle(args: &[&str], document: &Value) -> String {
    python("typed_data.py", args, &document.to_string())
}

/// A typed-data document of one flat struct, as other libraries read it.
fn typed(kind: &str, members: &[(&str, &str)], message: &Value) -> Value {
    let types = |members: &[(&str, &str)]| {
        members.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect::<Value>()
    };
    let mut document = json!({
        "types": {"EIP712Domain": types(&[
            ("name", "string"), ("version", "string"),
            ("chainId", "uint256"), ("verifyingContract", "address"),
        ])},
        "primaryType": kind,
        "domain": {
            "name": "LamdaNode", "version": "1",
            "chainId": domain().chain_id, "verifyingContract": domain().contract,
        },
        "message": message,
    });
    document["types"][kind] = types(members);
    document
}

#[test]
fn the_documented_reason_codes_are_the_ones_in_the_code() {
    let (_, list) = DOCUMENT.split_once("\n### Reason codes\n").expect("the section");
    let list = list.split("\n#").next().expect("its text");
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<(&str, &str)> = rows
        .map(|row| {
            let (code, rest) = row.split_once("` | ").expect(row);
            (code, rest.split(" | ").next().expect(row))
        })
        .collect();
    let known: Vec<_> =
        Reason::ALL.iter().map(|reason| (reason.code(), reason.meaning())).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_documented_events_and_names_in_redis_are_the_ones_in_the_code() {
    for kind in kinds::ALL {
        let (of, what, level) = (kind.component, kind.event_type, kind.level.as_str());
        let row = format!("| `{of}` | `{what}` | `{level}` | {} |\n", kind.says);
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    for row in table::ROWS {
        assert!(DOCUMENT.contains(&format!("\n| `{}` | ", row.name)), "{}", row.name);
    }
    let example = json_block("### Events");
    let read = Event::parse(example.to_string().as_bytes()).expect("an event");
    let job = read.job_id.expect("a job");
    assert_eq!(read.trace_id, Some(TraceId::of_job(&job)));
}

#[test]
fn the_documented_job_is_signed_as_described() {
    let body = block("### A signed job");
    let parsed = parse(body.as_bytes()).expect("a job");
    let canonical = block("Its canonical form without `signature`, one line of UTF-8:");
    assert_eq!(keccak256(canonical.as_bytes()), parsed.spec_hash);
    assert_eq!(hash("`specHash`"), parsed.spec_hash);

    let digest = domain().job_digest(cell("`target`"), parsed.spec_hash);
    assert_eq!(hash("job digest"), digest);
    let signature = parsed.spec.signature.expect("a signature");
    assert_eq!(Some(signer(digest, signature)), parsed.spec.requester);
    assert_eq!(address("requester"), signer(digest, signature));

    let mut unsigned: Value = serde_json::from_str(body).expect("JSON");
    unsigned.as_object_mut().expect("an object").remove("signature");
    assert_eq!(oracle(&["canonical"], &unsigned), canonical);
    let document = typed(
        "Job",
        &[("target", "string"), ("specHash", "bytes32")],
        &json!({"target": cell("`target`"), "specHash": parsed.spec_hash}),
    );
    assert_eq!(oracle(&["digest"], &document), digest.to_string());
    assert_eq!(oracle(&["signer", &signature.to_string()], &document), cell("requester"));
}

#[test]
fn the_documented_control_request_is_signed_as_described() {
    let request = json_block("### A signed request");
    let text = |key: &str| request[key].as_str().expect("a text");
    let issued_at_ms = request["issued_at_ms"].as_u64().expect("a number");
    let agent = address("node");
    let digest = domain().control_digest(text("action"), text("job_id"), agent, issued_at_ms);
    assert_eq!(hash("control digest"), digest);
    assert_eq!(signer(digest, signature(&request)), address("requester"));

    let document = typed(
        "Control",
        &[
            ("action", "string"),
            ("jobId", "string"),
            ("agent", "address"),
            ("issuedAtMs", "uint64"),
        ],
        &json!({
            "action": text("action"), "jobId": text("job_id"),
            "agent": agent, "issuedAtMs": issued_at_ms,
        }),
    );
    assert_eq!(oracle(&["digest"], &document), digest.to_string());
    assert_eq!(oracle(&["signer", text("signature")], &document), cell("requester"));
}

#[test]
fn the_documented_observation_is_signed_as_described() {
    let body = block("### What a watcher saw").as_bytes();
    let said = Said::parse(body).expect("an observation");
    let mut document = typed(
        "Observation",
        &[("watcher", "address"), ("program", "string"), ("at", "uint64"), ("bodyHash", "bytes32")],
        &json!({
            "watcher": address("node"), "program": said.program, "at": said.at.unix_ms(),
            "bodyHash": keccak256(body),
        }),
    );
    document["domain"]["chainId"] = json!(0);
    document["domain"]["verifyingContract"] = json!(Address::new([0; 20]));
    assert_eq!(oracle(&["digest"], &document), said.digest(body).to_string());
}

#[test]
fn the_documented_end_is_the_nodes_for_us_and_for_eth_account() {
    let text = block("### A signed end");
    let (status, body) = Status::read(text.as_bytes()).expect("a status");
    assert_eq!(status.signed_for.map(Domain::from), Some(domain()));
    let mut unsigned = body.clone();
    unsigned.as_object_mut().expect("an object").remove("signature");
    let canonical = block("Its canonical form without `signature`, in one line:");
    assert_eq!(oracle(&["canonical"], &unsigned), canonical);
    let hash_of_body = body_hash(body.as_object().expect("an object"));
    assert_eq!(hash_of_body, Some(keccak256(canonical.as_bytes())));
    assert_eq!(hash_of_body, Some(hash("`bodyHash`")));

    let digest = status.digest(&body).expect("a digest");
    assert_eq!(hash("status digest"), digest);
    let signature = status.signature.expect("a signature");
    assert_eq!(signer(digest, signature), address("node"));
    let document = typed(
        "Status",
        &[("jobId", "string"), ("node", "address"), ("seq", "uint64"), ("bodyHash", "bytes32")],
        &json!({
            "jobId": status.job_id, "node": status.agent_address, "seq": status.seq,
            "bodyHash": hash_of_body,
        }),
    );
    assert_eq!(oracle(&["digest"], &document), digest.to_string());
    assert_eq!(oracle(&["signer", &signature.to_string()], &document), cell("node"));
}

#[test]
fn the_documented_receipt_is_the_nodes_for_us_for_eth_account_and_for_cast() {
    let document = json_block("### A receipt");
    let signed = Signed::from_json(&document).expect("a signed receipt");
    let digest = signed.receipt.digest(&signed.domain);
    assert_eq!(hash("receipt digest"), digest);
    assert_eq!(signed.domain, domain());
    assert_eq!(signed.receipt.spec_hash, hash("`specHash`"));
    assert_eq!(signer(digest, signed.signature), signed.receipt.node);
    assert_eq!(signed.receipt.node, address("node"));

    let mut typed_data = document.clone();
    typed_data.as_object_mut().expect("an object").remove("signature");
    assert_eq!(oracle(&["digest"], &typed_data), digest.to_string());
    let signature = signed.signature.to_string();
    assert_eq!(oracle(&["signer", &signature], &typed_data), cell("node"));

    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(typed_data.to_string().as_bytes()).expect("it is written");
    let path = file.path().to_str().expect("UTF-8");
    let said = cast(&[
        "wallet",
        "verify",
        "--address",
        cell("node"),
        "--data",
        "--from-file",
        path,
        &signature,
    ]);
    assert!(said.contains("succeeded"), "{said}");
}
