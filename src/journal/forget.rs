//! Deletes what the journal need not keep any longer, a few rows at a time.
//!
//! Invariants: no call deletes more than [`FORGOTTEN_AT_ONCE`] rows or looks at many more, and each finds
//! them by an index, so that concurrent writers wait for milliseconds only. No call adds to a write-ahead log
//! that waits for a checkpoint. An id is remembered at least until its job's deadline, because the signed job
//! could be sent again until then.

use std::time::Duration;

use crate::sql::{Connection, OptionalExtension as _, Row, params};

use super::done::trim;
use super::{Error, Journal, gpu_returns, millis, usage};
use crate::clock::Timestamp;
use crate::job::Job;

/// Upper bound on the rows that one call deletes. Reading each row and its index entries from disk takes a
/// few milliseconds in total.
pub const FORGOTTEN_AT_ONCE: u32 = 16;

/// The result of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Number of deleted rows.
    pub rows: usize,
    /// The row after which the next call continues; `None` if nothing more is due.
    pub next: Option<i64>,
}

/// Queries for what is due. Each must be answered by an index; a test checks the query plans.
mod find {
    pub(super) const DONE: &str = "SELECT id, deadline_ms, job_id FROM done
         WHERE due_ms < ? AND again = 0
             AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.job_id = done.job_id)
         ORDER BY due_ms LIMIT ?";
    pub(super) const REFUSALS_CUT: &str =
        "SELECT id FROM done WHERE refused = 1 ORDER BY id DESC LIMIT 1 OFFSET ?";
    pub(super) const REFUSALS: &str =
        "SELECT id FROM done WHERE refused = 1 AND id <= ? ORDER BY id LIMIT ?";
    pub(super) const WAITING: &str = "SELECT rowid, phase, updated_ms, state, job_id FROM jobs
         WHERE open = 1 AND rowid > ? ORDER BY rowid LIMIT ?";
    pub(super) const SETTLED: &str = "SELECT id FROM transactions
         WHERE id > ? AND settled_ms < ? AND state IN ('settled', 'abandoned')
         ORDER BY id LIMIT ?";
    pub(super) const UNDER_ROOT: &str = "SELECT rowid FROM receipts WHERE transaction_id = (
             SELECT id FROM transactions WHERE settled_ms < ?1
             AND EXISTS (SELECT 1 FROM receipts WHERE transaction_id = transactions.id)
             ORDER BY settled_ms LIMIT 1) LIMIT ?2";
    pub(super) const UNDER_NO_ROOT: &str = "SELECT rowid FROM receipts INDEXED BY receipts_waiting
         WHERE transaction_id IS NULL AND finished_ms < ?1 ORDER BY finished_ms LIMIT ?2";
}

impl Journal {
    /// Forgets some of the jobs that ended longer than `keep` ago. If a job's deadline has not passed, only
    /// its id is kept until then. A job whose output is kept stays whole: another job under its id would use
    /// the same folder.
    pub async fn forget_done(&self, now: Timestamp, keep: Duration) -> Result<Forgotten, Error> {
        let (now_ms, keep_ms) = (millis(now), span(keep));
        let work = move |db: &Connection| {
            let mut query = db.prepare_cached(find::DONE)?;
            let due = now_ms.saturating_sub(keep_ms);
            let rows = query.query_map(params![due, FORGOTTEN_AT_ONCE], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            let rows = rows.collect::<Result<Vec<(i64, Option<i64>, String)>, _>>()?;
            let mut delete = db.prepare_cached("DELETE FROM done WHERE id = ?")?;
            let thin = "UPDATE done SET story = NULL, due_ms = ? WHERE id = ?";
            let mut thin = db.prepare_cached(thin)?;
            for (id, deadline_ms, job_id) in &rows {
                gpu_returns::forget(db, job_id)?;
                usage::forget(db, job_id)?;
                match deadline_ms {
                    // Becomes due again exactly when the deadline has passed.
                    Some(deadline) if *deadline >= now_ms => {
                        thin.execute(params![deadline.saturating_sub(keep_ms), id])?
                    }
                    _ => delete.execute([id])?,
                };
            }
            Ok(Forgotten::of(rows.len(), 0))
        };
        self.writer.call_aside(work).await
    }

    /// Forgets some of the refusals beyond the newest `keep`, so that strangers can't fill the disk with
    /// them.
    pub async fn forget_refusals(&self, keep: u32) -> Result<Forgotten, Error> {
        let work = move |db: &Connection| {
            let cut = db.prepare_cached(find::REFUSALS_CUT)?.query_row([keep], |row| row.get(0));
            let Some(cut): Option<i64> = cut.optional()? else { return Ok(Forgotten::default()) };
            let rows = ids(db, find::REFUSALS, cut)?;
            delete(db, "DELETE FROM done WHERE id = ?", &rows)
        };
        self.writer.call_aside(work).await
    }

    /// Forgets jobs that went back to their pool longer than `keep` ago and were not delivered again. Looks
    /// at some of the open jobs: those after row `after`, 0 at first.
    pub async fn forget_waiting(
        &self,
        now: Timestamp,
        keep: Duration,
        after: i64,
    ) -> Result<Forgotten, Error> {
        let due = millis(now).saturating_sub(span(keep));
        let work = move |db: &Connection| {
            let mut query = db.prepare_cached(find::WAITING)?;
            let mut rows = query.query(params![after, FORGOTTEN_AT_ONCE])?;
            let (mut old, mut seen, mut last) = (Vec::new(), 0, after);
            let mut left = FORGOTTEN_AT_ONCE;
            while let Some(row) = rows.next()? {
                let at: i64 = row.get(0)?;
                if is_forgettable(row, now, due)? {
                    gpu_returns::forget(db, &row.get::<_, String>(4)?)?;
                    usage::forget(db, &row.get::<_, String>(4)?)?;
                    // Deleting the job would cascade to all its events and statuses, so delete a bounded
                    // number of those first.
                    left =
                        left.saturating_sub(trim(db, &row.get::<_, String>(4)?, 0, left)?.rows());
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    old.push(at);
                }
                (seen, last) = (seen + 1, at);
            }
            let mut forgotten = delete(db, "DELETE FROM jobs WHERE rowid = ?", &old)?;
            forgotten.next = (left == 0 || seen == FORGOTTEN_AT_ONCE).then_some(last);
            Ok(forgotten)
        };
        self.writer.call_aside(work).await
    }

    /// Forgets some of the receipts whose root was settled longer than `keep` ago, or that ended longer than
    /// `keep` ago and are under no root. One call takes receipts of one root, or those under none.
    pub async fn forget_receipts(
        &self,
        now: Timestamp,
        keep: Duration,
    ) -> Result<Forgotten, Error> {
        let due = millis(now).saturating_sub(span(keep));
        let work = move |db: &Connection| {
            let mut rows = ids(db, find::UNDER_ROOT, due)?;
            let rooted = !rows.is_empty();
            if !rooted {
                rows = ids(db, find::UNDER_NO_ROOT, due)?;
            }
            let mut forgotten = delete(db, "DELETE FROM receipts WHERE rowid = ?", &rows)?;
            // A root may have fewer leaves than the limit: the next root and the receipts under none are
            // still to come.
            forgotten.next = forgotten.next.or(rooted.then_some(0));
            Ok(forgotten)
        };
        self.writer.call_aside(work).await
    }

    /// Forgets transactions that were settled or abandoned longer than `keep` ago, except those that still
    /// hold receipts. Deletes the signed forms of all of that age. Looks at some of them: those after row
    /// `after`, 0 at first.
    pub async fn forget_transactions(
        &self,
        now: Timestamp,
        keep: Duration,
        after: i64,
    ) -> Result<Forgotten, Error> {
        let due = millis(now).saturating_sub(span(keep));
        let work = move |db: &Connection| {
            let mut query = db.prepare_cached(find::SETTLED)?;
            let rows = query.query_map(params![after, due, FORGOTTEN_AT_ONCE], |row| row.get(0))?;
            let rows = rows.collect::<Result<Vec<i64>, _>>()?;
            delete(db, "DELETE FROM signed_forms WHERE transaction_id = ?", &rows)?;
            let sql = "DELETE FROM transactions WHERE id = ?1
                 AND NOT EXISTS (SELECT 1 FROM receipts WHERE transaction_id = ?1)";
            let mut forgotten = delete(db, sql, &rows)?;
            let more = is_full(rows.len());
            forgotten.next = rows.last().copied().filter(|_| more);
            Ok(forgotten)
        };
        self.writer.call_aside(work).await
    }
}

/// Whether a row of [`find::WAITING`] is a job that went back to its pool before `due` and whose deadline, if
/// any, has passed.
fn is_forgettable(row: &Row<'_>, now: Timestamp, due: i64) -> Result<bool, Error> {
    let (phase, updated_ms): (String, i64) = (row.get(1)?, row.get(2)?);
    if phase != "waiting" || updated_ms >= due {
        return Ok(false);
    }
    let state: Option<String> = row.get(3)?;
    let job: Option<Job> = state.and_then(|state| serde_json::from_str(&state).ok());
    Ok(job.is_none_or(|job| job.spec.deadline.is_none_or(|deadline| deadline < now)))
}

impl Forgotten {
    fn of(rows: usize, next: i64) -> Self {
        Self { rows, next: is_full(rows).then_some(next) }
    }
}

/// Whether a query was cut off at the limit, so that there may be more rows.
const fn is_full(rows: usize) -> bool {
    rows >= FORGOTTEN_AT_ONCE as usize
}

/// The row ids that a query finds for this bound.
fn ids(db: &Connection, sql: &str, bound: i64) -> Result<Vec<i64>, Error> {
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(params![bound, FORGOTTEN_AT_ONCE], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn delete(db: &Connection, sql: &str, rows: &[i64]) -> Result<Forgotten, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let mut gone = 0;
    for row in rows {
        gone += statement.execute([row])?;
    }
    Ok(Forgotten { rows: gone, ..Forgotten::of(rows.len(), 0) })
}

fn span(keep: Duration) -> i64 {
    i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::SCHEMA;

    #[test]
    fn whatever_is_forgotten_is_found_by_an_index() {
        let mut db = Connection::open_in_memory().unwrap();
        SCHEMA.apply(&mut db, std::path::Path::new("x")).unwrap();
        let all = [
            (find::DONE, "done USING INDEX done_due (due_ms<?)"),
            (find::REFUSALS_CUT, "done USING COVERING INDEX done_refused"),
            (find::REFUSALS, "done USING COVERING INDEX done_refused (id<?)"),
            (find::WAITING, "jobs USING INDEX jobs_open (open=? AND rowid>?)"),
            (find::SETTLED, "transactions USING"),
            (find::UNDER_ROOT, "receipts USING COVERING INDEX receipts_transaction"),
            (find::UNDER_NO_ROOT, "receipts USING INDEX receipts_waiting (finished_ms<?)"),
        ];
        for (sql, expected) in all {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = plan.parameter_count();
            let rows = plan
                .query_map(crate::sql::params_from_iter(vec![0; count]), |row| {
                    row.get::<_, String>(3)
                })
                .unwrap();
            let plan: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
            let plan = plan.join("; ");
            assert!(plan.contains(expected), "{sql}\n{plan}");
            for bad in ["TEMP B-TREE", "SCAN receipts", "SCAN transactions", "SCAN jobs"] {
                assert!(!plan.contains(bad), "{sql}\n{plan}");
            }
        }
    }
}
