//! A job's history: one row per event. Consecutive repeats share one row.
//!
//! Invariants: a step that fails for weeks does not add a row per try. A row of repeats keeps the first and
//! the last time, the count, and the text of the last one.

use crate::sql::{Connection, Row, params};

use super::Error;
use crate::clock::Timestamp;
use crate::job::phase::Event;

/// An event of a job that happened once or several times in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// When it was recorded first.
    pub at: Timestamp,
    /// When it was recorded last.
    pub until: Timestamp,
    /// How many times in a row it happened.
    pub times: u64,
    /// The event; of repeats, the last one.
    pub event: Event,
}

/// The columns of an event's row, in the order that [`happened`] reads them.
pub(super) const COLUMNS: &str = "at_ms, until_ms, times, event";

/// The kind of an event that reserves GPUs: one precedes each try of a claim.
const RESERVED: &str = "reserved";
/// The kind of an event that tells how far a pull is: some precede each failure of a pull.
const PULLING: &str = "pulling";

/// An event in its row's form. The caller serializes it, so that the database thread need not.
pub(super) struct Ready {
    event: String,
    kind: Option<String>,
}

impl Ready {
    pub(super) fn of(event: &Event) -> Result<Self, Error> {
        let kind = match event {
            Event::Failed { fault, .. } => Some(format!("failed: {}", fault.reason.code())),
            Event::Reserved { .. } => Some(RESERVED.to_owned()),
            Event::Pulling { .. } => Some(PULLING.to_owned()),
            _ => None,
        };
        Ok(Self { event: serde_json::to_string(event)?, kind })
    }

    /// Adds the event to the job's history, or increments the count of the row that it repeats.
    pub(super) fn append(&self, db: &Connection, job: &str, at_ms: i64) -> Result<(), Error> {
        if let Some(row) = self.repeated(db, job)? {
            let sql = "UPDATE events SET times = times + 1, until_ms = ?, event = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![at_ms, self.event, row])?;
            return Ok(());
        }
        let sql = "INSERT INTO events (job_id, at_ms, event, kind) VALUES (?, ?, ?, ?)";
        db.prepare_cached(sql)?.execute(params![job, at_ms, self.event, self.kind])?;
        Ok(())
    }

    /// The row of the failure that this event repeats. A reservation or a pull between two equal failures is
    /// deleted.
    fn repeated(&self, db: &Connection, job: &str) -> Result<Option<i64>, Error> {
        let Some(kind) = self.kind.as_deref().filter(|kind| *kind != RESERVED) else {
            return Ok(None);
        };
        let sql = "SELECT id, kind FROM events WHERE job_id = ? ORDER BY id DESC LIMIT 2";
        let mut query = db.prepare_cached(sql)?;
        let rows = query.query_map([job], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let newest: Vec<(i64, Option<String>)> = rows.collect::<Result<_, _>>()?;
        Ok(match newest.as_slice() {
            [(row, Some(last)), ..] if last == kind => Some(*row),
            [(between, Some(last)), (row, Some(before))]
                if [RESERVED, PULLING].contains(&last.as_str()) && before == kind =>
            {
                db.prepare_cached("DELETE FROM events WHERE id = ?")?.execute([between])?;
                Some(*row)
            }
            _ => None,
        })
    }
}

/// Decodes an event's row.
pub(super) fn happened(row: &Row<'_>) -> Result<Happened, Error> {
    let (at, until): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
    let (times, event): (i64, String) = (row.get(2)?, row.get(3)?);
    let time = |ms: i64| Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or(0));
    Ok(Happened {
        at: time(at),
        until: time(until.unwrap_or(at)),
        times: u64::try_from(times).unwrap_or(1),
        event: serde_json::from_str(&event)?,
    })
}
