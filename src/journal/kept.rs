//! Outputs that could not be published in time: kept on disk for a while, published when their owner
//! says so, and told as late results.
//!
//! What must hold: a row is written with the terminal status that names the failure, so that no
//! output is on disk that nobody knows of; a row goes only after its folder.

use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

use super::attempts::millis;
use super::{Error, Journal, receipts};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::LateResult;
use crate::job::phase::Kept;

/// A kept output, and how far it is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptOutput {
    /// What was kept.
    pub kept: Kept,
    /// When its owner asked for it to be published.
    pub asked: Option<Timestamp>,
    /// What was said, or is to be said, of its publication.
    pub result: Option<LateResult>,
    /// Whether that was said.
    pub said: bool,
}

/// Written with the job's terminal status.
pub(super) fn put(db: &Connection, kept: &Kept, json: &str) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO kept (job_id, kept, until_ms) VALUES (?, ?, ?)";
    let named = params![kept.job.id().as_str(), json, millis(kept.until)];
    db.prepare_cached(sql)?.execute(named)?;
    Ok(())
}

/// The columns of a row, as [`find`] reads them.
type Columns = (String, Option<i64>, Option<Vec<u8>>, bool);

/// The kept output of a job.
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

impl Journal {
    /// The kept output of a job; `None` where none is kept.
    pub async fn kept(&self, id: &JobId) -> Result<Option<KeptOutput>, Error> {
        let id = id.clone();
        self.writer.call(false, move |db| find(db, &id)).await
    }

    /// The jobs whose outputs are kept and were not published: their folders stay.
    pub async fn kept_ids(&self) -> Result<Vec<JobId>, Error> {
        let sql = "SELECT job_id FROM kept WHERE said = 0";
        self.writer.call(false, |db| ids(db, sql, [])).await
    }

    /// The owner wants this output published. `false` where none is kept, or it was published. Can be
    /// repeated.
    pub async fn ask_for(&self, id: &JobId, at: Timestamp) -> Result<bool, Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            let sql = "UPDATE kept SET asked_ms = ? WHERE job_id = ? AND said = 0";
            Ok(db.execute(sql, params![millis(at), id.as_str()])? == 1)
        };
        self.writer.change("ask_for", true, work).await
    }

    /// The jobs whose outputs are to be published, or are and were not told of, the first asked for
    /// first.
    pub async fn asked_for(&self) -> Result<Vec<JobId>, Error> {
        let sql = "SELECT job_id FROM kept WHERE asked_ms IS NOT NULL AND said = 0
             ORDER BY asked_ms, job_id";
        self.writer.call(false, |db| ids(db, sql, [])).await
    }

    /// An output that was kept is published: what is to be said of it, and its receipt, which goes
    /// to the chain as every other does. Durable.
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

    /// The late result was said.
    pub async fn late_result_said(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            db.execute("UPDATE kept SET said = 1 WHERE job_id = ?", [id.as_str()])?;
            Ok(())
        };
        self.writer.change("late_result_said", false, work).await
    }

    /// The jobs whose outputs need not be kept any longer.
    pub async fn kept_long_enough(&self, now: Timestamp) -> Result<Vec<JobId>, Error> {
        let sql = "SELECT job_id FROM kept WHERE until_ms <= ?";
        self.writer.call(false, move |db| ids(db, sql, [millis(now)])).await
    }

    /// Nothing of this output is left.
    pub async fn forget_kept(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            db.execute("DELETE FROM kept WHERE job_id = ?", [id.as_str()])?;
            Ok(())
        };
        self.writer.change("forget_kept", false, work).await
    }
}
