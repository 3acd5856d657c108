//! What is forgotten after its time, so that the file doesn't grow for ever.

use std::time::Duration;

use super::nodes::{SLOT_MS, ms};
use super::{Error, Store, identity};
use crate::clock::Timestamp;
use crate::sql::{Connection, params};

/// How long the history of beats is kept: a month and some days. It takes some 8 KB a node and day.
const SLOTS_KEPT: Duration = Duration::from_hours(35 * 24);

/// How long changes of standing and watches are kept: a year and some days.
const STANDINGS_KEPT: Duration = Duration::from_hours(400 * 24);

/// How long events are kept, what watchers said last, and its changes.
const EVENTS_KEPT: Duration = Duration::from_hours(30 * 24);

/// How long jobs are kept.
const JOBS_KEPT: Duration = Duration::from_hours(90 * 24);

/// How long it is known when nodes said on NATS that they are alive.
const ALIVE_KEPT: Duration = Duration::from_hours(7 * 24);

/// The most rows that one commit removes, so that no beat waits for long.
const ROWS_MAX: u32 = 5_000;

fn kept_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// How old rows may be: the time that a statement compares with.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// The number of a slot of beats.
    Slots,
    Standings,
    Events,
    Jobs,
    /// The number of a slot of signs of life.
    Alive,
}

/// What removes rows that are older than `?1`, at most `?2`.
const OLD: [(&str, Before); 10] = [
    (
        "DELETE FROM slots WHERE (name, slot) IN
         (SELECT name, slot FROM slots WHERE slot < ?1 LIMIT ?2)",
        Before::Slots,
    ),
    (
        "DELETE FROM standings WHERE rowid IN
         (SELECT rowid FROM standings WHERE at_ms < ?1 LIMIT ?2)",
        Before::Standings,
    ),
    (
        "DELETE FROM seen_changes WHERE id IN
         (SELECT id FROM seen_changes WHERE at_ms < ?1 LIMIT ?2)",
        Before::Events,
    ),
    (
        "DELETE FROM seen WHERE (name, watcher) IN
         (SELECT name, watcher FROM seen WHERE heard_ms < ?1 LIMIT ?2)",
        Before::Events,
    ),
    (
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at_ms < ?1 LIMIT ?2)",
        Before::Events,
    ),
    (
        "DELETE FROM jobs WHERE (node, job_id) IN
         (SELECT node, job_id FROM jobs WHERE last_ms < ?1 LIMIT ?2)",
        Before::Jobs,
    ),
    (
        "DELETE FROM alive WHERE (id, slot) IN (SELECT id, slot FROM alive WHERE slot < ?1 LIMIT ?2)",
        Before::Alive,
    ),
    (
        "DELETE FROM told WHERE (kind, id, place) IN
         (SELECT kind, id, place FROM told JOIN tellers USING (kind, id) WHERE last_ms < ?1 LIMIT ?2)",
        Before::Events,
    ),
    // Once nothing that it told is left.
    (
        "DELETE FROM tellers WHERE (kind, id) IN
         (SELECT kind, id FROM tellers WHERE last_ms < ?1 AND NOT EXISTS
         (SELECT 1 FROM told WHERE told.kind = tellers.kind AND told.id = tellers.id) LIMIT ?2)",
        Before::Events,
    ),
    (
        "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE made_ms < ?1 LIMIT ?2)",
        Before::Jobs,
    ),
];

/// Removes incidents. The newest stays, so that no number is given twice.
const INCIDENTS: &str =
    "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE closed_ms < ?1
     AND id < (SELECT MAX(id) FROM incidents) LIMIT ?2)";

impl Store {
    /// Removes what is older than its time, a bounded number of rows. Whether there is more.
    pub async fn forget(&self, now: Timestamp) -> Result<bool, Error> {
        let before = move |kept: Duration| ms(now).saturating_sub(kept_ms(kept));
        let work = move |db: &Connection| {
            let standings = before(STANDINGS_KEPT);
            let mut most = db.execute(INCIDENTS, params![standings, ROWS_MAX])?;
            for (sql, what) in OLD {
                let bound = match what {
                    Before::Slots => before(SLOTS_KEPT) / SLOT_MS.cast_signed(),
                    Before::Standings => standings,
                    Before::Events => before(EVENTS_KEPT),
                    Before::Jobs => before(JOBS_KEPT),
                    Before::Alive => before(ALIVE_KEPT) / SLOT_MS.cast_signed(),
                };
                most = most.max(db.execute(sql, params![bound, ROWS_MAX])?);
            }
            db.execute("DELETE FROM watches WHERE to_ms < ?1", [standings])?;
            db.execute("DELETE FROM silences WHERE until_ms < ?1", [ms(now)])?;
            db.execute("DELETE FROM sessions WHERE until_ms < ?1", [ms(now)])?;
            db.execute("DELETE FROM earned WHERE day < ?1", [standings / super::earned::DAY_MS])?;
            most = most.max(identity::forget(db, now, ROWS_MAX)?);
            most = most.max(super::usage::forget(db, now, ROWS_MAX)?);
            Ok(most >= ROWS_MAX as usize)
        };
        self.writer.call_aside(work).await
    }
}
