//! Opens a database file that one process holds.
//!
//! Must hold: the file is its owner's alone (mode 0600); while one process has it, no other one gets it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Connection, Error};
use crate::report::BoxError;

/// Why a file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Taken {
    /// Another process has it open.
    #[error("another process uses {0}")]
    InUse(PathBuf),
    /// It can't be opened or created.
    #[error(transparent)]
    Unusable(#[from] Error),
}

/// Opens or creates the file, and locks it by a file beside it. The lock holds as long as the second part lives.
pub fn take(path: &Path) -> Result<(Connection, File), Taken> {
    let unusable = |source: BoxError| Error::Unusable { path: path.to_owned(), source };
    // Opening a FIFO would wait for a writer.
    if std::fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        return Err(unusable("it is no regular file".into()).into());
    }
    let lock = File::create(lock_of(path)).map_err(|err| unusable(err.into()))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Taken::InUse(path.to_owned()))?;
    make_private(path).map_err(|err| unusable(err.into()))?;
    let db = Connection::open(path).map_err(|err| unusable(err.into()))?;
    Ok((db, lock))
}

/// The lock beside the database.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}
