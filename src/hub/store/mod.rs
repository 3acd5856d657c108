//! The hub's database, behind one thread (see [`crate::sql`]). One file here for each group of tables.
//!
//! Invariants: a call that returned `Ok` is committed; one process holds the file.

pub mod alerts_view;
pub mod beside;
mod counts;
mod cursors;
pub mod digest;
pub mod earned;
pub mod heard;
mod housekeeping;
pub mod identity;
pub mod import;
pub mod nodes;
pub mod people;
pub mod proplets;
mod receipts;
pub mod seen;
pub mod tasks;
pub mod usage;
pub mod view;
mod watches;

use std::path::{Path, PathBuf};

use crate::notify::Book;
use crate::sql::{self, Connection, Schema, SqliteError, Writer};

pub use heard::Stands;

/// The hub's tables and the migrations that create them.
pub const SCHEMA: Schema = Schema {
    name: "hub",
    migrations: &[
        concat!(
            include_str!("../../../migrations/alerts.sql"),
            include_str!("../../../migrations/hub/0001_hub.sql")
        ),
        include_str!("../../../migrations/hub/0002_seen.sql"),
        include_str!("../../../migrations/hub/0003_identity.sql"),
        include_str!("../../../migrations/hub/0004_proplets.sql"),
        include_str!("../../../migrations/hub/0005_pages.sql"),
        include_str!("../../../migrations/hub/0006_sent.sql"),
    ],
};

/// The most beats in one commit: with some ten microseconds each, it takes no longer than the sync of a good disk.
const BATCH_MAX: usize = 1_024;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open. Ends the program.
    #[error("another hub uses {0}; stop it, or set another DB_PATH")]
    InUse(PathBuf),
    /// The file is one of the original monitor. Ends the program.
    #[error(
        "{0} was written by the original monitor: set DB_PATH to a file of the hub's own (or leave it out), and \
         take the nodes over with: lamda-node hub import {0}"
    )]
    Original(PathBuf),
    /// The file is no hub's, or one of another version.
    #[error(
        "{0} is no database of the hub, or one of another version (then start the hub on it once)"
    )]
    Foreign(PathBuf),
    /// The file can't be taken over.
    #[error("{path} is no database of the original monitor: {what}")]
    NotOriginal {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        what: String,
    },
    /// The hub knows the key by another name.
    #[error(
        "the hub knows the node of this key as {0}: leave the name out, or rename that node first (POST \
         /api/admin/rename)"
    )]
    KnownAs(String),
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] sql::Error),
}

impl From<SqliteError> for Error {
    fn from(err: SqliteError) -> Self {
        Self::Sql(err.into())
    }
}

/// A handle to the hub's database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) writer: Writer,
}

impl Store {
    /// Opens or creates the database, locks it and migrates its schema. Blocks.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (db, lock) = sql::take(path).map_err(|err| match err {
            sql::Taken::InUse(path) => Error::InUse(path),
            sql::Taken::Unusable(err) => Error::Sql(err),
        })?;
        if is_original(&db)? {
            return Err(Error::Original(path.to_owned()));
        }
        if is_foreign(&db)? {
            return Err(Error::Foreign(path.to_owned()));
        }
        let writer = Writer::start_in_batches(db, &SCHEMA, Some(lock), path, BATCH_MAX)?;
        Ok(Self { writer })
    }

    /// What was decided and what is to be told of it.
    pub fn book(&self) -> Book {
        Book::of(self.writer.clone())
    }

    /// A store in memory, for tests. It is gone when the last handle is dropped.
    pub fn in_memory() -> Result<Self, Error> {
        let db = Connection::open_in_memory()?;
        Ok(Self { writer: Writer::start(db, &SCHEMA, None, Path::new(":memory:"))? })
    }
}

/// Whether the tables are those of the original monitor, which has no history.
fn is_original(db: &Connection) -> Result<bool, SqliteError> {
    let count = "SELECT COUNT(*) FROM pragma_table_info('nodes') WHERE name = 'last_computed'";
    db.query_row(count, [], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// Whether another program's tables are in the file.
fn is_foreign(db: &Connection) -> Result<bool, SqliteError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let count = "SELECT COUNT(*) FROM sqlite_schema";
    let tables: i64 = db.query_row(count, [], |row| row.get(0))?;
    let ours = "SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('nodes', 'standings', 'notices')";
    let ours: i64 = db.query_row(ours, [], |row| row.get(0))?;
    Ok(tables > 0 && (version == 0 || ours != 3))
}
