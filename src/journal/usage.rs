//! What jobs used: their sums, the batches of their samples, their rollups.
//!
//! Invariants: a job keeps a bounded number of batches and rollups; a batch that is to be published stays until it was,
//! unless far too many wait; all rows go with the job.

use serde::{Deserialize, Serialize};

use super::{Error, Journal};
use crate::ids::{Hash, JobId};
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};
use crate::usage::rollup::{Bucket, Rollups};
use crate::usage::totals::Totals;
use crate::usage::watch::{Attempt, SoFar};

/// Batches of all jobs that may wait to be published: some 50 MB. What comes on top of them is kept and not published,
/// so that readers see a gap.
const WAITING_MAX: u32 = 20_000;
/// Batches of one attempt that may wait: a week of one a five minutes, so that no job takes the others' room.
const WAITING_OF_JOB_MAX: u32 = 2_000;
/// Batches that are read to be published at a time.
const AT_ONCE: u32 = 64;
/// Most batches of one job that are read.
const READ_MAX: u32 = 4_096;
/// Most rollups of one job that are read: all that are kept, of some attempts.
const ROLLUPS_MAX: u32 = 8_192;

/// A batch that is yet to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingBatch {
    /// Its row.
    pub id: i64,
    /// Whose samples it holds.
    pub attempt: Attempt,
    /// Its number among those of the attempt.
    pub number: u32,
    /// The batch.
    pub body: Vec<u8>,
}

/// What is kept of a job's latest attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageKept {
    /// Which attempt it is.
    pub attempt: u32,
    /// The sums up to its last batch.
    pub totals: Totals,
    /// The newest batches, oldest first.
    pub batches: Vec<Vec<u8>>,
    /// The rollups, the shortest spans first.
    pub rollups: Vec<Bucket>,
}

#[derive(Serialize, Deserialize)]
struct Sums {
    totals: Totals,
    rollups: Rollups,
}

/// Forgets what a job used that is forgotten.
pub(super) fn forget(db: &Connection, id: &str) -> Result<(), Error> {
    for table in ["usage_sums", "usage_batches", "usage_rollups"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE job_id = ?"))?.execute([id])?;
    }
    Ok(())
}

/// What is kept of this job's latest attempt; `None` if nothing is.
pub(super) fn of(db: &Connection, id: &JobId) -> Result<Option<UsageKept>, Error> {
    let sql = "SELECT attempt, sums FROM usage_sums WHERE job_id = ? ORDER BY attempt DESC LIMIT 1";
    let row = db
        .prepare_cached(sql)?
        .query_row([id.as_str()], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)));
    let Some((attempt, sums)) = row.optional()? else { return Ok(None) };
    let sums: Sums = serde_json::from_str(&sums)?;
    let sql = "SELECT body FROM usage_batches WHERE job_id = ? AND attempt = ?
         ORDER BY number DESC LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(params![id.as_str(), attempt, READ_MAX], |row| row.get(0))?;
    let mut batches = rows.collect::<Result<Vec<Vec<u8>>, SqliteError>>()?;
    batches.reverse();
    let sql = "SELECT body FROM usage_rollups WHERE job_id = ? AND attempt = ?
         ORDER BY span_s, place LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(params![id.as_str(), attempt, ROLLUPS_MAX], |row| row.get(0))?;
    let rows = rows.collect::<Result<Vec<String>, SqliteError>>()?;
    let rollups =
        rows.iter().filter_map(|body| Bucket::from_json(&serde_json::from_str(body).ok()?).ok());
    Ok(Some(UsageKept { attempt, totals: sums.totals, batches, rollups: rollups.collect() }))
}

impl Journal {
    /// Keeps a batch with the sums up to it, and the newest `keep` batches of the attempt. Nothing is kept of a job that
    /// is not known (any more). Repeatable.
    pub async fn keep_usage(
        &self,
        attempt: &Attempt,
        so_far: SoFar,
        body: Vec<u8>,
        is_public: bool,
        keep: u32,
    ) -> Result<(), Error> {
        let Attempt { job, number: attempt } = attempt.clone();
        let work = move |db: &Connection| {
            let SoFar { number, head, totals, rollups } = &so_far;
            let sums = Sums { totals: totals.clone(), rollups: rollups.clone() };
            let sums = serde_json::to_string(&sums)?;
            let sql = "INSERT INTO usage_sums (job_id, attempt, number, head, sums, keep)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM jobs WHERE job_id = ?1)
                     OR EXISTS (SELECT 1 FROM done WHERE job_id = ?1)
                 ON CONFLICT (job_id, attempt) DO UPDATE SET number = ?3, head = ?4, sums = ?5, keep = ?6
                     WHERE number < ?3";
            let row = params![job.as_str(), attempt, number, &head.0[..], sums, keep];
            if db.prepare_cached(sql)?.execute(row)? == 0 {
                return Ok(());
            }
            let waits =
                "SELECT COUNT(*) FROM (SELECT 1 FROM usage_batches WHERE waits = 1 LIMIT ?)";
            let waiting: u32 =
                db.prepare_cached(waits)?.query_row([WAITING_MAX], |row| row.get(0))?;
            let sql = "INSERT OR IGNORE INTO usage_batches (job_id, attempt, number, body, waits)
                 VALUES (?, ?, ?, ?, ?)";
            let own =
                "SELECT COUNT(*) FROM usage_batches WHERE job_id = ? AND attempt = ? AND waits = 1";
            let own = db.prepare_cached(own)?;
            let own: u32 = { own }.query_row(params![job.as_str(), attempt], |row| row.get(0))?;
            let waits = is_public && waiting < WAITING_MAX && own < WAITING_OF_JOB_MAX;
            let row = params![job.as_str(), attempt, number, body, waits];
            db.prepare_cached(sql)?.execute(row)?;
            let sql = "DELETE FROM usage_batches WHERE job_id = ? AND attempt = ? AND waits = 0
                 AND number <= ?";
            let last = i64::from(*number) - i64::from(keep);
            db.prepare_cached(sql)?.execute(params![job.as_str(), attempt, last])?;
            Ok(())
        };
        self.writer.change("keep_usage", false, work).await
    }

    /// Keeps a rollup, and the newest ones of its span. Repeatable.
    pub async fn keep_rollup(&self, attempt: &Attempt, bucket: Bucket) -> Result<(), Error> {
        let Attempt { job, number: attempt } = attempt.clone();
        let work = move |db: &Connection| {
            let span_s = i64::try_from(bucket.span.length().as_secs()).unwrap_or(i64::MAX);
            let place = i64::try_from(bucket.index).unwrap_or(i64::MAX);
            let body = bucket.to_json().to_string();
            let sql = "INSERT OR REPLACE INTO usage_rollups (job_id, attempt, span_s, place, body)
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM jobs WHERE job_id = ?1)
                     OR EXISTS (SELECT 1 FROM done WHERE job_id = ?1)";
            let row = params![job.as_str(), attempt, span_s, place, body];
            db.prepare_cached(sql)?.execute(row)?;
            let sql = "DELETE FROM usage_rollups WHERE job_id = ? AND attempt = ? AND span_s = ?
                 AND place <= ?";
            let last = place.saturating_sub(i64::try_from(bucket.span.kept()).unwrap_or(i64::MAX));
            db.prepare_cached(sql)?.execute(params![job.as_str(), attempt, span_s, last])?;
            Ok(())
        };
        self.writer.change("keep_rollup", false, work).await
    }

    /// What was seen of this attempt so far; `None` if nothing was.
    pub async fn usage_so_far(&self, attempt: &Attempt) -> Result<Option<SoFar>, Error> {
        let Attempt { job, number: attempt } = attempt.clone();
        let work = move |db: &Connection| {
            let sql = "SELECT number, head, sums FROM usage_sums WHERE job_id = ? AND attempt = ?";
            let row = db.prepare_cached(sql)?.query_row(params![job.as_str(), attempt], |row| {
                Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, String>(2)?))
            });
            let Some((number, head, sums)) = row.optional()? else { return Ok(None) };
            let Sums { totals, rollups } = serde_json::from_str(&sums)?;
            Ok(Some(SoFar { number, head: Hash(head), totals, rollups }))
        };
        self.writer.call_aside(work).await
    }

    /// The oldest batches that are yet to be published.
    pub async fn waiting_usage(&self) -> Result<Vec<WaitingBatch>, Error> {
        let work = move |db: &Connection| {
            let sql = "SELECT id, job_id, attempt, number, body FROM usage_batches
                 WHERE waits = 1 ORDER BY id LIMIT ?";
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([AT_ONCE], |row| {
                let job: String = row.get(1)?;
                Ok((row.get(0)?, job, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
            let rows = rows.collect::<Result<Vec<_>, SqliteError>>()?;
            // Only this program writes here.
            let read = |(id, job, attempt, number, body): (i64, String, u32, u32, Vec<u8>)| {
                let attempt = Attempt { job: job.parse().ok()?, number: attempt };
                Some(WaitingBatch { id, attempt, number, body })
            };
            Ok(rows.into_iter().filter_map(read).collect())
        };
        self.writer.call_aside(work).await
    }

    /// Notes that this batch was published. Repeatable.
    pub async fn usage_published(&self, id: i64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            db.prepare_cached("UPDATE usage_batches SET waits = 0 WHERE id = ?")?.execute([id])?;
            let old = "DELETE FROM usage_batches WHERE waits = 0 AND (job_id, attempt) =
                     (SELECT job_id, attempt FROM usage_batches WHERE id = ?1)
                 AND number <= (SELECT sums.number - sums.keep FROM usage_sums AS sums
                     JOIN usage_batches AS batch USING (job_id, attempt) WHERE batch.id = ?1)";
            db.prepare_cached(old)?.execute([id])?;
            Ok(())
        };
        self.writer.change("usage_published", false, work).await
    }
}
