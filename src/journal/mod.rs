//! What the node has decided, written down before it acts (SQLite in WAL mode).
//!
//! [`Journal`] is a handle to the one thread that owns the database. Requests that wait at the same
//! time share one commit, so that many jobs cost one sync of the disk; what they wrote is carried over
//! to the database beside it. [`Reader`] is what commands see of it while a node writes.
//!
//! What must hold: a call that returned `Ok` is committed; one that asked for durability survives a
//! power cut, the others a kill of the process. A job's state, the event that made it and the
//! statuses that follow from it are one transaction. One process holds the file: a second one is
//! refused.

mod attempts;
mod done;
mod events;
mod forget;
mod kept;
mod outbox;
mod packed;
mod reader;
mod receipts;
mod secrets;
mod story;
mod transactions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::ids::JobId;
use crate::report::BoxError;
use crate::sql::{self, Connection, Disk, Gate, Schema, SqliteError, Writer};

pub use attempts::{History, Known};
pub use events::Happened;
pub use forget::{FORGOTTEN_AT_ONCE, Forgotten};
pub use kept::KeptOutput;
pub use outbox::{Outgoing, OutgoingKind};
pub use reader::{Chronicle, Commitment, Kept, Page, Publication, Reader, Record, Said, Standing};
pub use receipts::Leaf;
pub use transactions::Known as KnownAccount;

/// The journal's tables.
pub const SCHEMA: Schema = Schema {
    name: "journal",
    migrations: &[
        include_str!("../../migrations/0001_jobs.sql"),
        include_str!("../../migrations/0002_transactions.sql"),
        include_str!("../../migrations/0003_leases.sql"),
        include_str!("../../migrations/0004_secrets.sql"),
        include_str!("../../migrations/0005_revisions.sql"),
        include_str!("../../migrations/0006_kept.sql"),
        include_str!("../../migrations/0007_done.sql"),
        include_str!("../../migrations/0008_bounds.sql"),
        include_str!("../../migrations/0009_again.sql"),
    ],
};

/// The database's file in the node's folder.
const FILE: &str = "journal.db";

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open. Ends the program.
    #[error("another lamda-node uses the data folder {0}; stop it, or set another DATA_DIR")]
    InUse(PathBuf),
    /// The file is of a newer version of this program. Ends the program.
    #[error("the journal {path} was written by a newer version (schema {found}, known {known})")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema's number.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// There is none to read.
    #[error("there is no journal in {0}; a node makes it there when it first runs (DATA_DIR)")]
    Missing(PathBuf),
    /// The file is of an older version, and is not written by who only reads it.
    #[error(
        "the journal {path} was written by an older version (schema {found}, known {known}); the \
         node brings it up to date when it starts"
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its schema's number.
        found: u32,
        /// The one that this program reads.
        known: u32,
    },
    /// The job has moved on otherwise than by what was to be written: whoever decided that decided
    /// about a job that stands elsewhere by now.
    #[error("the journal has job {job} at another place")]
    Superseded {
        /// The job.
        job: JobId,
    },
    /// The disk is full.
    #[error("the disk under the journal is full")]
    Full,
    /// The file can't be used.
    #[error("the journal {path} can't be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: BoxError,
    },
    /// A row could not be written or read.
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

/// A handle to the journal; clones share one database.
#[derive(Debug, Clone)]
pub struct Journal {
    writer: Writer,
}

impl Journal {
    /// Opens or creates `journal.db` in this folder and brings its schema up to date. Blocks.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let unusable = |source: BoxError| Error::Unusable { path: path.clone(), source };
        let lock = std::fs::File::create(dir.join("lock")).map_err(|err| unusable(err.into()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::InUse(dir.to_owned()))?;
        make_private(&path).map_err(|err| unusable(err.into()))?;
        let db = Connection::open(&path).map_err(|err| unusable(err.into()))?;
        Ok(Self { writer: Writer::start(db, &SCHEMA, Some(lock), &path)? })
    }

    /// A journal in memory, for simulations: the same schema and code, gone with the last handle.
    pub fn in_memory() -> Result<Self, Error> {
        let db = Connection::open_in_memory()?;
        Ok(Self { writer: Writer::start(db, &SCHEMA, None, Path::new(":memory:"))? })
    }

    /// The journal on a simulated disk.
    pub fn simulated(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        Self { writer: Writer::simulated(disk, gate) }
    }
}

/// The file holds secrets: one that is made now is its owner's alone, and so is its log, which takes
/// its mode from it.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests;
