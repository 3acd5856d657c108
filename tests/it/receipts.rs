//! What a node signed, checked by whoever holds it: with this program, with `cast`, with Python's
//! `eth-account`, and against a real chain. The rows come into the journal as the agent brings
//! them there.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lamda_node::chain::{Key, Reader};
use lamda_node::clock::Timestamp;
use lamda_node::ids::{Address, Domain, Hash, Signature};
use lamda_node::job::phase::{
    Asked, Event, Fault, PinnedImage, Rules, RunExit, Sealed, Transition,
};
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::job::spec::parse;
use lamda_node::job::{Job, Reason, Receipt};
use lamda_node::journal::{Journal, Leaf};
use lamda_node::reputation::tx::{Account, Form, Outcome, Transaction};
use lamda_node::reputation::{Call, Fees, merkle};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::anvil::{Anvil, CHAIN_ID, cast};
use super::support::oracle::python;
use super::support::tools::free_port;
use super::support::world::PROGRAM;

const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

/// A node's data folder with its journal, which stays open for writing as a running node's does.
struct Node {
    dir: TempDir,
    journal: Journal,
    key: Key,
    domain: Domain,
}

impl Node {
    fn new(contract: Address) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(dir.path()).expect("a journal");
        let domain = Domain { chain_id: CHAIN_ID, contract };
        Self { dir, journal, key: Anvil::key(1), domain }
    }

    fn account(&self) -> Account {
        Account { chain_id: CHAIN_ID, address: self.key.address() }
    }

    /// Takes a job.
    async fn take(&self, id: &str) -> Transition {
        let body = format!(r#"{{"job_id":"{id}","image":"img"}}"#);
        let parsed = parse(body.as_bytes()).expect("a job");
        let (spec, spec_hash) = (parsed.spec, parsed.spec_hash);
        let asked = Asked { spec, spec_hash, target: format!("dispatch.{}", self.key.address()) };
        let taken = Job::accept(asked, self.key.address(), 0, at(5));
        self.journal.admit(&taken, body.into_bytes(), None).await.expect("taken");
        taken
    }

    /// Runs a job to its end; its container ended at `finished_ms`.
    async fn run(&self, id: &str, finished_ms: u64, code: i32) {
        let span = Duration::from_mins(1);
        let rules = Rules {
            timeout_max: span,
            fetch_give_up: span,
            upload_give_up: span,
            result_keep: span,
        };
        let mut moved = self.take(id).await;
        for event in self.life(&moved.job, finished_ms, code) {
            moved = moved.job.apply(event.clone(), at(finished_ms), &rules).expect("it belongs");
            let recorded = self.journal.record(&event, &moved, at(finished_ms)).await;
            recorded.expect("recorded");
        }
    }

    fn life(&self, job: &Job, finished_ms: u64, code: i32) -> [Event; 9] {
        let ran = (at(finished_ms - 1), at(finished_ms));
        let output = (code == 0).then(|| CID.parse().expect("a CID"));
        let sealed = output.map(|cid| {
            Ok(Some(Sealed {
                path: "1/output".to_owned(),
                cid,
                bytes: 1,
                directory: true,
                seen_as: String::new(),
                notes: Vec::new(),
            }))
        });
        let failed = Fault::new(Reason::NonzeroExit, "exit code");
        let exit = RunExit { code: Some(code), oom: false, started_at: ran.0, finished_at: ran.1 };
        let image = PinnedImage {
            id: "sha256:1".to_owned(),
            digest: "sha256:2".to_owned(),
            unconfirmed: false,
        };
        let receipt = self.sign(Receipt::new(
            job.id().clone(),
            self.key.address(),
            job.spec_hash,
            Facts {
                image_digest: "sha256:2",
                gpus: &[],
                input: None,
                output: output.as_ref(),
                exit_code: code,
                ran,
            },
        ));
        [
            Event::Pulled { image },
            Event::Fetched,
            Event::Reserved { gpus: Vec::new() },
            Event::Created { container: "c".to_owned() },
            Event::Started { container: "c".to_owned(), at: ran.0 },
            Event::Exited { exit, by_itself: None },
            Event::Collected { output: sealed.unwrap_or(Err(failed)), log: None },
            Event::Published { output, log: None },
            Event::Attested { receipt: receipt.to_json() },
        ]
    }

    fn sign(&self, receipt: Receipt) -> Signed {
        let digest = receipt.digest(&self.domain);
        let signature = Signature(self.key.sign_digest(&digest.0));
        Signed { domain: self.domain, receipt, signature }
    }

    /// Reserves a heartbeat with the receipts that wait, and says what it calls.
    async fn reserve(&self, nonce: u64) -> (Transaction, Hash, (u32, u32)) {
        self.journal.account(self.account(), 0).await.expect("an account");
        let leaves = self.journal.waiting_receipts(self.domain, 100).await.expect("receipts");
        let digests: Vec<Hash> = leaves.iter().map(|leaf: &Leaf| leaf.digest).collect();
        let root = merkle::root(&digests).expect("some wait");
        let count = |completed| leaves.iter().filter(|leaf| leaf.completed == completed).count();
        let count = |completed| u32::try_from(count(completed)).expect("a few");
        let (completed, failed) = (count(true), count(false));
        let call = Call::HeartbeatWithReceipts { root, completed, failed };
        let to = (self.domain.contract, nonce);
        let reserved = self.journal.reserve(self.account(), to, (call, leaves), at(1000)).await;
        (reserved.expect("reserved"), root, (completed, failed))
    }

    async fn settle(&self, transaction: &Transaction, mined: &Value) {
        let hash: Hash = text(mined, "transactionHash").parse().expect("a hash");
        let block = text(mined, "blockNumber");
        let block = u64::from_str_radix(block.trim_start_matches("0x"), 16).expect("a number");
        let fees = Fees::Legacy { gas_price: 1 };
        let form = Form { hash, fees, gas_limit: 1, signed: at(1), raw: vec![1] };
        self.journal.signed(transaction.id, &form).await.expect("signed");
        let outcome = Outcome { hash, block, success: true, gas_used: 1, fee_wei: 1 };
        let settled =
            self.journal.record_mined(self.account(), transaction, outcome, at(2000)).await;
        settled.expect("settled");
    }

    fn receipt(&self, args: &[&str]) -> Ended {
        program(&[&["receipt"], args].concat(), "", Some(self.dir.path()))
    }
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().expect(key)
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).expect("JSON")
    }

    /// It was checked, and does not hold for this reason.
    #[track_caller]
    fn is_not_valid(&self, why: &str) {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, 1, "{said}");
        assert!(self.stdout.starts_with("NOT VALID: ") && self.stdout.contains(why), "{said}");
        assert_eq!(self.stdout.lines().count(), 1, "{said}");
    }

    #[track_caller]
    fn is_refused(&self, code: i32, why: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(why), "{}", self.stderr);
    }
}

/// Runs the program with no settings but where the journal is.
fn program(args: &[&str], input: &str, data_dir: Option<&Path>) -> Ended {
    let empty = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(empty.path()).env_clear().env("HOME", empty.path());
    command.envs(data_dir.map(|dir| ("DATA_DIR", dir)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input is piped");
    // Who needs no input may have ended already.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code().expect("no signal ended it"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn verify(document: &Value, args: &[&str]) -> Ended {
    program(&[&["verify", "-"], args].concat(), &document.to_string(), None)
}

/// As [`verify`], of a copy of the document with one value changed.
fn verify_changed(document: &Value, pointer: &str, to: Value, args: &[&str]) -> Ended {
    let mut changed = document.clone();
    let value = changed.pointer_mut(pointer).expect(pointer);
    assert_ne!(*value, to, "{pointer}");
    *value = to;
    verify(&changed, args)
}

/// Puts the root on the chain as the node does; the transaction's receipt.
fn commit(anvil: &Anvil, contract: Address, root: Hash, (completed, failed): (u32, u32)) -> Value {
    let (to, root) = (contract.to_string(), root.to_string());
    let call = "sendHeartbeatWithReceipts(bytes32,uint32,uint32)";
    let (completed, failed) = (completed.to_string(), failed.to_string());
    let key = Anvil::key_hex(1);
    let args = ["send", &to, call, &root, &completed, &failed, "--private-key", key, "--json"];
    serde_json::from_str(&anvil.cast(&args)).expect("JSON")
}

fn register(anvil: &Anvil, contract: Address) {
    let (to, call) = (contract.to_string(), "registerNode(string,uint256)");
    anvil.cast(&["send", &to, call, "GPU", "1", "--private-key", Anvil::key_hex(1)]);
}

#[tokio::test]
async fn a_receipt_is_checked_offline_in_every_form_that_it_travels_in() {
    let node = Node::new(Address::new([3; 20]));
    node.run("job-1", 2000, 0).await;
    let statuses = node.journal.unsent(100).await.expect("statuses");
    let status = statuses.last().expect("a terminal status").body.clone();
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    let shown = node.receipt(&["show", "job-1"]).json();
    assert_eq!(shown, status["receipt"], "what is shown is what was published");

    for document in [&shown, &status, &json!({"event": "receipt", "receipt": shown})] {
        let found = verify(document, &["--json"]).json();
        assert_eq!(found["valid"], true);
        assert_eq!(text(&found, "signer"), node.key.address().to_string());
        assert_eq!((text(&found, "job_id"), &found["chain_id"]), ("job-1", &json!(CHAIN_ID)));
    }
    let lines: String = statuses
        .iter()
        .map(|row| String::from_utf8(row.body.clone()).expect("UTF-8") + "\n")
        .collect();
    let watched = program(&["verify", "-"], &lines, None);
    assert_eq!(watched.code, 0, "{}", watched.stderr);
    assert!(watched.stdout.starts_with("valid: ") && watched.stdout.contains(CID));

    let file = node.dir.path().join("receipt.json");
    std::fs::write(&file, shown.to_string()).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let mine = node.domain.contract.to_string();
    assert_eq!(program(&["verify", file, "--contract", &mine], "", None).code, 0);
    let other = Address::new([4; 20]).to_string();
    program(&["verify", file, "--contract", &other], "", None).is_not_valid(&other);
    let asked = program(&["verify", file, "--rpc", "http://127.0.0.1:1"], "", None);
    asked.is_refused(64, "lamda-node receipt proof job-1");
}

#[tokio::test]
async fn a_receipt_is_the_nodes_for_eth_account_and_for_cast() {
    let node = Node::new(Address::new([3; 20]));
    node.run("job-1", 2000, 1).await;
    let mut document = node.receipt(&["show", "job-1"]).json();
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
    let document = node.receipt(&["show", "job-1"]).json();
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
    for text in ["", "{}", "[1]", "{\"receipt\":{}}", "not json"] {
        let ended = program(&["verify", "-", "--json"], text, None);
        assert_eq!(ended.code, 1, "{text}: {}{}", ended.stdout, ended.stderr);
        let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert!(said["valid"] == false && said["problem"].is_string(), "{text}: {said}");
    }
    program(&["verify", "absent.json"], "", None).is_refused(64, "absent.json can't be read");

    let mut status = json!({
        "agent_address": node.key.address(), "job_id": "job-1", "status": "completed",
        "output_cid": CID, "timestamp": "2024-01-01T12:00:00.000Z", "seq": 5, "attempt": 1,
        "stage": "completed", "exit_code": 0, "receipt": document,
    });
    assert_eq!(verify(&status, &[]).code, 0);
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
    let listed = node.receipt(&["list", "--json"]).json();
    assert_eq!((text(&listed, "state"), text(&listed, "root")), ("sent", &*root.to_string()));

    // It never got into a block: the receipt is free again, and then a plain beat goes by.
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

    // With the node gone, the journal is read as it lies there.
    let Node { dir, journal, .. } = node;
    drop(journal);
    let listed = program(&["receipt", "list"], "", Some(dir.path()));
    assert_eq!((listed.code, listed.stdout.lines().count()), (0, 1), "{}", listed.stderr);

    let empty = tempfile::tempdir().expect("a folder");
    let ended = program(&["receipt", "list"], "", Some(empty.path()));
    ended.is_refused(1, "there is no journal in");
}

#[tokio::test]
async fn a_receipt_is_proved_to_be_under_a_root_on_the_chain() {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    register(&anvil, contract);
    let node = Node::new(contract);
    // Not in the order of their ends nor its mirror, and two that ended together.
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
        let proof = node.receipt(&["proof", id]).json();
        assert_eq!(python("merkle.py", &["verify"], &proof.to_string()), "proved", "{id}");
        assert_eq!(verify(&proof, &[]).code, 0);
        let found = verify(&proof, &["--json", "--rpc", &anvil.rpc_url]).json();
        assert_eq!(text(&found, "job_id"), id);
        let committed = &found["committed"];
        assert_eq!(committed["tx_hash"], mined["transactionHash"]);
        assert_eq!((&committed["completed"], &committed["failed"]), (&json!(3), &json!(2)));
    }
    node.receipt(&["proof", "next"]).is_refused(1, "it goes with the next heartbeat");
    let listed = node.receipt(&["list"]).stdout;
    let order: Vec<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(order, ["next", "last", "late", "a", "b", "early"], "{listed}");
    assert_eq!(listed.matches("committed in block ").count(), 5, "{listed}");
    // It was no hindrance to the node that its journal was read.
    node.run("after", 11_000, 0).await;

    let file = node.dir.path().join("proof.json");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(node.receipt(&["proof", "a", "--out", file]).code, 0);
    let told = program(&["verify", file, "--rpc", &anvil.rpc_url], "", None);
    assert_eq!(told.code, 0, "{}{}", told.stdout, told.stderr);
    let block_time = anvil.cast(&["block", "latest", "--field", "timestamp"]);
    let at = at(block_time.parse::<u64>().expect("seconds") * 1000).to_string();
    assert!(told.stdout.contains(&format!("committed at {at}")), "{}", told.stdout);
}

#[test]
fn the_vectors_of_the_tree_are_what_another_implementation_makes() {
    let vectors = include_str!("../../contracts/test/vectors/receipts.json");
    assert_eq!(python("merkle.py", &["vectors"], ""), vectors);
}

#[tokio::test]
async fn a_root_is_found_in_its_block_without_its_transaction() {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    register(&anvil, contract);
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
    let contract = anvil.deploy().await;
    register(&anvil, contract);
    let node = Node::new(contract);
    for (id, finished_ms) in [("a", 2000), ("b", 3000), ("c", 4000)] {
        node.run(id, finished_ms, 0).await;
    }
    let (transaction, root, counts) = node.reserve(0).await;
    let mined = commit(&anvil, contract, root, counts);
    node.settle(&transaction, &mined).await;
    let proof = node.receipt(&["proof", "b"]).json();
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
    // What only the chain can tell.
    let registration = anvil.cast(&["block", "2", "--json"]);
    let registration: Value = serde_json::from_str(&registration).expect("JSON");
    let registration = registration["transactions"][0].clone();
    verify_changed(&proof, "/tx_hash", registration, &rpc).is_not_valid("did not commit");
    verify_changed(&proof, "/tx_hash", other, &rpc).is_not_valid("the chain knows no transaction");
    verify_changed(&proof, "/block", json!(1), &rpc).is_not_valid("is in block 3, not in 1");

    let empty = Anvil::start();
    verify(&proof, &["--rpc", &empty.rpc_url]).is_not_valid("there is no contract at");
    // What could not be asked is not called wrong.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    verify(&proof, &["--rpc", &nobody]).is_refused(1, "the chain could not be asked");
    verify(&proof, &["--rpc", "nobody"]).is_refused(64, "--rpc: it is not an http");
}

#[tokio::test]
async fn a_root_of_another_node_or_chain_or_over_fewer_jobs_proves_nothing() {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    register(&anvil, contract);
    let node = Node::new(contract);
    for (id, finished_ms) in [("a", 2000), ("b", 3000), ("c", 4000)] {
        node.run(id, finished_ms, 0).await;
    }
    let (transaction, root, _) = node.reserve(0).await;
    let fewer = commit(&anvil, contract, root, (1, 0));
    node.settle(&transaction, &fewer).await;
    let proof = node.receipt(&["proof", "a"]).json();
    let ended = verify(&proof, &["--rpc", &anvil.rpc_url]);
    ended.is_not_valid("the proof has 2 steps, but the root counts 1 jobs");

    // The right root, on a chain that the receipt was not signed for.
    let mut elsewhere = Node::new(contract);
    elsewhere.domain.chain_id = 1337;
    elsewhere.run("a", 2000, 0).await;
    let (transaction, ..) = elsewhere.reserve(0).await;
    elsewhere.settle(&transaction, &fewer).await;
    let proof = elsewhere.receipt(&["proof", "a"]).json();
    let ended = verify(&proof, &["--rpc", &anvil.rpc_url]);
    ended.is_not_valid("signed for chain 1337, and the endpoint is on chain 31337");

    // The right root by the right node, in an event of another contract.
    let copy = anvil.deploy().await;
    register(&anvil, copy);
    let node = Node::new(contract);
    node.run("a", 2000, 0).await;
    let (transaction, root, counts) = node.reserve(0).await;
    node.settle(&transaction, &commit(&anvil, copy, root, counts)).await;
    let proof = node.receipt(&["proof", "a"]).json();
    verify(&proof, &["--rpc", &anvil.rpc_url]).is_not_valid("did not commit 0x7099");

    // A root on the chain, but another node put it there.
    let mut stolen = Node::new(contract);
    stolen.key = Anvil::key(2);
    stolen.run("a", 2000, 0).await;
    let (transaction, root, counts) = stolen.reserve(0).await;
    let mined = commit(&anvil, contract, root, counts);
    stolen.settle(&transaction, &mined).await;
    let proof = stolen.receipt(&["proof", "a"]).json();
    verify(&proof, &["--rpc", &anvil.rpc_url]).is_not_valid("did not commit 0x3C44");
}
