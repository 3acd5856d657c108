//! When the GPUs that jobs had left were free for the next job, as part of the jobs' records.
//!
//! Invariant: a job has at most one row for each card that it had, of its latest attempt on it. The rows go with the
//! job.

use std::time::Duration;

use crate::sql::{Connection, SqliteError, params};

use super::{Error, Journal};
use crate::ids::JobId;
use crate::node::GpuUuid;

/// The most cards of a job that are read: more than any host has.
const CARDS_MAX: u32 = 1024;

/// What became of a card that a job had left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReturn {
    /// The card.
    pub card: GpuUuid,
    /// The job's attempt that had it.
    pub attempt: u32,
    /// After how long it was free of the job's memory and processes, in whole milliseconds; `None` while it was not
    /// seen free.
    pub free_after: Option<Duration>,
    /// Why it was held back from other jobs, in one sentence; `None` if it was not.
    pub why: Option<String>,
}

/// The cards of this job, in the order of their UUIDs.
pub(super) fn of(db: &Connection, id: &JobId) -> Result<Vec<GpuReturn>, Error> {
    let sql = "SELECT uuid, attempt, free_ms, why FROM gpu_returns WHERE job_id = ?
         ORDER BY uuid LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(params![id.as_str(), CARDS_MAX], |row| {
        let (uuid, free_ms): (String, Option<i64>) = (row.get(0)?, row.get(2)?);
        let free_after = free_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        Ok((uuid, row.get(1)?, free_after, row.get(3)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>, SqliteError>>()?;
    // Only this program writes here; a row that does not parse is a card that nobody knows.
    let read = |(uuid, attempt, free_after, why): (String, _, _, _)| {
        Some(GpuReturn { card: GpuUuid::new(&uuid)?, attempt, free_after, why })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Forgets the cards of a job that is forgotten.
pub(super) fn forget(db: &Connection, id: &str) -> Result<(), Error> {
    db.prepare_cached("DELETE FROM gpu_returns WHERE job_id = ?")?.execute([id])?;
    Ok(())
}

impl Journal {
    /// Records what became of a card that this job left, in place of what was recorded of it before; a reason of the
    /// same attempt stays. Nothing is recorded of a job that is not known (any more). Repeatable.
    pub async fn gpu_returned(&self, id: &JobId, returned: GpuReturn) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            let sql = "INSERT INTO gpu_returns (job_id, uuid, attempt, free_ms, why)
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM jobs WHERE job_id = ?1)
                     OR EXISTS (SELECT 1 FROM done WHERE job_id = ?1)
                 ON CONFLICT (job_id, uuid) DO UPDATE SET free_ms = ?4, attempt = ?3,
                     why = coalesce(?5, CASE WHEN attempt = ?3 THEN why END)";
            let GpuReturn { card, attempt, free_after, why } = &returned;
            let free_ms = free_after.map(|it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX));
            let row = params![id.as_str(), card.as_str(), attempt, free_ms, why];
            db.prepare_cached(sql)?.execute(row)?;
            Ok(())
        };
        self.writer.change("gpu_returned", false, work).await
    }
}
