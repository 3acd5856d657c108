//! When the hub itself was there, so that what it did not watch is never told as silence.
//!
//! Invariant: a watch never reaches beyond the last time at which the hub was known to run.

use super::nodes::{ms, time};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::{Connection, SqliteError, params};

/// The most gaps that are returned: those of a page's history are far fewer.
const GAPS_MAX: usize = 1_000;

impl Store {
    /// Notes that the hub watches from now on. Returns until when it watched before, if it ever did.
    pub async fn began(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        self.writer.change("hub.watch", false, move |db| Ok(began(db, now)?)).await
    }

    /// Notes that the hub that began to watch at `began` still does. To be called every ten seconds.
    pub async fn still_here(&self, began: Timestamp, now: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE watches SET to_ms = max(to_ms, ?2) WHERE from_ms = ?1";
            db.prepare_cached(sql)?.execute(params![ms(began), ms(now)])?;
            Ok(())
        };
        self.writer.change("hub.watch", false, work).await
    }

    /// The times after `since` in which nobody watched, between the first watch and the last; the oldest first.
    pub async fn gaps(&self, since: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, Error> {
        self.writer.call(false, move |db| Ok(gaps(db, since)?)).await
    }
}

fn began(db: &Connection, now: Timestamp) -> Result<Option<Timestamp>, SqliteError> {
    let last: Option<i64> = db.query_row("SELECT max(to_ms) FROM watches", [], |row| row.get(0))?;
    // The clock may have been set back to the very millisecond of an earlier start.
    let sql = "INSERT OR REPLACE INTO watches (from_ms, to_ms) VALUES (?1, ?1)";
    db.execute(sql, [ms(now)])?;
    Ok(last.map(time))
}

fn gaps(db: &Connection, since: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, SqliteError> {
    let sql = "SELECT from_ms, to_ms FROM watches WHERE to_ms >= \
               coalesce((SELECT max(to_ms) FROM watches WHERE to_ms < ?1), 0) ORDER BY from_ms";
    let mut rows = db.prepare_cached(sql)?;
    let watches = rows.query_map([ms(since)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut gaps = Vec::new();
    let mut end: Option<i64> = None;
    for watch in watches {
        let (from, to): (i64, i64) = watch?;
        if let Some(end) = end.filter(|end| *end < from && ms(since) < from) {
            gaps.push((time(end).max(since), time(from)));
        }
        end = end.max(Some(to));
    }
    gaps.truncate(GAPS_MAX);
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[tokio::test]
    async fn what_lies_between_two_runs_of_the_hub_was_not_watched() {
        let store = Store::in_memory().unwrap();
        assert_eq!(store.began(at(1_000)).await.unwrap(), None);
        store.still_here(at(1_000), at(11_000)).await.unwrap();
        store.still_here(at(1_000), at(21_000)).await.unwrap();
        assert_eq!(store.began(at(90_000)).await.unwrap(), Some(at(21_000)));
        store.still_here(at(90_000), at(100_000)).await.unwrap();
        assert_eq!(store.began(at(150_000)).await.unwrap(), Some(at(100_000)));
        let all = vec![(at(21_000), at(90_000)), (at(100_000), at(150_000))];
        assert_eq!(store.gaps(at(0)).await.unwrap(), all);
        assert_eq!(store.gaps(at(50_000)).await.unwrap()[0], (at(50_000), at(90_000)));
        assert_eq!(store.gaps(at(95_000)).await.unwrap(), all[1..]);
        // A clock that was set back takes nothing away.
        store.still_here(at(150_000), at(100)).await.unwrap();
        assert_eq!(store.gaps(at(0)).await.unwrap(), all);
    }
}
