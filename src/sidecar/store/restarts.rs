//! What was started again: the budget of restarts is counted from here.
//!
//! Must hold: a restart is written down, durable, before it is asked for, so that a kill can't make it happen more
//! often than the budget allows.

use super::{Error, Store, ms};
use crate::clock::Timestamp;
use crate::sql::{Connection, params};

impl Store {
    /// How often a program was started again since then, and when last.
    pub async fn restarts(
        &self,
        name: &str,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let count =
                    "SELECT COUNT(*), MAX(at_ms) FROM restarts WHERE name = ?1 AND at_ms >= ?2";
                Ok(db.query_row(count, params![name, ms(since)], |row| {
                    let last: Option<i64> = row.get(1)?;
                    Ok((row.get(0)?, last.map(super::moment)))
                })?)
            })
            .await
    }

    /// Notes that a program is about to be started again; returns the note's number.
    pub async fn restarting(&self, name: &str, why: &str, now: Timestamp) -> Result<i64, Error> {
        let (name, why) = (name.to_owned(), why.to_owned());
        let work = move |db: &Connection| {
            let add = "INSERT INTO restarts (name, at_ms, why) VALUES (?1, ?2, ?3)";
            db.prepare_cached(add)?.execute(params![name, ms(now), why])?;
            Ok(db.last_insert_rowid())
        };
        self.writer.change("sidecar.restarting", true, work).await
    }

    /// Notes what came of it.
    pub async fn restarted(&self, id: i64, outcome: &str) -> Result<(), Error> {
        let outcome = outcome.to_owned();
        let work = move |db: &Connection| {
            let set = "UPDATE restarts SET outcome = ?2 WHERE id = ?1";
            db.prepare_cached(set)?.execute(params![id, outcome])?;
            Ok(())
        };
        self.writer.change("sidecar.restarted", false, work).await
    }
}
