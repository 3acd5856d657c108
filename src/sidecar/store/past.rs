//! What was observed and judged before, for the API and for recordings; and what of it is forgotten.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::{Error, Store, moment, ms};
use crate::clock::Timestamp;
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};
use crate::watch::observation::Observation;
use crate::watch::state::Watched;

/// How long observations and verdicts are kept.
const KEPT: Duration = Duration::from_hours(14 * 24);

/// Most observations of all programs that are kept, however many there are.
const OBSERVATIONS_MAX: i64 = 1_000_000;

/// How many rows one commit forgets.
const FORGET_MAX: i64 = 2_000;

/// A verdict as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// When.
    pub at: Timestamp,
    /// The number of the last observation that it rests on.
    pub after: i64,
    /// The verdict, as JSON.
    pub body: String,
}

impl Store {
    /// The newest verdicts on a program, the newest first.
    pub async fn verdicts(&self, name: &str, limit: u32) -> Result<Vec<Judged>, Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let select = "SELECT at_ms, after, body FROM verdicts WHERE name = ?1
                              ORDER BY id DESC LIMIT ?2";
                let mut select = db.prepare_cached(select)?;
                let rows = select.query_map(params![name, limit], |row| {
                    Ok(Judged { at: moment(row.get(0)?), after: row.get(1)?, body: row.get(2)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Observations of a program before this number, the newest first: their numbers and what they are as JSON.
    pub async fn observations(
        &self,
        name: &str,
        before: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let select = "SELECT id, body FROM observations WHERE name = ?1 AND id < ?2
                              ORDER BY id DESC LIMIT ?3";
                let mut select = db.prepare_cached(select)?;
                let rows = select.query_map(params![name, before, limit], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Forgets some of what is too old; true while there may be more.
    pub async fn forget(&self, now: Timestamp) -> Result<bool, Error> {
        let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        let before = ms(Timestamp::from_unix_ms(now.unix_ms().saturating_sub(kept)));
        self.writer
            .call_aside(move |db: &Connection| {
                let newest: i64 =
                    db.query_row("SELECT COALESCE(MAX(id), 0) FROM observations", [], |row| {
                        row.get(0)
                    })?;
                let gone = forget_observations(db, before, newest - OBSERVATIONS_MAX)?;
                let old = "DELETE FROM verdicts WHERE id IN (SELECT id FROM verdicts
                           WHERE at_ms < ?1 ORDER BY id LIMIT ?2)";
                let judged = db.execute(old, params![before, FORGET_MAX])?;
                let most = usize::try_from(FORGET_MAX).unwrap_or(usize::MAX);
                Ok(gone == most || judged == most)
            })
            .await
    }
}

/// Sums the oldest observations up and forgets them, so that what stays can still be replayed. Returns how many.
fn forget_observations(db: &Connection, before_ms: i64, up_to: i64) -> Result<usize, Error> {
    let select = "SELECT id, name, body FROM observations WHERE at_ms < ?1 OR id <= ?2
                  ORDER BY id LIMIT ?3";
    let mut select = db.prepare_cached(select)?;
    let rows = select.query_map(params![before_ms, up_to, FORGET_MAX], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut bases: BTreeMap<String, Watched> = BTreeMap::new();
    let mut gone = 0;
    for row in rows {
        let (id, name, body) = row?;
        let base = match bases.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let base = base(db, entry.key())?;
                entry.insert(base)
            }
        };
        if let Ok(observation) = serde_json::from_str::<Observation>(&body) {
            base.apply(&observation);
        }
        db.prepare_cached("DELETE FROM observations WHERE id = ?1")?.execute([id])?;
        gone += 1;
    }
    for (name, base) in bases {
        let set = "UPDATE programs SET base = ?2 WHERE name = ?1";
        db.prepare_cached(set)?.execute(params![name, super::json(&base)?])?;
    }
    Ok(gone)
}

/// What is known of the observations of a program that were forgotten.
fn base(db: &Connection, name: &str) -> Result<Watched, SqliteError> {
    let select = "SELECT base FROM programs WHERE name = ?1";
    let base: Option<String> = db.query_row(select, [name], |row| row.get(0)).optional()?;
    Ok(base.and_then(|base| serde_json::from_str(&base).ok()).unwrap_or_default())
}
