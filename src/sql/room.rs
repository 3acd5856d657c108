//! Disk space for the database when the disk is full: blocks of the write-ahead log that are allocated while
//! there is space.
//!
//! A commit is written to the log only; pages that a checkpoint can't copy to the database stay in the log.
//! Blocks past the log's end don't count towards its length, so SQLite does not see them.
//!
//! Invariant: the database file itself is never opened here, because closing it would drop the POSIX locks
//! that SQLite holds on it.

use std::path::{Path, PathBuf};

/// Enough for some thousand commits of jobs, because many jobs may end before the first of them frees space.
const BYTES: u64 = 8 << 20;

/// The path of a database's write-ahead log.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Allocates the blocks; logs a warning if the disk has no space. The log file exists from the first access
/// to the database until it is closed, and is not truncated below its start meanwhile.
pub(super) fn take(database: &Path) {
    let Ok(log) = std::fs::File::options().write(true).open(log_of(database)) else { return };
    if let Err(err) = take_blocks(&log) {
        tracing::warn!(
            "there is no room on the disk for what the journal may have to write: {err}"
        );
    }
}

fn take_blocks(log: &std::fs::File) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(log, FallocateFlags::KEEP_SIZE, 0, BYTES) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::{Connection, Schema, Writer};
    use super::*;

    #[test]
    fn the_log_has_its_blocks_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let schema = Schema { name: "test", migrations: &["CREATE TABLE x (y)"] };
        let _writer =
            Writer::start(Connection::open(&path).unwrap(), &schema, None, &path).unwrap();
        let log = std::fs::metadata(log_of(&path)).unwrap();
        assert!(log.blocks() * 512 >= BYTES, "{} blocks", log.blocks());
        assert!(log.len() < BYTES, "its length says nothing of them: {}", log.len());
    }
}
