//! Receipts and ends that a node signed, checked with this program, with `cast`, with Python's
//! `eth-account`, and against a real chain. The fixture writes the journal's rows as the agent does.

mod forged;
mod offline;
mod proofs;

use std::path::Path;
use std::time::Duration;

use lamda_node::chain::Key;
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
use serde_json::Value;
use tempfile::TempDir;

use crate::support::anvil::{Anvil, CHAIN_ID};
use crate::support::program::{Ended, Program};
use crate::support::speaker::CID;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

/// A node's data folder and its journal, which stays open for writing as in a running node.
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

    /// Accepts a job.
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
        let exit = RunExit {
            code: Some(code),
            oom: false,
            hint: None,
            started_at: ran.0,
            finished_at: ran.1,
            usage: None,
        };
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
            Event::Attested { receipt: receipt.to_json(), usage: None },
        ]
    }

    fn sign(&self, receipt: Receipt) -> Signed {
        let digest = receipt.digest(&self.domain);
        let signature = Signature(self.key.sign_digest(&digest.0));
        Signed { domain: self.domain, receipt, signature }
    }

    /// Reserves a heartbeat with the waiting receipts; returns it, its root, and the numbers of completed
    /// and failed jobs.
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
        program_at(self.dir.path()).run(&[&["receipt"], args].concat())
    }
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().expect(key)
}

/// The program on the journal in this folder, without other settings.
fn program_at(data_dir: &Path) -> Program {
    Program::with(&[("DATA_DIR", &data_dir.display().to_string())])
}

fn verify(document: &Value, args: &[&str]) -> Ended {
    Program::with(&[]).run_with_input(&[&["verify", "-"], args].concat(), &document.to_string())
}

/// [`verify`] on a copy of the document with one value changed.
fn verify_changed(document: &Value, pointer: &str, to: Value, args: &[&str]) -> Ended {
    let mut changed = document.clone();
    let value = changed.pointer_mut(pointer).expect(pointer);
    assert_ne!(*value, to, "{pointer}");
    *value = to;
    verify(&changed, args)
}
