//! What is forgotten after its time, so that the file doesn't grow for ever.

use std::time::Duration;

use super::nodes::{SLOT_MS, ms};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::Connection;

/// How long the history of beats is kept: a month and some days. It takes some 8 KB a node and day.
const SLOTS_KEPT: Duration = Duration::from_hours(35 * 24);

/// How long changes of standing and watches are kept: a year and some days.
const STANDINGS_KEPT: Duration = Duration::from_hours(400 * 24);

/// The most rows that one commit removes, so that no beat waits for long.
const ROWS_MAX: u32 = 5_000;

fn kept_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    /// Removes what is older than its time, a bounded number of rows. Whether there is more.
    pub async fn forget(&self, now: Timestamp) -> Result<bool, Error> {
        let before = |kept: Duration| ms(now).saturating_sub(kept_ms(kept));
        let (slots, standings) =
            (before(SLOTS_KEPT) / SLOT_MS.cast_signed(), before(STANDINGS_KEPT));
        let work = move |db: &Connection| {
            let sql = format!(
                "DELETE FROM slots WHERE (name, slot) IN \
                 (SELECT name, slot FROM slots WHERE slot < ?1 LIMIT {ROWS_MAX})"
            );
            let gone = db.execute(&sql, [slots])?;
            let sql = format!(
                "DELETE FROM standings WHERE rowid IN \
                 (SELECT rowid FROM standings WHERE at_ms < ?1 LIMIT {ROWS_MAX})"
            );
            let also_gone = db.execute(&sql, [standings])?;
            db.execute("DELETE FROM watches WHERE to_ms < ?1", [standings])?;
            Ok(gone.max(also_gone) >= ROWS_MAX as usize)
        };
        self.writer.call_aside(work).await
    }
}
