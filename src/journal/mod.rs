//! The journal: every decision of the node, committed to SQLite (WAL mode) before the node acts on it.
//!
//! [`Journal`] is a handle to the one thread that owns the database (see [`crate::sql`]). [`Reader`] is the
//! read-only view that commands use while a node is running.
//!
//! Invariants: a call that returned `Ok` is committed; if it asked for durability, it survives a power cut,
//! otherwise a kill of the process. A job's state, the event that led to it and the statuses that follow from
//! it are written in one transaction. One process holds the file; a second one is refused.

mod attempts;
mod backlog;
mod done;
mod events;
mod forget;
mod gpu_health;
mod gpu_returns;
mod kept;
mod open;
mod outbox;
mod packed;
mod reader;
mod receipts;
mod secrets;
mod story;
mod transactions;
mod usage;

use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::report::BoxError;
use crate::sql::{self, SqliteError, Writer};

pub use attempts::{History, Known};
pub use backlog::{AccountBacklog, Backlog};
pub use events::Happened;
pub use forget::{FORGOTTEN_AT_ONCE, Forgotten};
pub use gpu_health::Dated;
pub use gpu_returns::GpuReturn;
pub use kept::KeptOutput;
pub use open::SCHEMA;
pub use outbox::{Outgoing, OutgoingKind};
pub use reader::{
    Chronicle, Commitment, Kept, Page, Publication, Reader, Record, Standing, StatusRecord,
};
pub use receipts::Leaf;
pub use transactions::Known as KnownAccount;
pub use usage::{UsageKept, WaitingBatch};

/// Why a call to the journal failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the journal open. Ends the program.
    #[error("another lamda-node uses the data folder {0}; stop it, or set another DATA_DIR")]
    InUse(PathBuf),
    /// A newer version of this program wrote the file. Ends the program.
    #[error("the journal {path} was written by a newer version (schema {found}, known {known})")]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The schema version found in the file.
        found: u32,
        /// The newest schema version that this program knows.
        known: u32,
    },
    /// The folder has no journal to read.
    #[error("there is no journal in {0}; a node makes it there when it first runs (DATA_DIR)")]
    Missing(PathBuf),
    /// An older version of this program wrote the file, and a [`Reader`] does not migrate it.
    #[error(
        "the journal {path} was written by an older version (schema {found}, known {known}); the \
         node brings it up to date when it starts"
    )]
    TooOld {
        /// The database file.
        path: PathBuf,
        /// The schema version found in the file.
        found: u32,
        /// The schema version that this program reads.
        known: u32,
    },
    /// The write was based on a state or revision of the job that is not the one in the journal: another
    /// transition was recorded first.
    #[error("the journal has another state of job {job}")]
    Superseded {
        /// The job whose write was rejected.
        job: JobId,
    },
    /// The disk under the journal is full.
    #[error("the disk under the journal is full")]
    Full,
    /// The database file can't be opened or prepared.
    #[error("the journal {path} can't be used")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// A statement, a commit or the decoding of a row failed.
    #[error("the journal failed")]
    Failed(#[source] BoxError),
}

impl From<sql::Error> for Error {
    fn from(err: sql::Error) -> Self {
        match err {
            sql::Error::Full => Self::Full,
            sql::Error::TooNew { path, found, known } => Self::TooNew { path, found, known },
            sql::Error::Unusable { path, source } => Self::Unusable { path, source },
            sql::Error::Failed(source) => Self::Failed(source),
        }
    }
}

impl From<SqliteError> for Error {
    fn from(err: SqliteError) -> Self {
        sql::Error::from(err).into()
    }
}

impl From<serde_json::Error> for Error {
    fn from(err: serde_json::Error) -> Self {
        Self::Failed(Box::new(err))
    }
}

/// A handle to the journal. Clones share one database thread.
#[derive(Debug, Clone)]
pub struct Journal {
    writer: Writer,
}

/// SQLite's integers are signed; timestamps in use are far below the limit.
fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.unix_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
