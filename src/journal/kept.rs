//! Outputs that could not be published in time. They are kept on disk for a while, published when their owner
//! asks, and announced as late results.
//!
//! Invariants: a row is written with the terminal status that names the failure, so that no output is on disk
//! without a row; a row is deleted only after its folder.

use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

use super::{Error, Journal, millis, receipts};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::LateResult;
use crate::job::phase::Kept;

/// A kept output and the progress of its publication.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptOutput {
    /// The job and what is needed to publish its output.
    pub kept: Kept,
    /// When its owner asked for it to be published.
    pub asked: Option<Timestamp>,
    /// The late result, once the output is published.
    pub result: Option<LateResult>,
    /// Whether the late result was announced.
    pub said: bool,
}

/// Inserts a kept output, in the transaction of the job's terminal status.
pub(super) fn put(db: &Connection, kept: &Kept, json: &str) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO kept (job_id, kept, until_ms) VALUES (?, ?, ?)";
    let named = params![kept.job.id().as_str(), json, millis(kept.until)];
    db.prepare_cached(sql)?.execute(named)?;
    Ok(())
}

/// The columns of a row, as [`find`] reads them.
type Columns = (String, Option<i64>, Option<Vec<u8>>, bool);

/// The job's kept output, if there is one.
pub(super) fn find(db: &Connection, id: &JobId) -> Result<Option<KeptOutput>, Error> {
    let sql = "SELECT kept, asked_ms, result, said FROM kept WHERE job_id = ?";
    let read = |row: &crate::sql::Row<'_>| -> Result<Columns, SqliteError> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let Some((kept, asked, result, said)) = db.query_row(sql, [id.as_str()], read).optional()?
    else {
        return Ok(None);
    };
    let at = |ms: i64| Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or(0));
    Ok(Some(KeptOutput {
        kept: serde_json::from_str(&kept)?,
        asked: asked.map(at),
        result: result.map(|result| serde_json::from_slice(&result)).transpose()?,
        said,
    }))
}

fn ids(db: &Connection, sql: &str, named: impl crate::sql::Params) -> Result<Vec<JobId>, Error> {
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(named, |row| row.get::<_, String>(0))?;
    rows.map(|id| id?.parse().map_err(|err| Error::Failed(Box::new(err)))).collect()
}

/// The jobs whose kept outputs are not announced as late results yet.
pub(super) fn all_ids(db: &Connection) -> Result<Vec<JobId>, Error> {
    ids(db, "SELECT job_id FROM kept WHERE said = 0", [])
}

impl Journal {
    /// The job's kept output; `None` if none is kept.
    pub async fn kept(&self, id: &JobId) -> Result<Option<KeptOutput>, Error> {
        let id = id.clone();
        self.writer.call(false, move |db| find(db, &id)).await
    }

    /// The jobs whose kept outputs are not announced as late results yet: their folders must stay.
    pub async fn kept_ids(&self) -> Result<Vec<JobId>, Error> {
        self.writer.call(false, all_ids).await
    }

    /// Records that the owner asked for this output to be published. Returns `false` if none is kept or its
    /// late result was announced. Repeatable. Durable.
    pub async fn ask_for(&self, id: &JobId, at: Timestamp) -> Result<bool, Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            let sql = "UPDATE kept SET asked_ms = ? WHERE job_id = ? AND said = 0";
            Ok(db.execute(sql, params![millis(at), id.as_str()])? == 1)
        };
        self.writer.change("ask_for", true, work).await
    }

    /// The jobs whose owners asked for the output and whose late result is not announced yet, in the order of
    /// asking.
    pub async fn asked_for(&self) -> Result<Vec<JobId>, Error> {
        let sql = "SELECT job_id FROM kept WHERE asked_ms IS NOT NULL AND said = 0
             ORDER BY asked_ms, job_id";
        self.writer.call(false, |db| ids(db, sql, [])).await
    }

    /// Records that a kept output is published: stores the late result and its receipt, which goes on the
    /// chain as any other does. Durable.
    pub async fn late_result(&self, id: &JobId, result: &LateResult) -> Result<(), Error> {
        let (id, body) = (id.clone(), serde_json::to_vec(result)?);
        let receipt = receipts::Row::of_document(&result.receipt, true)?;
        let work = move |db: &Connection| {
            let sql = "UPDATE kept SET result = ? WHERE job_id = ? AND result IS NULL";
            if db.execute(sql, params![body, id.as_str()])? == 1 {
                receipt.keep(db)?;
            }
            Ok(())
        };
        self.writer.change("late_result", true, work).await
    }

    /// Records that the late result was announced.
    pub async fn late_result_said(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            db.execute("UPDATE kept SET said = 1 WHERE job_id = ?", [id.as_str()])?;
            Ok(())
        };
        self.writer.change("late_result_said", false, work).await
    }

    /// The jobs whose outputs have been kept until their time limit.
    pub async fn kept_long_enough(&self, now: Timestamp) -> Result<Vec<JobId>, Error> {
        let sql = "SELECT job_id FROM kept WHERE until_ms <= ?";
        self.writer.call(false, move |db| ids(db, sql, [millis(now)])).await
    }

    /// Deletes the row of an output whose folder is gone.
    pub async fn forget_kept(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            db.execute("DELETE FROM kept WHERE job_id = ?", [id.as_str()])?;
            Ok(())
        };
        self.writer.change("forget_kept", false, work).await
    }
}
