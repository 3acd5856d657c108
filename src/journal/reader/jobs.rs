//! Jobs as a [`Reader`] sees them: lists of open and finished jobs, and the history of one.

use crate::sql::{Connection, Row, params};

use super::Reader;
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::phase::Event;
use crate::job::{Job, Status};
use crate::journal::events::{self, Happened, happened};
use crate::journal::story::Story;
use crate::journal::{Error, GpuReturn, done, gpu_returns};
use crate::node::GpuUuid;

/// How many of a job's newest events, and of its newest statuses, are read. A step that fails for weeks may
/// have more.
const HISTORY_MAX: u32 = 5_000;

/// The columns of a job that is not packed, in the order that [`record`] reads.
const COLUMNS: &str = "job_id, phase, open, updated_ms, state,
    CASE WHEN state IS NULL THEN (SELECT body FROM outbox
        WHERE outbox.job_id = jobs.job_id ORDER BY seq DESC LIMIT 1) END FROM jobs";

/// The columns of a packed job, in the order that [`Packed::of`] reads.
const PACKED: &str = "job_id, phase, refused, due_ms, deadline_ms, again, story FROM done";

/// A job id that the node remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The job's id.
    pub id: JobId,
    /// Whether the job still needs work.
    pub open: bool,
    /// When its row was last updated. If only the id is remembered: until when.
    pub updated: Timestamp,
    /// Whether it was taken or refused.
    pub standing: Standing,
}

/// What became of a job message.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// The job was taken.
    Taken(Box<Job>),
    /// The message was refused.
    Refused {
        /// The status of the refusal.
        status: Box<Status>,
        /// Whether the id is used up. If not, its owner may still use it.
        uses_id_up: bool,
    },
    /// The job was taken and ended so long ago that only its id is remembered.
    IdOnly {
        /// The name of the phase it ended in.
        phase: String,
        /// The job's deadline, until which the id is remembered.
        until: Timestamp,
    },
}

/// The newest jobs of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The records, newest first.
    pub records: Vec<Record>,
    /// The length of the whole list, including jobs that did not fit.
    pub total: u64,
}

/// Everything about one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Chronicle {
    /// The job's record.
    pub record: Record,
    /// The events, oldest first.
    pub events: Vec<Happened>,
    /// The number of older events that are left out.
    pub events_left_out: u64,
    /// The statuses, oldest first. Older ones are left out beyond the same limit as for events.
    pub said: Vec<StatusRecord>,
    /// The GPUs that it left, as far as that is known.
    pub returned: Vec<GpuReturn>,
}

impl Chronicle {
    /// The GPUs of the job's latest run.
    pub fn cards(&self) -> &[GpuUuid] {
        let mut events = self.events.iter().rev();
        let reserved = events.find_map(|happened| match &happened.event {
            Event::Reserved { gpus } => Some(gpus.as_slice()),
            _ => None,
        });
        reserved.unwrap_or_default()
    }

    /// The engine's id of the job's latest container.
    pub fn container(&self) -> Option<&str> {
        self.events.iter().rev().find_map(|happened| match &happened.event {
            Event::Started { container, .. } => Some(container.as_str()),
            _ => None,
        })
    }
}

/// One status of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusRecord {
    /// The status as it was sent.
    pub status: Status,
    /// Whether it was published.
    pub publication: Publication,
}

/// How far a status has come on its way to NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// It is not published yet.
    Waiting,
    /// It was published.
    Sent,
    /// It was published and is queued for a repetition.
    AskedAgain,
}

impl Reader {
    /// The open jobs, newest first, at most `limit`.
    pub fn open_jobs(&self, limit: u32) -> Result<Page, Error> {
        // One transaction, so that count and rows are from the same snapshot.
        let view = self.db.unchecked_transaction()?;
        let total = count(&view, "jobs WHERE open = 1")?;
        Ok(Page { records: in_hand(&view, "WHERE open = 1", limit)?, total })
    }

    /// Every job id that the node remembers, at most `limit`: first the jobs that are not packed, newest
    /// first, then the packed ones, last packed first.
    pub fn jobs(&self, limit: u32) -> Result<Page, Error> {
        let view = self.db.unchecked_transaction()?;
        let total = count(&view, "jobs")? + count(&view, "done")?;
        let mut records = in_hand(&view, "", limit)?;
        let left = limit.saturating_sub(u32::try_from(records.len()).unwrap_or(limit));
        let sql = format!("SELECT {PACKED} ORDER BY id DESC LIMIT ?");
        let mut query = view.prepare(&sql)?;
        let mut rows = query.query([left])?;
        while let Some(row) = rows.next()? {
            records.push(Packed::of(row)?.chronicle()?.record);
        }
        Ok(Page { records, total })
    }

    /// Everything about one job; `None` if the id is not known or was forgotten.
    pub fn chronicle(&self, id: &JobId) -> Result<Option<Chronicle>, Error> {
        let view = self.db.unchecked_transaction()?;
        // All reads are from one snapshot, so that they fit together.
        let sql = format!("SELECT {COLUMNS} WHERE job_id = ?");
        let mut query = view.prepare(&sql)?;
        let mut rows = query.query([id.as_str()])?;
        let returned = gpu_returns::of(&view, id)?;
        let Some(row) = rows.next()? else {
            let packed = packed(&view, id)?;
            return Ok(packed.map(|packed| Chronicle { returned, ..packed }));
        };
        let record = record(row)?;
        let count = "SELECT count(*) FROM events WHERE job_id = ?";
        let events_total = view.query_row(count, [id.as_str()], |row| row.get(0)).map(unsigned)?;
        let columns = events::COLUMNS;
        let sql = format!("SELECT {columns} FROM events WHERE job_id = ? ORDER BY id DESC LIMIT ?");
        let events = newest(&view, &sql, id, happened)?;
        let sql = "SELECT body, sent FROM outbox WHERE job_id = ? ORDER BY seq DESC LIMIT ?";
        let said = newest(&view, sql, id, said)?;
        let events_left_out = events_total.saturating_sub(events.len() as u64);
        Ok(Some(Chronicle { record, events, events_left_out, said, returned }))
    }
}

fn count(view: &Connection, of: &str) -> Result<u64, Error> {
    let sql = format!("SELECT count(*) FROM {of}");
    Ok(view.query_row(&sql, [], |row| row.get(0)).map(unsigned)?)
}

fn in_hand(view: &Connection, filter: &str, limit: u32) -> Result<Vec<Record>, Error> {
    let sql = format!("SELECT {COLUMNS} {filter} ORDER BY jobs.rowid DESC LIMIT ?");
    let mut query = view.prepare(&sql)?;
    let mut rows = query.query([limit])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn packed(view: &Connection, id: &JobId) -> Result<Option<Chronicle>, Error> {
    let sql = format!("SELECT {PACKED} WHERE job_id = ?");
    let mut query = view.prepare(&sql)?;
    let mut rows = query.query([id.as_str()])?;
    rows.next()?.map(|row| Packed::of(row)?.chronicle()).transpose()
}

/// A row of a packed job or refusal.
struct Packed {
    id: JobId,
    phase: String,
    refused: bool,
    due: Timestamp,
    deadline: Option<Timestamp>,
    again: bool,
    story: Option<Story>,
}

impl Packed {
    fn of(row: &Row<'_>) -> Result<Self, Error> {
        let id: String = row.get(0)?;
        let story: Option<Vec<u8>> = row.get(6)?;
        Ok(Self {
            id: id.parse().map_err(|err| Error::Failed(Box::new(err)))?,
            phase: row.get(1)?,
            refused: row.get(2)?,
            due: time(row.get(3)?),
            deadline: row.get::<_, Option<i64>>(4)?.map(time),
            again: row.get(5)?,
            story: story.map(|story| Story::unpack(&story)).transpose()?,
        })
    }

    fn chronicle(self) -> Result<Chronicle, Error> {
        let Self { id, phase, refused, due: updated, deadline, again, story } = self;
        let until = deadline.unwrap_or(updated);
        let Some(story) = story else {
            let standing = Standing::IdOnly { phase, until };
            let record = Record { id, open: false, updated: until, standing };
            return Ok(Chronicle {
                record,
                events: Vec::new(),
                events_left_out: 0,
                said: Vec::new(),
                returned: Vec::new(),
            });
        };
        let last: Status = serde_json::from_slice(&story.last)?;
        let standing = match story.job {
            Some(job) => Standing::Taken(Box::new(job)),
            None if refused => {
                let uses_id_up = phase != done::UNPROVEN;
                Standing::Refused { status: Box::new(last.clone()), uses_id_up }
            }
            None => Standing::IdOnly { phase, until },
        };
        let said = story.said.into_iter().map(|status| (status, Publication::Sent));
        let publication = if again { Publication::AskedAgain } else { Publication::Sent };
        let said = said.chain([(last, publication)]);
        Ok(Chronicle {
            record: Record { id, open: false, updated, standing },
            events: story.events,
            events_left_out: story.left_out,
            said: said.map(|(status, publication)| StatusRecord { status, publication }).collect(),
            returned: Vec::new(),
        })
    }
}

/// The job's newest rows, in ascending order.
fn newest<T>(
    view: &Connection,
    sql: &str,
    id: &JobId,
    read: fn(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut query = view.prepare(sql)?;
    let mut rows = query.query(params![id.as_str(), HISTORY_MAX])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    found.reverse();
    Ok(found)
}

fn record(row: &Row<'_>) -> Result<Record, Error> {
    let id: String = row.get(0)?;
    let id = id.parse().map_err(|err| Error::Failed(Box::new(err)))?;
    let (phase, state): (String, Option<String>) = (row.get(1)?, row.get(4)?);
    let standing = match state {
        Some(state) => Standing::Taken(serde_json::from_str(&state)?),
        None => Standing::Refused {
            status: serde_json::from_slice(&row.get::<_, Vec<u8>>(5)?)?,
            uses_id_up: phase != done::UNPROVEN,
        },
    };
    Ok(Record { id, open: row.get(2)?, updated: time(row.get(3)?), standing })
}

fn said(row: &Row<'_>) -> Result<StatusRecord, Error> {
    let (body, sent): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
    let publication = match sent {
        0 => Publication::Waiting,
        1 => Publication::Sent,
        _ => Publication::AskedAgain,
    };
    Ok(StatusRecord { status: serde_json::from_slice(&body)?, publication })
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(unsigned(ms))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Address;
    use crate::job::phase::Asked;
    use crate::job::spec::parse;
    use crate::journal::Journal;

    #[tokio::test]
    async fn a_history_without_end_is_cut_at_its_older_side() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let parsed = parse(br#"{"job_id":"long","image":"img"}"#).unwrap();
        let (spec, spec_hash) = (parsed.spec, parsed.spec_hash);
        let asked = Asked { spec, spec_hash, target: "pool.a".to_owned() };
        let taken = Job::accept(asked, Address::new([1; 20]), 0, time(5));
        journal.admit(&taken, Vec::new(), None).await.unwrap();
        let db = Connection::open(dir.path().join("journal.db")).unwrap();
        let rows = HISTORY_MAX + 3;
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
             INSERT INTO events (job_id, at_ms, event) SELECT 'long', i, '\"fetched\"' FROM n";
        db.execute(sql, [rows]).unwrap();

        let reader = Reader::open(dir.path()).unwrap();
        let chronicle = reader.chronicle(taken.job.id()).unwrap().unwrap();
        assert_eq!((chronicle.events.len(), chronicle.events_left_out), (HISTORY_MAX as usize, 3));
        let newest = chronicle.events.last().map(|happened| happened.at);
        assert_eq!((chronicle.events[0].at, newest), (time(4), Some(time(rows.into()))));
        assert_eq!(chronicle.said.len(), 2);
        assert_eq!(chronicle.said[0].publication, Publication::Waiting);
        assert_eq!(reader.open_jobs(0).unwrap(), Page { records: Vec::new(), total: 1 });
    }
}
