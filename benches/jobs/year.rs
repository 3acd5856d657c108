//! A year at one job a second: compares a journal of millions of jobs with an empty one.
//!
//! Each measurement runs in a process of its own (this program again), alternating between the empty
//! and the full journal, so that memory and a busy minute of the disk do not distort the comparison.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lamda_node::agent::jobs::effects::Effects as _;
use lamda_node::agent::jobs::outbox;
use lamda_node::clock::{Clock as _, SystemClock, Timestamp};
use lamda_node::job::Job;
use lamda_node::job::plan::{Next, Step, next_step};
use lamda_node::journal::Journal;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::fakes::{Fakes, Pace};
use super::{Bench, Failure, NODE, accepted, open};

const MONTH: Duration = Duration::from_hours(30 * 24);
/// The number of receipts under one root.
const LEAVES: usize = 4096;
/// How often the empty and the full journal are measured in turn.
const ROUNDS: usize = 3;

/// The row: fills a journal with `jobs` ended jobs, and compares it with an empty one.
pub(crate) async fn year(dir: &Path, jobs: usize) -> Result<Value, Failure> {
    let [empty, full] = ["empty", "full"].map(|name| dir.join(name));
    for one in [&empty, &full] {
        std::fs::create_dir(one)?;
        drop(open(one)?);
    }
    let begun = Instant::now();
    let sample = sample(&full).await?;
    fill(&full, jobs)?;
    let (filled_s, bytes) = (begun.elapsed().as_secs_f64(), bytes_of(&full)?);
    let mut worked = Vec::new();
    for _ in 0..ROUNDS {
        worked.push((child("work", &empty)?, child("work", &full)?));
    }
    let middle = |pick: fn(&(Value, Value)) -> &Value, key: &str| {
        let mut figures: Vec<f64> =
            worked.iter().map(|both| pick(both)[key].as_f64().unwrap_or(f64::NAN)).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let of = |key: &str| json!([middle(|both| &both.0, key), middle(|both| &both.1, key)]);
    let forgotten = child("forget", &full)?;
    let flat = child("flat", &empty)?;
    Ok(json!({
        "jobs": jobs,
        "filled_s": filled_s,
        "bytes_a_job": bytes / f64::from(u32::try_from(jobs)?),
        "bytes_of_the_sample": sample,
        "commit_p50_ms": of("p50_ms"),
        "commit_p99_ms": of("p99_ms"),
        "resident_mib": of("resident_mib"),
        "forget": forgotten,
        "statuses_at_100_ms": statuses(&dir.join("statuses")).await?,
        "flat": flat,
    }))
}

/// Runs one measurement, in the process started for it, and returns its figures.
pub(crate) async fn part(name: &str, dir: &Path) -> Result<Value, Failure> {
    match name {
        "work" => work(&open(dir)?).await,
        "forget" => forget(&open(dir)?).await,
        "flat" => flat(&open(dir)?).await,
        other => Err(format!("no part {other}").into()),
    }
}

fn child(part: &str, dir: &Path) -> Result<Value, Failure> {
    let output = Command::new(std::env::current_exe()?).args(["--part", part]).arg(dir).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs one job from admission to its end. Returns the duration of each journal write in ms.
async fn live(journal: &Journal, number: usize, fakes: &Fakes) -> Result<Vec<f64>, Failure> {
    let (taken, body) = accepted(number)?;
    let mut took = Vec::new();
    let begun = Instant::now();
    journal.admit(&taken, body, Some("an acknowledgement's subject".to_owned())).await?;
    took.push(begun.elapsed().as_secs_f64() * 1000.0);
    let hour = Duration::from_hours(1);
    let rules = super::Rules {
        timeout_max: hour,
        fetch_give_up: hour,
        upload_give_up: hour,
        result_keep: hour,
    };
    let mut job: Job = taken.job;
    while let Next::Do(step) = next_step(&job, SystemClock.now()) {
        let event = match step {
            Step::Ack => super::Event::Acked,
            step => fakes.perform(&job, step).await,
        };
        let now = SystemClock.now();
        let moved = job.apply(event.clone(), now, &rules)?;
        let begun = Instant::now();
        journal.record(&event, &moved, now).await?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        job = moved.job;
    }
    Ok(took)
}

async fn say_all(journal: &Journal) -> Result<(), Failure> {
    loop {
        let waiting = journal.unsent(512).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        journal.sent(waiting.iter().map(|status| status.row).collect()).await?;
    }
}

async fn pack_all(journal: &Journal) -> Result<(), Failure> {
    while journal.pack().await? > 0 {}
    Ok(())
}

/// Runs jobs one after the other and packs each at its end. Reports the latencies of the commits and
/// the resident memory at the end.
async fn work(journal: &Journal) -> Result<Value, Failure> {
    let fakes = Fakes::default();
    let first = usize::try_from(SystemClock.now().unix_ms())?;
    let mut took = Vec::new();
    for number in 0..200 {
        took.extend(live(journal, first + number, &fakes).await?);
        say_all(journal).await?;
        pack_all(journal).await?;
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize| took[(took.len() * share / 1000).min(took.len() - 1)];
    Ok(json!({
        "commits": took.len(), "p50_ms": at(500), "p99_ms": at(990),
        "resident_mib": resident_mib()?,
    }))
}

/// Deletes entries older than a month while another task writes as fast as it is answered, and
/// reports how long that task waits.
async fn forget(journal: &Journal) -> Result<Value, Failure> {
    let over = AtomicBool::new(false);
    let beside = async {
        let mut waits = Vec::new();
        let id = "nobody".parse()?;
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            journal.redelivered(&id, None, Timestamp::default()).await?;
            waits.push(begun.elapsed().as_secs_f64() * 1000.0);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<_, Failure>(waits)
    };
    // 36 hours ahead, so that the oldest day and a half of the month is due.
    let now = SystemClock.now().plus(Duration::from_hours(36));
    let begun = Instant::now();
    let forgetting = async {
        let (mut rows, mut next) = (0, Some(0));
        while next.is_some() {
            let forgotten = journal.forget_done(now, MONTH).await?;
            (rows, next) = (rows + forgotten.rows, forgotten.next);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        over.store(true, Ordering::Relaxed);
        Ok::<_, Failure>(rows)
    };
    let (waits, rows) = tokio::join!(beside, forgetting);
    let (mut waits, rows) = (waits?, rows?);
    let took = begun.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    Ok(json!({
        "rows": rows, "took_s": took, "longest_wait_ms": waits.last(), "waits": waits.len(),
        "wait_p99_ms": waits[(waits.len() * 99 / 100).min(waits.len() - 1)],
    }))
}

/// The resident memory after each thousand jobs, to show whether it grows.
async fn flat(journal: &Journal) -> Result<Value, Failure> {
    let fakes = Fakes::default();
    let first = usize::try_from(SystemClock.now().unix_ms())?;
    let mut resident = Vec::new();
    for round in 0..4 {
        for number in 0..1_000 {
            live(journal, first + round * 1_000 + number, &fakes).await?;
            if number % 50 == 0 {
                say_all(journal).await?;
                pack_all(journal).await?;
            }
        }
        resident.push(resident_mib()?);
    }
    Ok(json!({ "jobs_a_round": 1_000, "resident_mib": resident }))
}

/// Statuses per second to a server with a round trip of 100 ms.
async fn statuses(dir: &Path) -> Result<Value, Failure> {
    std::fs::create_dir(dir)?;
    let say = Duration::from_millis(100);
    let fakes = Fakes { pace: Pace { say, ..Pace::default() }, ..Fakes::default() };
    let bench = Bench::new(dir, 1, fakes)?;
    let journal = &bench.desk.journal;
    for number in 0..1_000 {
        live(journal, number, &Fakes::default()).await?;
    }
    let waiting = f64::from(u32::try_from(journal.unsent_count().await?)?);
    let begun = Instant::now();
    let publish = outbox::run(bench.desk.clone(), Arc::clone(&bench.effects));
    let done = async {
        while journal.unsent_count().await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        done = done => done?,
        failed = publish => return Err(format!("{failed:?}").into()),
    }
    Ok(json!({ "statuses": waiting, "a_second": waiting / begun.elapsed().as_secs_f64() }))
}

/// Runs one job through the real code, as a template for `fill`. Returns its packed sizes in bytes.
async fn sample(dir: &Path) -> Result<Value, Failure> {
    let journal = open(dir)?;
    live(&journal, 0, &Fakes::default()).await?;
    say_all(&journal).await?;
    pack_all(&journal).await?;
    drop(journal);
    let db = Connection::open(dir.join("journal.db"))?;
    let sql = "SELECT length(story), length(packed) FROM done, receipts";
    let (story, receipt): (i64, i64) =
        db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(json!({ "story": story, "receipt": receipt }))
}

/// Fills the journal with rows like the sample's, each with its own id, hashes and random bytes, spread
/// over a month. The receipts are under roots.
fn fill(dir: &Path, jobs: usize) -> Result<(), Failure> {
    let db = Connection::open(dir.join("journal.db"))?;
    db.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA temp_store = MEMORY;",
    )?;
    let (now, month) = (SystemClock.now().unix_ms(), u64::try_from(MONTH.as_millis())?);
    let (jobs_i, oldest) = (i64::try_from(jobs)?, i64::try_from(now - month)?);
    let apart = i64::try_from(month)? / jobs_i.max(1);
    let numbers = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)";
    // As many random bytes as the sample has, since they don't compress.
    let done = format!(
        "{numbers} INSERT INTO done
         (job_id, body_hash, phase, refused, seq, due_ms, story)
         SELECT 'job-' || lower(hex(randomblob(16))), randomblob(32), phase, 0, seq,
             ?3 + i * ?4, randomblob(length(story))
         FROM n, (SELECT * FROM done ORDER BY id LIMIT 1)"
    );
    let receipts = format!(
        "{numbers} INSERT INTO receipts
         (digest, job_id, chain_id, contract, finished_ms, completed, document, packed,
          transaction_id)
         SELECT '0x' || lower(hex(randomblob(32))), 'job-' || lower(hex(randomblob(16))), chain_id,
             contract, ?3 + i * ?4, 1, '', randomblob(length(packed)), 1 + i / {LEAVES}
         FROM n, (SELECT * FROM receipts ORDER BY rowid LIMIT 1)"
    );
    let transactions = "INSERT INTO transactions
         (id, chain_id, account, contract, nonce, call, state, reserved_ms, settled_ms)
         VALUES (?1, 31337, ?2, ?2, ?1, '{}', 'settled', ?3, ?3)";
    for transaction in 0..=jobs_i / i64::try_from(LEAVES)? + 1 {
        let at = oldest + transaction * apart;
        db.execute(transactions, params![transaction, NODE.to_string(), at])?;
    }
    let mut first = 1;
    while first <= jobs_i {
        let last = (first + 99_999).min(jobs_i);
        db.execute(&done, params![first, last, oldest, apart])?;
        db.execute(&receipts, params![first, last, oldest, apart])?;
        first = last + 1;
    }
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}

fn bytes_of(dir: &Path) -> Result<f64, Failure> {
    let bytes = std::fs::metadata(dir.join("journal.db"))?.len();
    Ok(f64::from(u32::try_from(bytes / 1024)?) * 1024.0)
}

fn resident_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
