//! A database's schema: the migrations that lead to it, and how a connection is set up.

use std::path::Path;

use super::{Connection, Error};

/// `journal_size_limit` of the log, in bytes: a log that a long read let grow beyond it is truncated.
const LOG_BYTES_MAX: i64 = 64 << 20;

/// Page cache in KiB: enough for the upper levels of every index, whatever the size of the journal.
const CACHE_KIB: i32 = 1_000;

/// Capacity of the statement cache: more than the journal has statements, so that none is prepared twice.
const STATEMENTS_MAX: usize = 128;

/// A database's schema.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The name of the thread that owns the database.
    pub name: &'static str,
    /// The migrations, in order. `PRAGMA user_version` counts those that were applied.
    pub migrations: &'static [&'static str],
}

impl Schema {
    /// Sets a new connection up, and brings its database up to date.
    pub(super) fn prepare(&self, db: &mut Connection, path: &Path) -> Result<(), Error> {
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        // A log that a long read let grow is truncated after its checkpoint.
        db.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        self.apply(db, path)
    }

    /// The newest schema version: the number of migrations.
    pub fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    /// Applies the missing migrations, each in its own transaction. Fails if a newer program wrote the
    /// database.
    pub fn apply(&self, db: &mut Connection, path: &Path) -> Result<(), Error> {
        let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let known = self.version();
        if found > known {
            return Err(Error::TooNew { path: path.to_owned(), found, known });
        }
        let all = (1..=known).zip(self.migrations);
        for (number, migration) in all.filter(|(number, _)| *number > found) {
            let step = db.transaction()?;
            step.execute_batch(migration)?;
            step.pragma_update(None, "user_version", number)?;
            step.commit()?;
        }
        Ok(())
    }
}
