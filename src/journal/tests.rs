//! Whole lives in a journal: what is left of a job when it is done, packed, and long done.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::events::Happened;
use super::packed::unpack;
use super::*;
use crate::chain::key::Key;
use crate::clock::Timestamp;
use crate::job::phase::{
    Asked, Event, Fault, Phase, PinnedImage, Retry, Rules, RunExit, Sealed, Transition,
};
use crate::job::receipt::{Facts, Receipt, Signed};
use crate::job::spec::{Refused, parse};
use crate::job::{Cid, Domain, Hash, Job, JobId, Reason, Signature, Status};
use crate::node::{Address, GpuUuid};

const NODE: Address = Address::new([0x5a; 20]);
const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
const MONTH: Duration = Duration::from_hours(30 * 24);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_790_000_000_000 + ms)
}

fn rules() -> Rules {
    let hour = Duration::from_hours(1);
    Rules { timeout_max: hour, fetch_give_up: hour, upload_give_up: hour }
}

/// A job as requesters send them; `more`: further keys.
fn asked(id: &str, more: &str) -> (Transition, Vec<u8>) {
    let body = format!(
        r#"{{"job_id":"{id}","image_name":"registry.example/team/train:1.4.2","input_file_cid":"{CID}",
            "command":["python","train.py","--epochs","3"],"env":{{"EPOCHS":"3","SEED":"17"}},
            "gpus":1,"timeout_s":3600{more}}}"#
    );
    let parsed = parse(body.as_bytes()).unwrap();
    let target = format!("dispatch.{NODE}");
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    (Job::accept(asked, NODE, 0, at(0)), body.into_bytes())
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

/// What a digest, an id or a CID of this job looks like: no two jobs share one.
fn hex(of: &str, bytes: usize) -> String {
    let mut text = String::new();
    for round in 0..bytes.div_ceil(32) {
        text.push_str(&crate::job::eip712::keccak256(format!("{of}/{round}").as_bytes()).to_string()[2..]);
    }
    text[..2 * bytes].to_owned()
}

fn sealed(cid: Cid) -> Sealed {
    Sealed { path: "output/output".to_owned(), cid, bytes: 48_121, directory: false }
}

/// The CID of a block of this name's own: version 1, raw, SHA-256.
fn cid(of: &str) -> Cid {
    let digest = crate::job::eip712::keccak256(of.as_bytes()).0;
    let bytes = [&[1, 0x55, 0x12, 0x20], digest.as_slice()].concat();
    let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase();
    format!("b{text}").parse().unwrap()
}

fn receipt_of(job: &Job, key: &Key) -> serde_json::Value {
    let Phase::Published { ended, output, .. } = &job.phase else { panic!("not published") };
    let facts = Facts {
        image_digest: &ended.run.image.digest,
        gpus: &ended.run.gpus,
        input: job.spec.input.as_ref(),
        output: output.as_ref(),
        exit_code: 0,
        ran: (ended.exit.started_at, ended.exit.finished_at),
    };
    let receipt = Receipt::new(job.id().clone(), job.node, job.spec_hash, facts);
    let domain = Domain { chain_id: 204, contract: Address::new([0x33; 20]) };
    let signature = Signature(key.sign_digest(&receipt.digest(&domain).0));
    Signed { domain, receipt, signature }.to_json()
}

/// Takes a job from its message to its end, as a GPU's job with input, output and log goes.
async fn live(journal: &Journal, name: &str, more: &str, key: &Key) -> Job {
    let (taken, body) = asked(name, more);
    journal.admit(&taken, body, Some("an acknowledgement's subject".to_owned())).await.unwrap();
    let digest = format!("sha256:{}", hex(name, 32));
    let cid = |what: &str| cid(&format!("{what} of {name}"));
    let exit = RunExit { code: Some(0), oom: false, started_at: at(900), finished_at: at(61_234) };
    let container = hex(&format!("container of {name}"), 32);
    let mut job = taken.job;
    let mut ms = 100;
    let events = [
        Event::Pulled { image: PinnedImage { id: digest.clone(), digest } },
        Event::Fetched,
        Event::Reserved { gpus: vec![GpuUuid::new("GPU-7f3c2a10-55ab-4d0e-9c31-0a1b2c3d4e5f").unwrap()] },
        Event::Created { container: container.clone() },
        Event::Started { container, at: at(900) },
        Event::Exited { exit, by_itself: Some(true) },
        Event::Collected {
            output: Ok(Some(sealed(cid("output")))),
            log: Some(sealed(cid("log"))),
        },
        Event::Published { output: Some(cid("output")), log: Some(cid("log")) },
    ];
    for event in events {
        ms += 137;
        job = step(journal, &job, event, at(ms)).await;
    }
    let receipt = receipt_of(&job, key);
    for event in [Event::Attested { receipt }, Event::Removed, Event::Acked] {
        ms += 41;
        job = step(journal, &job, event, at(ms)).await;
    }
    job
}

async fn step(journal: &Journal, job: &Job, event: Event, at: Timestamp) -> Job {
    let moved = job.apply(event.clone(), at, &rules()).unwrap();
    journal.record(&event, &moved, at).await.unwrap();
    moved.job
}

/// Everything that waits is published; what it was, by job and number.
async fn say_all(journal: &Journal) -> Vec<Outgoing> {
    let waiting = journal.unsent(1000).await.unwrap();
    journal.sent(waiting.iter().map(|status| status.row).collect()).await.unwrap();
    waiting
}

async fn pack_all(journal: &Journal) {
    while journal.pack().await.unwrap() > 0 {}
}

#[tokio::test]
async fn print_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    live(&journal, "bench-000001", "", &Key::random()).await;
    say_all(&journal).await;
    pack_all(&journal).await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    let story: Vec<u8> = db.query_row("SELECT story FROM done", [], |row| row.get(0)).unwrap();
    let receipt: Vec<u8> = db.query_row("SELECT packed FROM receipts", [], |row| row.get(0)).unwrap();
    println!("{} {}", story.len(), receipt.len());
    println!("{}", String::from_utf8_lossy(&unpack(&story).unwrap()));
    println!("{}", String::from_utf8_lossy(&unpack(&receipt).unwrap()));
}
