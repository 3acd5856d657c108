//! Opens the journal: one process holds its file, which is its owner's alone.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::{Error, Journal};
use crate::report::BoxError;
use crate::sql::{Connection, Disk, Gate, Schema, Writer};

/// The journal's schema: its tables and the migrations that create them.
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
        include_str!("../../migrations/0010_gpu_health.sql"),
        include_str!("../../migrations/0011_gpu_returns.sql"),
        include_str!("../../migrations/0012_usage.sql"),
    ],
};

/// The database's file name in the data folder.
pub(super) const FILE: &str = "journal.db";

impl Journal {
    /// Opens or creates `journal.db` in this folder, locks the folder and migrates the schema. Blocks.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let unusable = |source: BoxError| Error::Unusable { path: path.clone(), source };
        // Lock first: a second process must not touch the database.
        let lock = std::fs::File::create(dir.join("lock")).map_err(|err| unusable(err.into()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::InUse(dir.to_owned()))?;
        make_private(&path).map_err(|err| unusable(err.into()))?;
        let db = Connection::open(&path).map_err(|err| unusable(err.into()))?;
        Ok(Self { writer: Writer::start(db, &SCHEMA, Some(lock), &path)? })
    }

    /// A journal in memory, for simulations: same schema and code. It is gone when the last handle is
    /// dropped.
    pub fn in_memory() -> Result<Self, Error> {
        let db = Connection::open_in_memory()?;
        Ok(Self { writer: Writer::start(db, &SCHEMA, None, Path::new(":memory:"))? })
    }

    /// A journal on a simulated disk, which can lose power or fill up at any write.
    pub fn simulated(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        Self { writer: Writer::simulated(disk, gate) }
    }
}

/// Creates the database file with mode 0600 because it holds secrets. SQLite gives the write-ahead log the
/// mode of the database.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}
