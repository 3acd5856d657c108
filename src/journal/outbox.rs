//! Statuses on their way out: put in with the state that they follow from, taken out in order.

use crate::sql::{Connection, params};

use super::story::Story;
use super::{Error, Journal, receipts};
use crate::ids::JobId;
use crate::job::Status;

/// A status that is still to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its row, to mark it by; that of a job that is packed is below zero.
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

/// A status as it lies there.
enum Waiting {
    /// Of a job in hand.
    Row { row: i64, job_id: String, seq: i64, body: Vec<u8>, sent: i64 },
    /// The last one of a job that is packed.
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
    /// The next statuses to publish, in order, at most `limit`. Durable: what the world was told
    /// is not told otherwise after a power cut.
    pub async fn unsent(&self, limit: u32) -> Result<Vec<Outgoing>, Error> {
        let waiting = self.writer.call(true, move |db| Waiting::find(db, limit)).await?;
        waiting.into_iter().map(Waiting::read).collect()
    }

    /// These are published. One that was asked for again while it was on its way goes out once more:
    /// who asked may have begun to listen only then.
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

    /// The job's last status is to be published once more. Nothing happens where it is not known
    /// any more.
    pub async fn send_again(&self, id: &JobId) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            // 3 and 4: it may be on its way, for the first time or once more, and is asked for again.
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

    /// How many statuses are still to be published.
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
