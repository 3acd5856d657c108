//! Whole job lives in a journal: what is left when a job is done, packed, and forgotten.

mod simulated;
mod usage;

use std::path::Path;
use std::time::Duration;

use crate::sql::{Connection, params};

use super::open::FILE;
use super::*;
use crate::clock::Timestamp;
use crate::ids::hash::keccak256;
use crate::ids::{Address, Cid, Domain, Hash, JobId, Signature};
use crate::job::phase::{
    Asked, Event, Fault, Phase, PinnedImage, Retry, Rules, RunExit, Sealed, Transition,
};
use crate::job::receipt::{Facts, Receipt, Signed};
use crate::job::spec::{Refused, parse};
use crate::job::{Job, Reason, Status};
use crate::node::GpuUuid;

const NODE: Address = Address::new([0x5a; 20]);
const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
const MONTH: Duration = Duration::from_hours(30 * 24);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_790_000_000_000 + ms)
}

fn rules() -> Rules {
    let hour = Duration::from_hours(1);
    Rules { timeout_max: hour, fetch_give_up: hour, upload_give_up: hour, result_keep: hour }
}

/// A job as requesters send them, with further keys `more`.
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

/// A distinct hash for each name, as digests, ids and CIDs of different jobs differ.
fn hex(of: &str, bytes: usize) -> String {
    let mut text = String::new();
    for round in 0..bytes.div_ceil(32) {
        text.push_str(&keccak256(format!("{of}/{round}").as_bytes()).to_string()[2..]);
    }
    text[..2 * bytes].to_owned()
}

fn sealed(cid: Cid) -> Sealed {
    Sealed {
        path: "output/output".to_owned(),
        cid,
        bytes: 48_121,
        directory: false,
        seen_as: String::new(),
        notes: Vec::new(),
    }
}

/// A distinct CID for each name: version 1, raw, SHA-256.
fn cid(of: &str) -> Cid {
    let digest = keccak256(of.as_bytes()).0;
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

/// Stands in for the node's key: signatures as long and as random as real ones.
struct Key(u8);

impl Key {
    fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 65] {
        let mut signature = [self.0; 65];
        signature[..32].copy_from_slice(&keccak256(digest).0);
        let rest = keccak256(&signature[..32]).0;
        signature[32..64].copy_from_slice(&rest);
        signature
    }
}

impl Journal {
    /// Runs a test's own SQL statements.
    pub(crate) async fn carry_out(&self, sql: &'static str) -> Result<(), Error> {
        self.writer.call(false, move |db| Ok(db.execute_batch(sql)?)).await
    }
}

/// Takes a GPU job with input, output and log from its message to its end.
async fn live(journal: &Journal, name: &str, more: &str, key: &Key) -> Job {
    let (taken, body) = asked(name, more);
    journal.admit(&taken, body, Some("an acknowledgement's subject".to_owned())).await.unwrap();
    let digest = format!("sha256:{}", hex(name, 32));
    let cid = |what: &str| cid(&format!("{what} of {name}"));
    let exit = RunExit {
        code: Some(0),
        oom: false,
        hint: None,
        started_at: at(900),
        finished_at: at(61_234),
        usage: None,
    };
    let container = hex(&format!("container of {name}"), 32);
    let mut job = taken.job;
    let mut ms = 100;
    let events = [
        Event::Pulled { image: PinnedImage { id: digest.clone(), digest, unconfirmed: false } },
        Event::Fetched,
        Event::Reserved {
            gpus: vec![GpuUuid::new("GPU-7f3c2a10-55ab-4d0e-9c31-0a1b2c3d4e5f").unwrap()],
        },
        Event::Created { container: container.clone() },
        Event::Started { container, at: at(900) },
        Event::Exited { exit, by_itself: Some(true) },
        Event::Collected { output: Ok(Some(sealed(cid("output")))), log: Some(sealed(cid("log"))) },
        Event::Published { output: Some(cid("output")), log: Some(cid("log")) },
    ];
    for event in events {
        ms += 137;
        job = step(journal, &job, event, at(ms)).await;
    }
    let receipt = receipt_of(&job, key);
    for event in [Event::Attested { receipt, usage: None }, Event::Removed, Event::Acked] {
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

/// Marks all waiting statuses as published and returns them by job and number.
async fn say_all(journal: &Journal) -> Vec<Outgoing> {
    let waiting = journal.unsent(1000).await.unwrap();
    journal.sent(waiting.iter().map(|status| status.row).collect()).await.unwrap();
    waiting
}

async fn pack_all(journal: &Journal) {
    while journal.pack().await.unwrap() > 0 {}
}

#[tokio::test]
async fn a_job_that_is_done_takes_little_room_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let (key, jobs) = (Key(27), 64_i64);
    for number in 0..jobs {
        live(&journal, &format!("bench-{number:06}"), "", &key).await;
    }
    let said = loop {
        let said = say_all(&journal).await;
        if said.iter().any(|status| status.job_id == id("bench-000063") && status.seq == 6) {
            break said;
        }
    };
    let before = Reader::open(dir.path()).unwrap().chronicle(&id("bench-000063")).unwrap().unwrap();
    pack_all(&journal).await;
    let (stories, receipts) = sizes(dir.path());
    assert!(stories / jobs < 900, "{} bytes a job", stories / jobs);
    assert!(receipts / jobs < 500, "{} bytes a receipt", receipts / jobs);

    // The chronicle is unchanged, and the last status is the same byte for byte.
    let mut after =
        Reader::open(dir.path()).unwrap().chronicle(&id("bench-000063")).unwrap().unwrap();
    let (Standing::Taken(was), Standing::Taken(is)) =
        (&before.record.standing, &mut after.record.standing)
    else {
        panic!("{:?}", after.record)
    };
    assert_eq!(is.spec.env.len() + is.spec.command.iter().len(), 0, "what it ran is not kept");
    (is.spec.env, is.spec.command) = (was.spec.env.clone(), was.spec.command.clone());
    assert_eq!(after.said, before.said);
    assert_eq!((after.cards(), after.container()), (before.cards(), before.container()));
    assert_eq!(after.record, before.record);
    assert_eq!(after.events.len(), before.events.len());
    journal.send_again(&id("bench-000063")).await.unwrap();
    assert_eq!(journal.unsent_count().await.unwrap(), 1);
    let again = say_all(&journal).await;
    let first = said.iter().rev().find(|status| status.job_id == id("bench-000063")).unwrap();
    assert_eq!((again.len(), again[0].kind), (1, OutgoingKind::Again));
    assert_eq!((&again[0].body, again[0].seq), (&first.body, first.seq));
    assert_eq!(say_all(&journal).await, []);
    let kept = Reader::open(dir.path()).unwrap().receipt(&id("bench-000063")).unwrap().unwrap();
    let status: Status = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(Some(kept.signed.to_json()), status.receipt);
}

/// The total bytes of all stories and of all receipts.
fn sizes(dir: &Path) -> (i64, i64) {
    let db = Connection::open(dir.join(FILE)).unwrap();
    let sum = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let open = "SELECT count(*) FROM jobs";
    assert_eq!(sum(open) + sum("SELECT count(*) FROM events"), 0, "all are packed");
    (sum("SELECT sum(length(story)) FROM done"), sum("SELECT sum(length(packed)) FROM receipts"))
}

#[tokio::test]
async fn a_job_is_packed_only_when_the_world_was_told_and_its_id_stays_used() {
    let journal = Journal::in_memory().unwrap();
    let key = Key(27);
    let done = live(&journal, "job", "", &key).await;
    assert_eq!(journal.pack().await.unwrap(), 0, "its statuses are still to be sent");
    say_all(&journal).await;
    assert_eq!(journal.pack().await.unwrap(), 1);
    let known = journal.lookup(&id("job")).await.unwrap().unwrap();
    assert_eq!((known.open, known.body_hash, known.unproven_seq), (false, done.spec_hash, None));
    assert_eq!(known.job.map(|job| job.phase), Some(done.phase));
    let (again, body) = asked("job", "");
    assert!(journal.admit(&again, body, None).await.is_err(), "taken twice");
}

#[tokio::test]
async fn a_refusal_is_packed_too_and_gives_its_id_back_where_it_did_not_use_it_up() {
    let journal = Journal::in_memory().unwrap();
    for (name, proven) in [("used", true), ("free", false)] {
        let error = "no".to_owned();
        let refused =
            Refused { id: id(name), body_hash: Hash([7; 32]), reason: Reason::NoGpu, error };
        let status = Status::rejected(NODE, &refused, at(1));
        journal.refuse(&refused, status, proven).await.unwrap();
    }
    say_all(&journal).await;
    pack_all(&journal).await;
    let known = journal.lookup(&id("free")).await.unwrap().unwrap();
    assert_eq!((known.unproven_seq, known.job), (Some(1), None));
    let (_, body) = asked("free", "");
    let parsed = parse(&body).unwrap();
    let owners = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target: "pool.a".into() };
    journal.admit(&Job::accept(owners, NODE, 1, at(2)), body, None).await.unwrap();
    assert_eq!(say_all(&journal).await.iter().map(|it| it.seq).collect::<Vec<_>>(), [2, 3]);
    let (used, body) = asked("used", "");
    assert!(journal.admit(&used, body, None).await.is_err(), "the id is used up");
}

#[tokio::test]
async fn what_is_long_done_goes_a_few_rows_at_a_time_and_a_later_deadline_keeps_the_id_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let key = Key(27);
    live(&journal, "due-later", r#","deadline":"2099-01-01T00:00:00Z""#, &key).await;
    say_all(&journal).await;
    pack_all(&journal).await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    let copies = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 199)
         INSERT INTO done (job_id, body_hash, phase, refused, seq, due_ms, story)
         SELECT 'copy-' || i, body_hash, phase, 0, seq, due_ms, story FROM n, done";
    assert_eq!(db.execute(copies, []).unwrap(), 199);
    let kept = "INSERT INTO kept (job_id, kept, until_ms) VALUES ('copy-7', '{}', 1)";
    db.execute(kept, []).unwrap();
    let now = at(70_000).plus(MONTH);
    let month_and_more = now.plus(Duration::from_mins(1));
    let mut rows = Vec::new();
    loop {
        let forgotten = journal.forget_done(month_and_more, MONTH).await.unwrap();
        rows.push(forgotten.rows);
        if forgotten.next.is_none() {
            break;
        }
    }
    assert_eq!(rows, [vec![16; 12], vec![7]].concat(), "a few at a time");
    assert!(journal.lookup(&id("copy-8")).await.unwrap().is_none());
    let lookup = journal.lookup(&id("copy-7")).await.unwrap();
    assert!(lookup.is_some_and(|known| !known.open), "its output is kept under its id");
    journal.forget_kept(&id("copy-7")).await.unwrap();
    assert_eq!(journal.forget_done(month_and_more, MONTH).await.unwrap().rows, 1);
    let known = journal.lookup(&id("due-later")).await.unwrap().expect("until its deadline");
    assert_eq!((known.job, known.open), (None, false));
    journal.send_again(&id("due-later")).await.unwrap();
    assert_eq!(say_all(&journal).await, [], "what it said is gone");
    let chronicle = Reader::open(dir.path()).unwrap().chronicle(&id("due-later")).unwrap().unwrap();
    let until = "2099-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(chronicle.record.standing, Standing::IdOnly { phase: "settled".into(), until });
    assert_eq!(journal.forget_done(month_and_more, MONTH).await.unwrap().rows, 0);
    let after = until.plus(Duration::from_secs(1));
    assert_eq!(journal.forget_done(after, MONTH).await.unwrap().rows, 1);
    assert!(journal.lookup(&id("due-later")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_step_that_fails_for_weeks_is_one_row_with_its_first_moment_and_its_last() {
    let journal = Journal::in_memory().unwrap();
    let (taken, body) = asked("job", "");
    journal.admit(&taken, body, None).await.unwrap();
    let failed = |reason, text: String| Event::Failed {
        fault: Fault::new(reason, text),
        retry: Retry::Always,
    };
    let mut job = taken.job;
    for n in 0..500_u64 {
        job = step(&journal, &job, failed(Reason::NodeFault, format!("try {n}")), at(n)).await;
    }
    job = step(&journal, &job, failed(Reason::ImagePullFailed, "other".into()), at(600)).await;
    let events = journal.history(job.id(), 10).await.unwrap().events;
    let told: Vec<_> = events.iter().map(|one| (one.at, one.until, one.times)).collect();
    assert_eq!(told, [(at(0), at(499), 500), (at(600), at(600), 1)]);
    assert_eq!(events[0].event, failed(Reason::NodeFault, "try 499".into()), "the last's words");
}

/// A claim that keeps failing; each try reserves a GPU first.
#[tokio::test]
async fn a_claim_that_fails_for_weeks_adds_no_row_a_try_either() {
    let journal = Journal::in_memory().unwrap();
    let (_, body) = asked("job", "");
    let parsed = parse(&body).unwrap();
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target: "pool.a".into() };
    let taken = Job::accept(asked, NODE, 0, at(0));
    journal.admit(&taken, body, None).await.unwrap();
    let image = PinnedImage { id: "i".to_owned(), digest: "d".to_owned(), unconfirmed: false };
    let mut job = step(&journal, &taken.job, Event::Pulled { image }, at(1)).await;
    job = step(&journal, &job, Event::Fetched, at(2)).await;
    for n in 0..50 {
        job = step(&journal, &job, Event::Reserved { gpus: Vec::new() }, at(10 + n)).await;
        let fault = Fault::new(Reason::NodeFault, "nobody answers");
        job = step(&journal, &job, Event::Failed { fault, retry: Retry::Always }, at(10 + n)).await;
    }
    let events = journal.history(job.id(), 100).await.unwrap().events;
    let told: Vec<_> = events.iter().map(|one| (one.event.name(), one.times)).collect();
    assert_eq!(told, [("pulled", 1), ("fetched", 1), ("reserved", 1), ("failed", 50)]);
}

#[tokio::test]
async fn receipts_go_when_their_root_is_long_settled_and_their_transaction_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let key = Key(27);
    live(&journal, "old", "", &key).await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    let copies = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
         INSERT INTO receipts (digest, job_id, chain_id, contract, finished_ms, completed, document,
             packed, transaction_id)
         SELECT digest || i, job_id || i, chain_id, contract, finished_ms, 1, '', packed, i % 2 + 1
         FROM n, receipts";
    let transactions = "INSERT INTO transactions
         (id, chain_id, account, contract, nonce, call, state, reserved_ms, settled_ms)
         VALUES (?1, 204, 'a', 'c', ?1, '{}', 'settled', 1, ?2)";
    for (transaction, settled) in [(1, at(0)), (2, at(0).plus(MONTH * 2))] {
        db.execute(transactions, params![transaction, millis(settled)]).unwrap();
    }
    assert_eq!(db.execute(copies, []).unwrap(), 99);
    let now = at(70_000).plus(MONTH);
    let left = || {
        let sql = "SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM transactions)";
        db.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    let beats = journal.forget_transactions(now, MONTH, 0).await.unwrap();
    assert_eq!((beats.rows, left()), (0, (100, 2)), "it still holds receipts");
    while journal.forget_receipts(now, MONTH).await.unwrap().next.is_some() {}
    assert_eq!(left(), (50, 2), "one under no root, and one root's, have gone");
    assert_eq!(journal.forget_transactions(now, MONTH, 0).await.unwrap().rows, 1);
    assert_eq!(left(), (50, 1));
}

/// A journal as the last version without packing left it.
#[tokio::test]
async fn a_journal_of_an_older_version_is_packed_while_the_node_works() {
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::open(dir.path().join(FILE)).unwrap();
    let before = SCHEMA.migrations.iter().position(|sql| sql.contains("TABLE done")).unwrap();
    for migration in &SCHEMA.migrations[..before] {
        old.execute_batch(migration).unwrap();
    }
    old.pragma_update(None, "user_version", u32::try_from(before).unwrap()).unwrap();
    let key = Key(27);
    let status = old_job(&old, "old-1", &key).await;
    for number in 2..200 {
        let copy = [
            "INSERT INTO jobs (job_id, body_hash, body, phase, state, open, updated_ms)
             SELECT ?1, body_hash, body, phase, replace(state, 'old-1', ?1), open, updated_ms
             FROM jobs WHERE job_id = 'old-1'",
            "INSERT INTO events (job_id, at_ms, event) SELECT ?1, at_ms, event FROM events
             WHERE job_id = 'old-1'",
            "INSERT INTO outbox (job_id, seq, body, sent) SELECT ?1, seq, body, 1 FROM outbox
             WHERE job_id = 'old-1'",
        ];
        for sql in copy {
            old.execute(sql, [format!("old-{number}")]).unwrap();
        }
    }
    old.execute(
        "INSERT INTO jobs SELECT 'open', body_hash, body, delivery, 'waiting', state, 1,
         updated_ms, renewed_ms, 0 FROM jobs WHERE job_id = 'old-1'",
        [],
    )
    .unwrap();
    drop(old);

    let journal = Journal::open(dir.path()).unwrap();
    // The jobs are known at once and packed later.
    assert!(journal.lookup(&id("old-150")).await.unwrap().is_some_and(|known| !known.open));
    pack_all(&journal).await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    let counts = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM done),
         (SELECT count(*) FROM sweeps), (SELECT count(*) FROM receipts WHERE document <> '')";
    let counts = db.query_row(counts, [], |row| {
        Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    });
    assert_eq!(counts.unwrap(), [1, 199, 0, 0]);
    journal.send_again(&id("old-1")).await.unwrap();
    assert_eq!(say_all(&journal).await[0].body, status, "byte for byte");
    let kept = Reader::open(dir.path()).unwrap().receipt(&id("old-1")).unwrap().unwrap();
    assert_eq!(kept.signed.receipt.job_id, id("old-1"));
}

/// Writes a finished job as that version did and returns its last status.
async fn old_job(old: &Connection, name: &str, key: &Key) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    live(&journal, name, "", key).await;
    let said = say_all(&journal).await;
    drop(journal);
    let last = said.last().unwrap().body.clone();
    let status: Status = serde_json::from_slice(&last).unwrap();
    let document = status.receipt.unwrap().to_string();
    old.execute("ATTACH ? AS new", [dir.path().join(FILE).to_str().unwrap()]).unwrap();
    for sql in [
        "INSERT INTO jobs SELECT job_id, body_hash, body, delivery, phase, state, open, updated_ms,
             renewed_ms, revision FROM new.jobs",
        "INSERT INTO events SELECT id, job_id, at_ms, event FROM new.events",
        "INSERT INTO outbox SELECT id, job_id, seq, body, sent FROM new.outbox",
    ] {
        old.execute(sql, []).unwrap();
    }
    let sql = "INSERT INTO receipts SELECT digest, job_id, chain_id, contract, finished_ms,
         completed, ?, transaction_id FROM new.receipts";
    old.execute(sql, [document]).unwrap();
    old.execute_batch("DETACH new").unwrap();
    last
}

/// Counts the rows of events and statuses in the database file [`FILE`].
fn rows(db: &Connection) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM outbox)";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// As the last version without packing left them: one row per try.
#[tokio::test]
async fn jobs_with_thousands_of_events_are_packed_a_few_rows_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..16 {
        live(&journal, &format!("long-{n}"), "", &Key(27)).await;
    }
    say_all(&journal).await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    db.execute_batch(
        r#"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
           INSERT INTO events (job_id, at_ms, event) SELECT job_id, i, '"fetched"' FROM n, jobs;
           WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
           INSERT INTO outbox (job_id, seq, body, sent) SELECT job_id, i,
               (SELECT body FROM outbox WHERE seq = 2 LIMIT 1), 1 FROM n, jobs;"#,
    )
    .unwrap();
    let mut before = rows(&db);
    let most = 16 * 2 * 64;
    while journal.pack().await.unwrap() > 0 {
        let now = rows(&db);
        assert!(before - now <= most, "{} rows in one transaction", before - now);
        before = now;
    }
    assert_eq!(before, 0);
    let chronicle = Reader::open(dir.path()).unwrap().chronicle(&id("long-7")).unwrap().unwrap();
    let told = (chronicle.events.len() as u64, chronicle.events_left_out, chronicle.said.len());
    assert_eq!(told, (64, 11 + 5000 - 64, 64));
}

#[tokio::test]
async fn a_job_that_never_came_again_goes_with_its_events_a_few_rows_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..3 {
        live(&journal, &format!("long-{n}"), "", &Key(27)).await;
    }
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    db.execute_batch(
        r#"UPDATE jobs SET open = 1, phase = 'waiting';
           WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
           INSERT INTO events (job_id, at_ms, event) SELECT job_id, i, '"fetched"' FROM n, jobs;"#,
    )
    .unwrap();
    let (mut before, mut next, mut gone) = (rows(&db), Some(0), 0);
    while let Some(after) = next {
        let forgotten = journal.forget_waiting(at(70_000).plus(MONTH), MONTH, after).await.unwrap();
        let now = rows(&db);
        assert!(before - now <= 64, "{} rows in one transaction", before - now);
        (before, next, gone) = (now, forgotten.next, gone + forgotten.rows);
    }
    assert_eq!((before, gone), (0, 3));
}

#[tokio::test]
async fn a_status_that_is_asked_for_again_while_it_is_on_its_way_goes_out_once_more() {
    let journal = Journal::in_memory().unwrap();
    let (taken, body) = asked("job", "");
    journal.admit(&taken, body, None).await.unwrap();
    let on_their_way = journal.unsent(10).await.unwrap();
    journal.send_again(&id("job")).await.unwrap();
    journal.sent(on_their_way.iter().map(|status| status.row).collect()).await.unwrap();
    let again = say_all(&journal).await;
    let last = on_their_way.last().unwrap();
    assert_eq!((again.len(), again[0].seq, &again[0].body), (1, last.seq, &last.body));
    assert_eq!(again[0].kind, OutgoingKind::Again);
    assert_eq!(say_all(&journal).await, []);
    // The same while it is in flight for the second time.
    journal.send_again(&id("job")).await.unwrap();
    let on_its_way = journal.unsent(10).await.unwrap();
    journal.send_again(&id("job")).await.unwrap();
    journal.sent(on_its_way.iter().map(|status| status.row).collect()).await.unwrap();
    assert_eq!(say_all(&journal).await, on_its_way);
    assert_eq!(say_all(&journal).await, []);
}
