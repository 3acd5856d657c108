//! The history behind a job's state: one row an event, and one for what repeats itself.
//!
//! What must hold: a step that fails for weeks adds no row a try; of what repeats itself the first
//! moment, the last and the number of times are kept, and the last one's words.

use crate::sql::{Connection, Row, params};

use super::Error;
use crate::clock::Timestamp;
use crate::job::phase::Event;

/// What happened to a job, once or many times in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// When it was written down, first.
    pub at: Timestamp,
    /// When it was written down last.
    pub until: Timestamp,
    /// How often.
    pub times: u64,
    /// What; the last of them.
    pub event: Event,
}

/// What of an event's row is read, in the order that [`happened`] reads it.
pub(super) const COLUMNS: &str = "at_ms, until_ms, times, event";

/// A card was handed out: before each try of a claim.
const RESERVED: &str = "reserved";

/// An event as its row holds it, made ready by the caller.
pub(super) struct Ready {
    event: String,
    kind: Option<String>,
}

impl Ready {
    pub(super) fn of(event: &Event) -> Result<Self, Error> {
        let kind = match event {
            Event::Failed { fault, .. } => Some(format!("failed: {}", fault.reason.code())),
            Event::Reserved { .. } => Some(RESERVED.to_owned()),
            _ => None,
        };
        Ok(Self { event: serde_json::to_string(event)?, kind })
    }

    /// Adds it to the job's history, or counts it up there.
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

    /// The row of the failure that this one repeats. Between two failed claims lies a reservation,
    /// which goes.
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
            [(between, Some(last)), (row, Some(before))] if last == RESERVED && before == kind => {
                db.prepare_cached("DELETE FROM events WHERE id = ?")?.execute([between])?;
                Some(*row)
            }
            _ => None,
        })
    }
}

/// Reads the row of an event.
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
