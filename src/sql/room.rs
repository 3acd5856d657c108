//! Room for the journal on a disk that is full: blocks of the write-ahead log that are taken while
//! there are some.
//!
//! A commit is written to the log alone; what a checkpoint can't carry over to the database stays
//! in the log. Blocks past the log's end don't show in its length, so the database sees nothing of
//! them. What must hold: the database's own file is never opened here, since closing it would take
//! the locks that SQLite holds on it.

use std::path::{Path, PathBuf};

/// Some thousand commits of jobs: many jobs can end before the first of them has made room.
const BYTES: u64 = 8 << 20;

/// The write-ahead log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Takes the blocks, where there are some. The log is there from the first look into the database
/// until it is closed, and is not made shorter meanwhile.
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
