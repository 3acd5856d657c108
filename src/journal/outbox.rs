//! The outbox: statuses to publish. They are inserted in the transaction of the state they follow from and
//! published in order.

use crate::sql::{Connection, params};

use super::story::Story;
use super::{Error, Journal, receipts};
use crate::ids::JobId;
use crate::job::Status;

/// A status that is waiting to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The row id to pass to [`Journal::sent`]. For a packed job it is the negated id of its row in `done`.
    pub row: i64,
    /// The job's id.
    pub job_id: JobId,
    /// The status's sequence number within its job.
    pub seq: u64,
    /// The message. Every repetition sends the same bytes.
    pub body: Vec<u8>,
    /// Whether this is the first publication or a repetition.
    pub kind: OutgoingKind,
}

/// Why a status is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutgoingKind {
    /// It was not published before, as far as the journal knows.
    New,
    /// The job was delivered again after it ended, so its last status is repeated.
    Again,
}

/// A status in its rows' form. The caller serializes it, so that the database thread need not.
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

/// An unsent status as stored.
enum Waiting {
    /// Of a job that is not packed.
    Row { row: i64, job_id: String, seq: i64, body: Vec<u8>, sent: i64 },
    /// The last status of a packed job.
    Packed { id: i64, job_id: String, seq: i64, story: Vec<u8> },
}

impl Waiting {
    fn find(db: &Connection, limit: u32) -> Result<Vec<Self>, Error> {
        let sql =
            "SELECT id, job_id, seq, body, sent FROM outbox WHERE sent <> 1 ORDER BY id LIMIT ?";
        let mut query = db.prepare_cached(sql)?;
        let rows = query.query_map([limit], |row| {
            let (job_id, seq) = (row.get(1)?, row.get(2)?);
            Ok(Self::Row { row: row.get(0)?, job_id, seq, body: row.get(3)?, sent: row.get(4)? })
        })?;
        let mut found = rows.collect::<Result<Vec<_>, _>>()?;
        let sql = "SELECT id, job_id, seq, story FROM done
             WHERE again > 0 AND story IS NOT NULL ORDER BY id LIMIT ?";
        let mut query = db.prepare_cached(sql)?;
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(limit));
        let rows = query.query_map([left], |row| {
            let (job_id, seq) = (row.get(1)?, row.get(2)?);
            Ok(Self::Packed { id: row.get(0)?, job_id, seq, story: row.get(3)? })
        })?;
        for row in rows {
            found.push(row?);
        }
        Ok(found)
    }

    fn read(self) -> Result<Outgoing, Error> {
        let again = matches!(self, Self::Packed { .. } | Self::Row { sent: 2 | 4, .. });
        let kind = if again { OutgoingKind::Again } else { OutgoingKind::New };
        let (row, job_id, seq, body) = match self {
            Self::Row { row, job_id, seq, body, .. } => (row, job_id, seq, body),
            Self::Packed { id, job_id, seq, story } => (-id, job_id, seq, Story::last(&story)?),
        };
        let job_id = job_id.parse().map_err(|err| Error::Failed(Box::new(err)))?;
        Ok(Outgoing { row, job_id, seq: u64::try_from(seq).unwrap_or_default(), body, kind })
    }
}

impl Journal {
    /// The next statuses to publish, in order, at most `limit`. Durable: a status is synced before anyone
    /// sees it, so that a power cut can't lead to a different one.
    pub async fn unsent(&self, limit: u32) -> Result<Vec<Outgoing>, Error> {
        let waiting = self.writer.call(true, move |db| Waiting::find(db, limit)).await?;
        waiting.into_iter().map(Waiting::read).collect()
    }

    /// Marks statuses as published. A status that was requested again while it was being published is
    /// published once more, because the requester may have subscribed only after the first publication.
    pub async fn sent(&self, rows: Vec<i64>) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let mut update = db.prepare_cached(
                "UPDATE outbox SET sent = CASE WHEN sent > 2 THEN 2 ELSE 1 END WHERE id = ?",
            )?;
            let mut packed = db.prepare_cached("UPDATE done SET again = again > 1 WHERE id = ?")?;
            for row in rows {
                if row < 0 {
                    packed.execute([-row])?
                } else {
                    update.execute([row])?
                };
            }
            Ok(())
        };
        self.writer.change("sent", false, work).await
    }

    /// Queues the job's last status for another publication. Does nothing if the job or its status is
    /// forgotten.
    pub async fn send_again(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            // 3 and 4: requested again while it may be in flight, for the first time (3) or as a repetition
            // (4).
            let sql = "UPDATE outbox SET sent = CASE sent WHEN 0 THEN 3 WHEN 1 THEN 2 ELSE 4 END
                 WHERE job_id = ?1 AND sent < 3
                 AND seq = (SELECT max(seq) FROM outbox WHERE job_id = ?1)";
            db.execute(sql, [id.as_str()])?;
            let sql =
                "UPDATE done SET again = min(again + 1, 2) WHERE job_id = ? AND story IS NOT NULL";
            db.execute(sql, [id.as_str()])?;
            Ok(())
        };
        self.writer.change("send_again", false, work).await
    }

    /// The number of statuses that are waiting to be published.
    pub async fn unsent_count(&self) -> Result<u64, Error> {
        let work = |db: &Connection| {
            let sql = "SELECT (SELECT count(*) FROM outbox WHERE sent <> 1)
                 + (SELECT count(*) FROM done WHERE again > 0)";
            let count: i64 = db.query_row(sql, [], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or_default())
        };
        self.writer.call(false, work).await
    }
}
