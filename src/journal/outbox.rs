//! Statuses on their way out: put in with the state that they follow from, taken out in order.

use rusqlite::{Connection, params};

use super::{Error, Journal, receipts};
use crate::job::{JobId, Status};

/// A status that is still to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the order.
    pub row: i64,
    /// The job.
    pub job_id: JobId,
    /// The status's number.
    pub seq: u64,
    /// The message, byte for byte the same however often it is sent.
    pub body: Vec<u8>,
    /// Why it is sent.
    pub kind: OutgoingKind,
}

/// Why a status is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutgoingKind {
    /// For the first time, as far as the journal knows.
    New,
    /// Its job was asked for again after it ended.
    Again,
}

/// A status as its rows hold it, made ready by the caller.
pub(super) struct Ready {
    job_id: JobId,
    seq: u64,
    body: Vec<u8>,
    receipt: Option<receipts::Row>,
}

impl Ready {
    pub(super) fn of(status: &Status) -> Result<Self, Error> {
        let (job_id, seq) = (status.job_id.clone(), status.seq);
        let (body, receipt) = (serde_json::to_vec(status)?, receipts::Row::of(status)?);
        Ok(Self { job_id, seq, body, receipt })
    }

    pub(super) fn all(statuses: &[Status]) -> Result<Vec<Self>, Error> {
        statuses.iter().map(Self::of).collect()
    }
}

pub(super) fn put(db: &Connection, statuses: &[Ready]) -> Result<(), Error> {
    let sql = "INSERT INTO outbox (job_id, seq, body) VALUES (?, ?, ?)";
    for Ready { job_id, seq, body, receipt } in statuses {
        let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
        db.prepare_cached(sql)?.execute(params![job_id.as_str(), seq, body])?;
        receipt.as_ref().map_or(Ok(()), |receipt| receipt.keep(db))?;
    }
    Ok(())
}

impl Journal {
    /// The next statuses to publish, in order, at most `limit`. Durable: what the world was told
    /// is not told otherwise after a power cut.
    pub async fn unsent(&self, limit: u32) -> Result<Vec<Outgoing>, Error> {
        let work = move |db: &Connection| {
            let sql = "SELECT id, job_id, seq, body, sent FROM outbox WHERE sent <> 1 ORDER BY id LIMIT ?";
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([limit], |row| {
                let id: String = row.get(1)?;
                let kind: i64 = row.get(4)?;
                Ok((id, row.get(0)?, row.get::<_, i64>(2)?, row.get(3)?, kind))
            })?;
            rows.map(|row| {
                let (id, row, seq, body, kind) = row?;
                let job_id = id.parse().map_err(|err| Error::Failed(Box::new(err)))?;
                let seq = u64::try_from(seq).unwrap_or_default();
                let kind = if kind == 2 { OutgoingKind::Again } else { OutgoingKind::New };
                Ok(Outgoing { row, job_id, seq, body, kind })
            })
            .collect()
        };
        self.writer.call(true, work).await
    }

    /// These are published.
    pub async fn sent(&self, rows: Vec<i64>) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let mut update = db.prepare_cached("UPDATE outbox SET sent = 1 WHERE id = ?")?;
            for row in rows {
                update.execute([row])?;
            }
            Ok(())
        };
        self.writer.change("sent", false, work).await
    }

    /// The job's last status is to be published once more.
    pub async fn send_again(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            let sql = "UPDATE outbox SET sent = 2 WHERE job_id = ?1 AND sent = 1
                 AND seq = (SELECT max(seq) FROM outbox WHERE job_id = ?1)";
            db.execute(sql, [id.as_str()])?;
            Ok(())
        };
        self.writer.change("send_again", false, work).await
    }

    /// How many statuses are still to be published.
    pub async fn unsent_count(&self) -> Result<u64, Error> {
        let work = |db: &Connection| {
            let sql = "SELECT count(*) FROM outbox WHERE sent <> 1";
            let count: i64 = db.query_row(sql, [], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or_default())
        };
        self.writer.call(false, work).await
    }
}
