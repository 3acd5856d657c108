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

/// Most verdicts of all programs that are kept.
const VERDICTS_MAX: i64 = 100_000;

/// How long incidents are kept after their end, and restarts.
const INCIDENTS_KEPT: Duration = Duration::from_hours(90 * 24);

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
        self.forget_all_but(now, (OBSERVATIONS_MAX, VERDICTS_MAX)).await
    }

    async fn forget_all_but(
        &self,
        now: Timestamp,
        (observations, verdicts): (i64, i64),
    ) -> Result<bool, Error> {
        let before = |kept: Duration| {
            let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
            ms(Timestamp::from_unix_ms(now.unix_ms().saturating_sub(kept)))
        };
        let (before, long_before) = (before(KEPT), before(INCIDENTS_KEPT));
        self.writer
            .call_aside(move |db: &Connection| {
                let up_to = newest(db, "observations")? - observations;
                let gone = forget_observations(db, before, up_to)?;
                let old = "DELETE FROM verdicts WHERE id IN (SELECT id FROM verdicts
                           WHERE at_ms < ?1 OR id <= ?2 ORDER BY id LIMIT ?3)";
                let up_to = newest(db, "verdicts")? - verdicts;
                let judged = db.execute(old, params![before, up_to, FORGET_MAX])?;
                let most = gone.max(judged).max(forget_incidents(db, long_before)?);
                Ok(i64::try_from(most).unwrap_or(i64::MAX) >= FORGET_MAX)
            })
            .await
    }
}

/// The newest row's number; 0 for none.
fn newest(db: &Connection, table: &'static str) -> Result<i64, SqliteError> {
    db.query_row(&format!("SELECT COALESCE(MAX(id), 0) FROM {table}"), [], |row| row.get(0))
}

/// Forgets incidents that ended before then, with their members, and restarts of before. Returns the larger number.
fn forget_incidents(db: &Connection, before_ms: i64) -> Result<usize, SqliteError> {
    // The newest stays, so that no number is given twice.
    let incidents = "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents
                     WHERE closed_ms < ?1 AND id < (SELECT MAX(id) FROM incidents)
                     ORDER BY id LIMIT ?2)";
    let incidents = db.execute(incidents, params![before_ms, FORGET_MAX])?;
    let restarts = "DELETE FROM restarts WHERE id IN (SELECT id FROM restarts WHERE at_ms < ?1
                    ORDER BY id LIMIT ?2)";
    Ok(incidents.max(db.execute(restarts, params![before_ms, FORGET_MAX])?))
}

/// Sums the oldest observations up and forgets them, so that what stays can still be replayed. Returns how many.
fn forget_observations(db: &Connection, before_ms: i64, up_to: i64) -> Result<usize, Error> {
    let select = "SELECT id, name, body FROM observations WHERE id <= ?2 OR id <
                  (SELECT COALESCE(MIN(id), 9223372036854775807) FROM observations WHERE at_ms >= ?1)
                  ORDER BY id LIMIT ?3";
    let mut select = db.prepare_cached(select)?;
    let rows = select.query_map(params![before_ms, up_to, FORGET_MAX], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut bases: BTreeMap<String, Base> = BTreeMap::new();
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
        // What was before is in the base already.
        if id >= base.since
            && let Ok(observation) = serde_json::from_str::<Observation>(&body)
        {
            base.state.apply(&observation);
        }
        db.prepare_cached("DELETE FROM observations WHERE id = ?1")?.execute([id])?;
        gone += 1;
    }
    for (name, base) in bases {
        let set = "UPDATE programs SET base = ?2 WHERE name = ?1";
        db.prepare_cached(set)?.execute(params![name, super::json(&base.state)?])?;
    }
    Ok(gone)
}

/// What a recording begins with.
struct Base {
    state: Watched,
    /// The first observation that is not in it yet, if none was forgotten since.
    since: i64,
}

/// What a recording of a program begins with.
fn base(db: &Connection, name: &str) -> Result<Base, SqliteError> {
    let select = "SELECT programs.base, COALESCE(expects.since_observation, 0) FROM programs
                  LEFT JOIN expects ON expects.name = programs.name WHERE programs.name = ?1";
    let row = db.query_row(select, [name], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
    let (base, since) = row.optional()?.unwrap_or_default();
    Ok(Base { state: serde_json::from_str(&base).unwrap_or_default(), since })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    async fn count(store: &Store, table: &'static str) -> i64 {
        let count = format!("SELECT COUNT(*) FROM {table}");
        let work = move |db: &Connection| -> Result<i64, Error> {
            Ok(db.query_row(&count, [], |row| row.get(0))?)
        };
        store.writer.call(false, work).await.unwrap()
    }

    #[tokio::test]
    async fn of_too_many_verdicts_the_newest_stay() {
        let store = Store::in_memory().unwrap();
        let now = Timestamp::from_unix_ms(100 * DAY_MS);
        let fill = move |db: &Connection| -> Result<(), Error> {
            for id in 1..=9 {
                let add = "INSERT INTO verdicts (id, name, after, at_ms, body) VALUES (?1, 'one', ?1, ?2, '{}')";
                db.execute(add, params![id, ms(now)])?;
            }
            Ok(())
        };
        store.writer.call(false, fill).await.unwrap();
        assert!(!store.forget(now).await.unwrap());
        assert_eq!(count(&store, "verdicts").await, 9);
        store.forget_all_but(now, (4, 4)).await.unwrap();
        let left = store.verdicts("one", 100).await.unwrap();
        assert_eq!(left.iter().map(|it| it.after).collect::<Vec<_>>(), [9, 8, 7, 6]);
    }

    #[tokio::test]
    async fn incidents_go_with_their_members_90_days_after_their_end_and_restarts_too() {
        let store = Store::in_memory().unwrap();
        let now = Timestamp::from_unix_ms(200 * DAY_MS);
        let fill = move |db: &Connection| -> Result<(), Error> {
            let day = |day: u64| ms(Timestamp::from_unix_ms(day * DAY_MS));
            for (id, closed) in [(1, Some(109)), (2, Some(111)), (3, None), (4, Some(100))] {
                let add = "INSERT INTO incidents (id, rule, opened_ms, closed_ms, head)
                           VALUES (?1, 'down', 0, ?2, '{}')";
                db.execute(add, params![id, closed.map(day)])?;
                let add = "INSERT INTO members (incident, name, body) VALUES (?1, 'one', '{}')";
                db.execute(add, [id])?;
            }
            for at in [109, 111] {
                let add = "INSERT INTO restarts (name, at_ms, why) VALUES ('one', ?1, 'down')";
                db.execute(add, [day(at)])?;
            }
            Ok(())
        };
        store.writer.call(false, fill).await.unwrap();
        store.forget(now).await.unwrap();
        for table in ["incidents", "members"] {
            assert_eq!(count(&store, table).await, 3, "{table}: an open one and the newest stay");
        }
        assert_eq!(count(&store, "restarts").await, 1);
    }
}
