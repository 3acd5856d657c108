//! Up to where streams were read.
//!
//! Must hold: a cursor is set in the commit of what came of what was read.

use super::{Error, Store};
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

impl Store {
    /// The number up to which something was read, under this name.
    pub async fn cursor(&self, name: &'static str) -> Result<Option<u64>, Error> {
        self.writer
            .call(false, move |db| {
                let value = "SELECT value FROM cursors WHERE name = ?1";
                let value = db.query_row(value, [name], |row| row.get::<_, i64>(0)).optional()?;
                Ok(value.and_then(|value| u64::try_from(value).ok()))
            })
            .await
    }
}

/// Notes that something was read up to this number; within the commit of what came of it.
pub(super) fn set_cursor(db: &Connection, name: &str, value: u64) -> Result<(), SqliteError> {
    let set = "INSERT INTO cursors (name, value) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET value = ?2";
    db.prepare_cached(set)?
        .execute(params![name, i64::try_from(value).unwrap_or(i64::MAX)])
        .map(drop)
}
