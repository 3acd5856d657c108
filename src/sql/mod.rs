//! SQLite behind one thread, for every service that keeps a database file.
//!
//! [`Writer`] owns the connection. Requests that wait at the same time share one commit, so that many of them
//! cost one sync of the disk. `checkpoint` copies the write-ahead log into the database on another thread.
//! [`Disk`] is the simulated counterpart: in memory, and it can be killed.
//!
//! Invariants: a call that returned `Ok` is committed; if it asked for durability, it survives a power cut,
//! otherwise a kill of the process. A request that fails is rolled back alone. Only this module names
//! SQLite's own types.

mod checkpoint;
mod request;
mod room;
mod simulated;
mod writer;

use std::path::{Path, PathBuf};

pub use rusqlite::{
    Connection, Error as SqliteError, OpenFlags, OptionalExtension, Params, Row, ToSql, params,
    params_from_iter,
};

use crate::report::BoxError;

pub use simulated::{Disk, Fate, Gate, Slowness};
pub use writer::Writer;

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
    fn prepare(&self, db: &mut Connection, path: &Path) -> Result<(), Error> {
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

/// Why a request to the database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    Full,
    /// A newer version of this program wrote the file. Ends the program.
    #[error("the database {path} was written by a newer version (schema {found}, known {known})")]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The schema version found in the file.
        found: u32,
        /// The newest schema version that this program knows.
        known: u32,
    },
    /// The file can't be opened or prepared.
    #[error("the database {path} can't be used")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// A statement or a commit failed.
    #[error("the database failed")]
    Failed(#[source] BoxError),
}

impl From<SqliteError> for Error {
    fn from(err: SqliteError) -> Self {
        match err.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(Box::new(err)),
        }
    }
}
