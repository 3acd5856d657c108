//! A reserve of disk, for the moment in which a job has left none.
//!
//! What must hold: it is made of real blocks and real inodes, which are free as soon as it is
//! given up.

use std::io;
use std::path::{Path, PathBuf};

/// What the reserve takes up: enough for what the journal writes until several jobs are gone.
const BYTES: usize = 16 << 20;
/// Files and folders that several jobs make until they are gone.
const INODES: usize = 64;

/// A file of real bytes, and a folder of empty files.
#[derive(Debug, Clone)]
pub struct Reserve {
    blocks: PathBuf,
    inodes: PathBuf,
}

impl Reserve {
    /// The one of this data folder; nothing is taken yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { blocks: data_dir.join("reserve"), inodes: data_dir.join("spare") }
    }

    /// Takes what is not taken. Where the disk is too full for all of it, none is kept: it may have
    /// room later.
    pub fn keep(&self) -> io::Result<()> {
        let kept = self.keep_blocks().and_then(|()| self.keep_inodes());
        if kept.is_err() {
            self.spend();
        }
        kept
    }

    /// Gives the reserve up to whoever writes next.
    pub fn spend(&self) {
        std::fs::remove_file(&self.blocks).ok();
        for number in 0..INODES {
            std::fs::remove_file(self.inode(number)).ok();
        }
    }

    fn keep_blocks(&self) -> io::Result<()> {
        let is_whole = |meta: std::fs::Metadata| meta.len() == BYTES as u64;
        if std::fs::metadata(&self.blocks).is_ok_and(is_whole) {
            return Ok(());
        }
        // Bytes that no file system squeezes into nothing.
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
        // They are made in this order: where the last is, all are.
        if self.inode(INODES - 1).exists() {
            return Ok(());
        }
        super::folders::private(&self.inodes)?;
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
        // A disk that refuses: nothing can be made where the folder should be.
        std::fs::remove_dir(dir.path().join("spare")).unwrap();
        std::fs::write(dir.path().join("spare"), "in the way").unwrap();
        assert!(reserve.keep().is_err());
        assert!(!dir.path().join("reserve").exists(), "half a reserve was kept");
    }
}
