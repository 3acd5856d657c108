//! SQLite behind one thread: what every service that keeps a database file shares.
//!
//! [`Writer`] owns the connection. Requests that wait at the same time share one commit, so that many of
//! them cost one sync of the disk; `checkpoint` carries the write-ahead log over to the database on another
//! thread. [`Disk`] is the same for simulations: in memory, and it can be killed.
//!
//! Invariants: a call that returned `Ok` is committed; one that asked for durability survives a power cut,
//! the others a kill of the process; a request that fails is rolled back alone. SQLite's own types are named
//! through this module only.

mod checkpoint;
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

/// A database's schema.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The name of its thread.
    pub name: &'static str,
    /// The changes that lead to it, in order; `PRAGMA user_version` counts those that were applied.
    pub migrations: &'static [&'static str],
}

impl Schema {
    /// The number of the newest version.
    pub fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    /// Brings a database up to date. Fails on one that a newer program wrote.
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

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full.
    #[error("the disk under the database is full")]
    Full,
    /// A newer version of this program wrote the file. Ends the program.
    #[error("the database {path} was written by a newer version (schema {found}, known {known})")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The file can't be used.
    #[error("the database {path} can't be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
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
