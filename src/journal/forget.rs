//! What the journal forgets, a few rows at a time.
//!
//! What must hold: no call touches more than [`FORGOTTEN_AT_ONCE`] rows or looks at many more, and
//! each finds them by an index, so that whoever writes meanwhile waits for milliseconds; none adds to
//! a log that waits to be carried over; an id is remembered at least until its job's deadline, since a signed job could be sent again until then.

use std::time::Duration;

use crate::sql::{Connection, OptionalExtension as _, Row, params};

use super::attempts::millis;
use super::done::trim;
use super::{Error, Journal};
use crate::clock::Timestamp;
use crate::job::Job;

/// Rows that one call forgets at most: a few milliseconds where the disk has to be read for each and
/// for its places in the indexes.
pub const FORGOTTEN_AT_ONCE: u32 = 16;

/// What a call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows that went.
    pub rows: usize,
    /// Where the next call goes on; `None` where nothing is left to forget now.
    pub next: Option<i64>,
}

/// The statements that find what is to be forgotten; each is to use an index.
mod find {
    pub(super) const DONE: &str = "SELECT id, deadline_ms FROM done
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
    /// Forgets some of the jobs that have been done for longer than `keep`. Where a job's deadline
    /// is still to come, its id stays until then, and nothing but that. While its output is kept, all
    /// stays: under its id another job would have its folder.
    pub async fn forget_done(&self, now: Timestamp, keep: Duration) -> Result<Forgotten, Error> {
        let (now_ms, keep_ms) = (millis(now), span(keep));
        let work = move |db: &Connection| {
            let mut query = db.prepare_cached(find::DONE)?;
            let due = now_ms.saturating_sub(keep_ms);
            let rows = query
                .query_map(params![due, FORGOTTEN_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows = rows.collect::<Result<Vec<(i64, Option<i64>)>, _>>()?;
            let mut delete = db.prepare_cached("DELETE FROM done WHERE id = ?")?;
            let thin = "UPDATE done SET story = NULL, due_ms = ? WHERE id = ?";
            let mut thin = db.prepare_cached(thin)?;
            for (id, deadline_ms) in &rows {
                match deadline_ms {
                    // Due again just when the deadline has passed.
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

    /// Forgets some of the refusals beyond the newest `keep`: strangers must not fill the disk with
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

    /// Forgets jobs that went back to their pool longer than `keep` ago and never came again, among
    /// some of the jobs in hand: those after the row `after`, 0 at first.
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
                    // What hangs on it would all go with it, however much that is.
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

    /// Forgets some of the receipts that have been under a settled root, or under none, for longer
    /// than `keep`: of one root, or of those under none.
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
            // However few leaves a root has, the next one and those under none come after it.
            forgotten.next = forgotten.next.or(rooted.then_some(0));
            Ok(forgotten)
        };
        self.writer.call_aside(work).await
    }

    /// Forgets transactions that have been done for longer than `keep`, but for those that hold
    /// receipts, and what was signed for all of that age, among some of them: those after the row
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

/// Whether a row that [`find::WAITING`] found is of a job that is given back for good.
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

/// Whether there may be more rows than these.
const fn is_full(rows: usize) -> bool {
    rows >= FORGOTTEN_AT_ONCE as usize
}

/// The rows that this statement finds up to a bound.
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
