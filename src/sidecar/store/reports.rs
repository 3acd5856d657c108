//! What is to be reported to others and was not taken yet: a queue for each of them.
//!
//! Must hold: a report leaves when it was taken, or when the queue is full: then the oldest goes, and that is counted.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::{Batch, Error, Store, ms};
use crate::clock::Timestamp;
use crate::sql::{Connection, SqliteError, params};

/// The most reports that wait for one receiver.
const WAITING_MAX: i64 = 10_000;

/// Queues the reports of a batch, within its commit. Returns how many old ones went for them.
pub(super) fn queue(db: &Connection, batch: &Batch) -> Result<usize, SqliteError> {
    let at = batch.observations.last().map(|it| ms(it.at)).unwrap_or_default();
    queue_at(db, at, &batch.reports)
}

/// Queues reports, within the caller's commit. Returns how many old ones went for them.
pub(super) fn queue_at(
    db: &Connection,
    at: i64,
    reports: &[(&'static str, String)],
) -> Result<usize, SqliteError> {
    let add = "INSERT INTO reports (sink, at_ms, body) VALUES (?1, ?2, ?3)";
    let mut add = db.prepare_cached(add)?;
    for (sink, body) in reports {
        add.execute(params![sink, at, body])?;
    }
    let mut dropped = 0;
    for sink in reports.iter().map(|(sink, _)| *sink).collect::<BTreeSet<_>>() {
        dropped += cut(db, sink)?;
    }
    Ok(dropped)
}

/// Lets the oldest reports go that are too many.
fn cut(db: &Connection, sink: &str) -> Result<usize, SqliteError> {
    let cut = "DELETE FROM reports WHERE sink = ?1 AND id <= (SELECT id FROM reports
               WHERE sink = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    db.prepare_cached(cut)?.execute(params![sink, WAITING_MAX])
}

/// A report that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub id: i64,
    /// What it says, as JSON.
    pub body: String,
}

impl Store {
    /// How many reports were dropped, since this was asked last, because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }

    pub(super) fn count_dropped(&self, dropped: usize) {
        self.dropped.fetch_add(dropped as u64, Relaxed);
    }

    /// Queues a report that rests on no observation.
    pub async fn report(
        &self,
        sink: &'static str,
        at: Timestamp,
        body: String,
    ) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let add = "INSERT INTO reports (sink, at_ms, body) VALUES (?1, ?2, ?3)";
            db.prepare_cached(add)?.execute(params![sink, ms(at), body])?;
            Ok::<_, Error>(cut(db, sink)?)
        };
        let dropped = self.writer.change("sidecar.report", false, work).await?;
        self.count_dropped(dropped);
        Ok(())
    }

    /// The oldest reports that wait for a receiver.
    pub async fn reports(&self, sink: &'static str, limit: u32) -> Result<Vec<Report>, Error> {
        self.writer
            .call(false, move |db| {
                let select = "SELECT id, body FROM reports WHERE sink = ?1 ORDER BY id LIMIT ?2";
                let mut select = db.prepare_cached(select)?;
                let rows = select.query_map(params![sink, limit], |row| {
                    Ok(Report { id: row.get(0)?, body: row.get(1)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Forgets reports that were taken, or that never will be: all up to this number.
    pub async fn reported(&self, sink: &'static str, up_to: i64) -> Result<(), Error> {
        let gone = "DELETE FROM reports WHERE sink = ?1 AND id <= ?2";
        let work = move |db: &Connection| {
            db.prepare_cached(gone)?.execute(params![sink, up_to])?;
            Ok(())
        };
        self.writer.change("sidecar.reported", false, work).await
    }

    /// Forgets these reports, which were taken or never will be.
    pub async fn forget_reports(&self, ids: Vec<i64>) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let work = move |db: &Connection| {
            let mut gone = db.prepare_cached("DELETE FROM reports WHERE id = ?1")?;
            for id in ids {
                gone.execute([id])?;
            }
            Ok(())
        };
        self.writer.change("sidecar.reported", false, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::state::Watched;

    #[tokio::test]
    async fn what_is_dropped_of_a_full_queue_is_counted_and_told_once() {
        let store = Store::in_memory().unwrap();
        let most = usize::try_from(WAITING_MAX).unwrap();
        for (count, dropped) in [(most, 0), (3, 3)] {
            let reports = (0..count).map(|number| ("sink", number.to_string())).collect();
            let batch = Batch { reports, ..Batch::default() };
            store.take("one", batch, &Watched::default()).await.unwrap();
            assert_eq!(store.dropped(), dropped);
        }
        assert_eq!(store.dropped(), 0, "it is told once");
        let oldest = store.reports("sink", 1).await.unwrap();
        assert_eq!(oldest.first().map(|it| it.id), Some(4));
    }
}
