//! SQLite behind one thread, for every service that keeps a database file.
//!
//! [`Writer`] owns the connection. Requests that wait at the same time share one commit, so that many of them
//! cost one sync of the disk. `checkpoint` copies the write-ahead log into the database on another thread.
//! [`Disk`] is the simulated counterpart: in memory, and it can be killed.
//!
//! Invariants: a call that returned `Ok` is committed; if it asked for durability, it survives a power cut,
//! otherwise a kill of the process. A request that fails is rolled back alone. Only this module names
//! SQLite's own types.

mod backup;
mod checkpoint;
mod private;
mod request;
mod room;
mod schema;
mod simulated;
mod writer;

use std::path::PathBuf;

pub use rusqlite::{
    Connection, Error as SqliteError, OpenFlags, OptionalExtension, Params, Row, ToSql,
    TransactionBehavior, params, params_from_iter,
};

use crate::report::BoxError;

pub use backup::back_up;
pub use private::{Taken, take};
pub use schema::Schema;
pub use simulated::{Disk, Fate, Gate, Slowness};
pub use writer::Writer;

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
