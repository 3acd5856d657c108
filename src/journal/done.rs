//! Packs finished jobs and refusals: each becomes one row in `done` as soon as its statuses are published.
//!
//! Invariants: an id that was used up stays used up. A row is packed only when nothing can change it any
//! more, in the transaction that deletes the old rows. Every call reads and deletes a bounded number of rows,
//! so that no writer waits long behind it.

use crate::sql::{Connection, OptionalExtension as _, params};

use super::events::{self, Happened};
use super::packed::pack;
use super::story::{KEPT_MAX, Story};
use super::{Error, Journal};
use crate::ids::{Hash, JobId};
use crate::job::{Job, Status};

/// The phase of a refusal whose sender had not proved that the id was theirs.
pub(super) const UNPROVEN: &str = "unproven";

/// Jobs packed by one call. Reading that many takes one or two milliseconds.
const AT_ONCE: u32 = 16;

/// Surplus events and statuses deleted in one transaction, before their jobs are packed.
const TRIMMED_AT_ONCE: u32 = 256;

/// Rows of an older version that one call looks at.
const SWEPT_AT_ONCE: u32 = 64;

/// Queues the job's rows for packing, which happens once its statuses are published.
pub(super) fn leave(db: &Connection, id: &JobId) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO leaving (job_id) VALUES (?)";
    db.prepare_cached(sql)?.execute([id.as_str()])?;
    Ok(())
}

/// Checks that a row may be inserted under this id. With `takes_over`, a job replaces a refusal that did not
/// use the id up.
pub(super) fn make_way(db: &Connection, id: &JobId, takes_over: bool) -> Result<(), Error> {
    if takes_over {
        let sql = "DELETE FROM done WHERE job_id = ? AND phase = 'unproven'";
        db.prepare_cached(sql)?.execute([id.as_str()])?;
        db.prepare_cached("DELETE FROM leaving WHERE job_id = ?")?.execute([id.as_str()])?;
    }
    if holds(db, id)? {
        Err(Error::Failed(format!("job {id} is in the journal").into()))
    } else {
        Ok(())
    }
}

/// Whether the id has a packed row.
pub(super) fn holds(db: &Connection, id: &JobId) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM done WHERE job_id = ?";
    Ok(db.prepare_cached(sql)?.exists([id.as_str()])?)
}

/// The number of rows of a job that were deleted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trimmed {
    events: u32,
    statuses: u32,
}

impl Trimmed {
    pub(super) fn rows(self) -> u32 {
        self.events.saturating_add(self.statuses)
    }
}

/// Deletes a job's events and statuses, oldest first: at most `at_most` rows, and none of the newest `keep`
/// of each.
pub(super) fn trim(db: &Connection, id: &str, keep: u32, at_most: u32) -> Result<Trimmed, Error> {
    let events = "DELETE FROM events WHERE id IN
         (SELECT id FROM events WHERE job_id = ?1 AND id <=
             (SELECT id FROM events WHERE job_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
          ORDER BY id LIMIT ?3)";
    let statuses = "DELETE FROM outbox WHERE id IN
         (SELECT id FROM outbox WHERE job_id = ?1 AND seq <=
             (SELECT seq FROM outbox WHERE job_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)
          ORDER BY seq LIMIT ?3)";
    let gone = |sql: &str, at_most: u32| -> Result<u32, Error> {
        let gone = db.prepare_cached(sql)?.execute(params![id, keep, at_most])?;
        Ok(u32::try_from(gone).unwrap_or(at_most))
    };
    let events = gone(events, at_most)?;
    Ok(Trimmed { events, statuses: gone(statuses, at_most.saturating_sub(events))? })
}

/// What a call has found to do.
enum Next {
    /// Jobs to pack; empty if there are none.
    Pack(Vec<Leaving>),
    /// This many surplus rows were deleted instead; pack in a later call.
    Trimmed(u32),
}

/// A job's rows as stored.
struct Leaving {
    job_id: String,
    body_hash: String,
    phase: String,
    state: Option<String>,
    updated_ms: i64,
    events: Vec<Happened>,
    left_out: u64,
    /// The newest statuses with their sequence numbers, newest first.
    said: Vec<(i64, Vec<u8>)>,
}

/// The job's packed row.
struct Packed {
    job_id: String,
    body_hash: [u8; 32],
    phase: String,
    refused: bool,
    seq: i64,
    updated_ms: i64,
    deadline_ms: Option<i64>,
    story: Option<Vec<u8>>,
}

impl Leaving {
    /// The oldest jobs that can be packed. If they have surplus rows, deletes some of those instead: deleting
    /// all of them along with the jobs would block other writers.
    fn next(db: &Connection) -> Result<Next, Error> {
        // While NATS is unreachable nothing can be packed, so only the oldest entries are examined.
        let sql = "SELECT jobs.job_id, body_hash, phase, state, updated_ms, trimmed
             FROM (SELECT id, job_id, trimmed FROM leaving ORDER BY id LIMIT 256) AS oldest
             CROSS JOIN jobs ON jobs.job_id = oldest.job_id
             WHERE open = 0 AND NOT EXISTS
                 (SELECT 1 FROM outbox WHERE outbox.job_id = jobs.job_id AND sent <> 1)
             ORDER BY oldest.id LIMIT ?";
        let mut query = db.prepare_cached(sql)?;
        let rows = query.query_map([AT_ONCE], |row| {
            Ok(Self {
                job_id: row.get(0)?,
                body_hash: row.get(1)?,
                phase: row.get(2)?,
                state: row.get(3)?,
                updated_ms: row.get(4)?,
                events: Vec::new(),
                left_out: row.get::<_, u32>(5)?.into(),
                said: Vec::new(),
            })
        })?;
        let mut found = rows.collect::<Result<Vec<Self>, _>>()?;
        let mut gone = 0;
        for one in &found {
            gone += one.trim(db, TRIMMED_AT_ONCE - gone)?;
        }
        if gone > 0 {
            return Ok(Next::Trimmed(gone));
        }
        found.iter_mut().try_for_each(|one| one.complete(db))?;
        Ok(Next::Pack(found))
    }

    /// Deletes at most `at_most` of the job's surplus rows and returns how many.
    fn trim(&self, db: &Connection, at_most: u32) -> Result<u32, Error> {
        let trimmed = trim(db, &self.job_id, KEPT_MAX, at_most)?;
        if trimmed.events > 0 {
            let sql = "UPDATE leaving SET trimmed = trimmed + ? WHERE job_id = ?";
            db.prepare_cached(sql)?.execute(params![trimmed.events, self.job_id])?;
        }
        Ok(trimmed.rows())
    }

    /// Reads the job's newest events and statuses.
    fn complete(&mut self, db: &Connection) -> Result<(), Error> {
        let columns = events::COLUMNS;
        let sql = format!("SELECT {columns} FROM events WHERE job_id = ? ORDER BY id DESC LIMIT ?");
        let mut query = db.prepare_cached(&sql)?;
        let mut rows = query.query(params![self.job_id, KEPT_MAX])?;
        while let Some(row) = rows.next()? {
            // An event that this version can't read is left out.
            self.events.extend(events::happened(row).ok());
        }
        self.events.reverse();
        let sql = "SELECT count(*) FROM events WHERE job_id = ?";
        let all: i64 = db.prepare_cached(sql)?.query_row([&self.job_id], |row| row.get(0))?;
        let here = u64::try_from(all).unwrap_or(0).saturating_sub(self.events.len() as u64);
        self.left_out = self.left_out.saturating_add(here);
        let sql = "SELECT seq, body FROM outbox WHERE job_id = ? ORDER BY seq DESC LIMIT ?";
        let mut query = db.prepare_cached(sql)?;
        let rows = query
            .query_map(params![self.job_id, KEPT_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.said = rows.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Builds the packed row. If this version can't read the job, only the id is remembered.
    fn pack(self) -> Result<Packed, Error> {
        let hash: Hash = self.body_hash.parse().map_err(|err| Error::Failed(Box::new(err)))?;
        let refused = self.state.is_none();
        let seq = self.said.first().map_or(0, |(seq, _)| *seq);
        let job: Option<Job> = self.state.as_deref().and_then(|it| serde_json::from_str(it).ok());
        let deadline = job.as_ref().and_then(|job| job.spec.deadline);
        let readable = refused || job.is_some();
        let mut said = self.said.into_iter().map(|(_, body)| body);
        let last = said.next().filter(|_| readable);
        let story = last.map(|last| {
            let said = said.filter_map(|body| serde_json::from_slice(&body).ok());
            let mut said: Vec<Status> = said.collect();
            said.reverse();
            let (events, left_out) = (self.events, self.left_out);
            Story { last, job, events, left_out, said }.pack()
        });
        Ok(Packed {
            job_id: self.job_id,
            body_hash: hash.0,
            phase: self.phase,
            refused,
            seq,
            updated_ms: self.updated_ms,
            deadline_ms: deadline.map(super::millis),
            story: story.transpose()?,
        })
    }
}

impl Packed {
    /// Replaces the job's rows, unless they have changed since they were read.
    fn replace(&self, db: &Connection) -> Result<(), Error> {
        let sql = "DELETE FROM jobs WHERE job_id = ?1 AND open = 0 AND phase = ?2
             AND updated_ms = ?3 AND NOT EXISTS
                 (SELECT 1 FROM outbox WHERE outbox.job_id = ?1 AND sent <> 1)";
        let key = params![self.job_id, self.phase, self.updated_ms];
        if db.prepare_cached(sql)?.execute(key)? == 0 {
            return Ok(());
        }
        db.prepare_cached("DELETE FROM leaving WHERE job_id = ?")?.execute([&self.job_id])?;
        let sql = "INSERT INTO done
             (job_id, body_hash, phase, refused, seq, due_ms, deadline_ms, story)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        db.prepare_cached(sql)?.execute(params![
            self.job_id,
            self.body_hash,
            self.phase,
            self.refused,
            self.seq,
            self.updated_ms,
            self.deadline_ms,
            self.story,
        ])?;
        Ok(())
    }
}

impl Journal {
    /// Packs some finished jobs and refusals, or else some rows that an older version left. Returns how many
    /// rows it looked at or deleted; 0 if there is nothing to do.
    pub async fn pack(&self) -> Result<usize, Error> {
        let leaving = match self.writer.call(false, Leaving::next).await? {
            Next::Pack(leaving) => leaving,
            Next::Trimmed(rows) => return Ok(rows as usize),
        };
        if leaving.is_empty() {
            let jobs = self.writer.call(false, sweep_jobs).await?;
            return if jobs > 0 { Ok(jobs) } else { self.pack_receipts().await };
        }
        let count = leaving.len();
        // Compress here, not on the database thread.
        let packed = leaving.into_iter().map(Leaving::pack).collect::<Result<Vec<_>, _>>()?;
        let work = move |db: &Connection| packed.iter().try_for_each(|one| one.replace(db));
        self.writer.change("packed", false, work).await?;
        Ok(count)
    }

    /// Packs some receipts that an older version stored unpacked.
    async fn pack_receipts(&self) -> Result<usize, Error> {
        let work = |db: &Connection| {
            let Some(at) = sweep(db, "receipts")? else { return Ok(None) };
            let sql = "SELECT rowid, document FROM receipts WHERE rowid > ? ORDER BY rowid LIMIT ?";
            let mut query = db.prepare_cached(sql)?;
            let rows = query
                .query_map(params![at, SWEPT_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(Some(rows.collect::<Result<Vec<(i64, String)>, _>>()?))
        };
        let receipts: Result<_, Error> = self.writer.call(false, work).await;
        let Some(receipts) = receipts? else { return Ok(0) };
        let (count, last) = (receipts.len(), receipts.last().map_or(i64::MAX, |(row, _)| *row));
        let packed = receipts.iter().filter(|(_, document)| !document.is_empty());
        let packed = packed.map(|(row, document)| Ok((*row, pack(document.as_bytes())?)));
        let packed = packed.collect::<Result<Vec<_>, Error>>()?;
        let work = move |db: &Connection| {
            let sql = "UPDATE receipts SET packed = ?, document = '' WHERE rowid = ?";
            let mut update = db.prepare_cached(sql)?;
            for (row, packed) in packed {
                update.execute(params![packed, row])?;
            }
            advance(db, "receipts", last)
        };
        self.writer.call(false, work).await?;
        Ok(count)
    }
}

/// Queues some finished jobs of an older version for packing; returns how many rows it looked at.
fn sweep_jobs(db: &Connection) -> Result<usize, Error> {
    let Some(at) = sweep(db, "jobs")? else { return Ok(0) };
    let sql = "SELECT rowid, job_id, open FROM jobs WHERE rowid > ? ORDER BY rowid LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows = query
        .query_map(params![at, SWEPT_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows = rows.collect::<Result<Vec<(i64, String, bool)>, _>>()?;
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO leaving (job_id) VALUES (?)")?;
    for (_, job_id, _) in rows.iter().filter(|(_, _, open)| !open) {
        insert.execute([job_id])?;
    }
    advance(db, "jobs", rows.last().map_or(i64::MAX, |(row, ..)| *row))?;
    Ok(rows.len())
}

/// The last row id that a sweep has handled; `None` once the sweep is complete.
fn sweep(db: &Connection, name: &str) -> Result<Option<i64>, Error> {
    let sql = "SELECT at FROM sweeps WHERE name = ?";
    let mut query = db.prepare_cached(sql)?;
    Ok(query.query_row([name], |row| row.get(0)).optional()?)
}

/// Records a sweep's progress and deletes it once it has reached its last row.
fn advance(db: &Connection, name: &str, at: i64) -> Result<(), Error> {
    db.prepare_cached("UPDATE sweeps SET at = ? WHERE name = ?")?.execute(params![at, name])?;
    db.prepare_cached("DELETE FROM sweeps WHERE name = ? AND at >= last")?.execute([name])?;
    Ok(())
}
