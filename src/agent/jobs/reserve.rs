//! A disk reserve for the moment when a job has filled the disk.
//!
//! Invariants: it consists of allocated blocks and inodes, which are free as soon as it is spent.
//! It is never taken again while the writers for whom it was spent are still short of room.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::{self, Room};

/// Size in bytes: enough for what the journal writes until several jobs are removed.
const BYTES: usize = 16 << 20;
/// Number of inodes: the files and folders that several jobs need until they are removed.
const INODES: usize = 64;

/// What the journal and the notes of a job may need until it is removed, in MiB.
const MIB_MIN: u64 = 8;
/// The same in files and folders.
const INODES_MIN: u64 = 32;

/// Whether a disk with this room is too full for the node's own writes.
pub const fn is_tight(room: Room) -> bool {
    room.mib < MIB_MIN || room.inodes < INODES_MIN
}

/// Whether this error means that the disk or a quota is full, whoever filled it.
pub fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The reserve: a file of incompressible bytes, and a folder of empty files.
#[derive(Debug, Clone)]
pub struct Reserve {
    folder: PathBuf,
    blocks: PathBuf,
    inodes: PathBuf,
}

impl Reserve {
    /// The reserve of this data folder; takes nothing yet.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.to_owned(),
            blocks: data_dir.join("reserve"),
            inodes: data_dir.join("spare"),
        }
    }

    /// Takes the reserve if it is not complete. `Err`, with nothing taken, if the disk is too full
    /// for it and for what is being written; there may be room later.
    pub fn keep(&self) -> io::Result<()> {
        self.keep_of(host::disk_room(&self.folder)?)
    }

    fn keep_of(&self, room: Room) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        let beside = Room {
            mib: room.mib.saturating_sub((BYTES >> 20) as u64),
            inodes: room.inodes.saturating_sub(INODES as u64),
        };
        if is_tight(beside) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let kept = self.keep_blocks().and_then(|()| self.keep_inodes());
        if kept.is_err() {
            self.spend();
        }
        kept
    }

    /// Frees the reserve for the next writer.
    pub fn spend(&self) {
        std::fs::remove_file(&self.blocks).ok();
        for number in 0..INODES {
            std::fs::remove_file(self.inode(number)).ok();
        }
    }

    fn is_whole(&self) -> bool {
        // The empty files are created in the order of their numbers: if the last exists, all do.
        let is_long = |meta: std::fs::Metadata| meta.len() == BYTES as u64;
        std::fs::metadata(&self.blocks).is_ok_and(is_long) && self.inode(INODES - 1).exists()
    }

    fn keep_blocks(&self) -> io::Result<()> {
        // Incompressible, so that the space is really allocated.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(BYTES / 8)
        .flatten()
        .collect();
        std::fs::write(&self.blocks, noise)
    }

    fn keep_inodes(&self) -> io::Result<()> {
        host::private_folder(&self.inodes)?;
        (0..INODES).try_for_each(|number| std::fs::File::create(self.inode(number)).map(drop))
    }

    fn inode(&self, number: usize) -> PathBuf {
        self.inodes.join(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_or_it_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        reserve.keep().unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("reserve")).unwrap().len(), BYTES as u64);
        assert_eq!(std::fs::read_dir(dir.path().join("spare")).unwrap().count(), INODES);
        reserve.spend();
        assert!(!dir.path().join("reserve").exists());
        assert_eq!(std::fs::read_dir(dir.path().join("spare")).unwrap().count(), 0);
        // A file in place of the folder makes the second half fail.
        std::fs::remove_dir(dir.path().join("spare")).unwrap();
        std::fs::write(dir.path().join("spare"), "in the way").unwrap();
        assert!(reserve.keep().is_err());
        assert!(!dir.path().join("reserve").exists(), "half a reserve was kept");
    }

    #[test]
    fn what_it_was_spent_for_is_not_taken_again_while_room_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        for short in [Room { mib: 23, inodes: 1000 }, Room { mib: 1000, inodes: 95 }] {
            assert!(is_full(&reserve.keep_of(short).unwrap_err()), "{short:?}");
            assert!(!dir.path().join("reserve").exists(), "{short:?}");
        }
        reserve.keep_of(Room { mib: 24, inodes: 96 }).unwrap();
        // A complete reserve stays, however full the disk is.
        reserve.keep_of(Room { mib: 0, inodes: 0 }).unwrap();
        assert!(dir.path().join("reserve").exists());
    }
}
