//! Where a reader stands in a log: small, and enough to find the place again after a kill, a rotation or a truncation.
//!
//! Must hold: a position never names a byte that was not given out, and [`Mark::fits`] is true only of a file whose
//! first bytes and whose bytes before the offset are those that were read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::open::Key;

/// The most first bytes of a file by which it is known again.
pub(super) const HEAD_MAX: usize = 256;

/// The most bytes before the offset by which a place is known again.
pub(super) const GUARD_MAX: usize = 64;

/// The most marks of files that were rotated a short time ago.
pub(super) const RETIRED_MAX: usize = 8;

/// Fewer first bytes than these are likely to be the same in two files.
const WEAK: u16 = 64;

/// The most files that are remembered as created in one tick of the clock.
pub(super) const TIES_MAX: usize = 64;

/// Where a reader stands. Commit it together with what the lines meant; after a restart hand the last one back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The place in the file that is read.
    pub(super) current: Mark,
    /// The host's boot in which it was written down: a power cut may take the end of a file.
    #[serde(default)]
    pub(super) boot: String,
    /// Earlier places in the file, oldest first: how far it is still the same after a power cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rungs: Vec<Rung>,
    /// Files that were read and left, and were created in the same tick of the clock as the one in hand, or later: their
    /// inodes and times of birth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ties: Vec<Key>,
    /// The places in files that were rotated a short time ago and may still grow; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retired: Vec<Mark>,
}

impl Position {
    /// The inode of the file that is read.
    pub const fn inode(&self) -> u64 {
        self.current.inode
    }

    /// The offset in that file of the first byte that was not given out.
    pub const fn offset(&self) -> u64 {
        self.current.offset
    }
}

/// An earlier place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rung {
    pub(super) offset: u64,
    pub(super) guard: Print,
}

impl Rung {
    /// Whether the bytes before it are those that were read.
    pub(super) fn fits(&self, file: &File) -> bool {
        let from = self.offset.checked_sub(u64::from(self.guard.length));
        let print = from.and_then(|from| print_at(file, from, self.guard.length));
        print.is_some_and(|print| print == self.guard)
    }
}

/// The most earlier places.
pub(super) const RUNGS_MAX: usize = 6;

/// The fewest bytes between two of them.
const RUNG_BYTES: u64 = 4096;

/// Adds a place to earlier ones, and takes away the one that tells least: they are close together near the end of what
/// was read, which is what a power cut takes, and far apart before.
pub(super) fn add_rung(rungs: &mut Vec<Rung>, offset: u64, guard: impl FnOnce() -> Print) {
    let newest = rungs.last().map_or(0, |rung| rung.offset);
    if offset < newest.saturating_add(RUNG_BYTES) {
        return;
    }
    rungs.push(Rung { offset, guard: guard() });
    if rungs.len() > RUNGS_MAX {
        // How far the two beside it are apart, in thousandths of how far they are from the end.
        let apart = |three: &[Rung]| match three {
            [before, _, after] => {
                let far = offset.saturating_sub(before.offset).max(1);
                after.offset.saturating_sub(before.offset).saturating_mul(1_000) / far
            }
            _ => u64::MAX,
        };
        let least = rungs.windows(3).enumerate().min_by_key(|(_, three)| apart(three));
        if let Some((index, _)) = least {
            rungs.remove(index + 1);
        }
    }
}

/// A place in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its device; another one after some restarts of the host, so it decides nothing.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// When it was created, in nanoseconds since 1970, where the file system knows: tells a reused inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) born: Option<u64>,
    /// When it was last written to, as far as the reader saw, in nanoseconds since 1970.
    pub(super) modified: u64,
    /// The same, when it was at the log's path last: what came after it is not older.
    #[serde(default)]
    pub(super) placed: u64,
    /// How long it was at the latest look: what is gone of it without having been given out is counted by this.
    #[serde(default)]
    pub(super) size: u64,
    /// Of the first byte that was not given out.
    pub(super) offset: u64,
    /// Of the first bytes of the file: 256, or as many as it had.
    pub(super) head: Print,
    /// Of the bytes before the offset: 64, or as many as there are.
    pub(super) guard: Print,
    /// It is a copy that was made before a file was truncated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_copy: bool,
}

impl Mark {
    /// Whether the first bytes of the file are those that were read.
    pub(super) fn fits_head(&self, file: &File) -> bool {
        print_at(file, 0, self.head.length).is_some_and(|print| print == self.head)
    }

    /// Whether the file's first bytes and its bytes before the offset are those that were read.
    pub(super) fn fits(&self, file: &File) -> bool {
        let last = Rung { offset: self.offset, guard: self.guard };
        last.fits(file) && self.fits_head(file)
    }

    /// Whether so little of the file was read that another one may well begin like it.
    pub(super) const fn is_weak(&self) -> bool {
        self.head.length < WEAK
    }

    /// Whether so much of the file was read that no other one is likely to look like it up to this place.
    pub(super) fn is_distinctive(&self) -> bool {
        self.offset >= (HEAD_MAX + GUARD_MAX) as u64 && usize::from(self.head.length) == HEAD_MAX
    }
}

/// Number of bytes of a SHA-256 that are kept.
const HASH_LEN: usize = 16;

/// The length and the hash of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    pub(super) length: u16,
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    hash: [u8; HASH_LEN],
}

impl Print {
    /// Of at most [`HEAD_MAX`] bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; HASH_LEN];
        for (to, from) in hash.iter_mut().zip(Sha256::digest(bytes)) {
            *to = from;
        }
        Self { length: u16::try_from(bytes.len()).unwrap_or(u16::MAX), hash }
    }
}

/// The print of bytes of a file; `None` if it doesn't have them all.
fn print_at(file: &File, from: u64, length: u16) -> Option<Print> {
    let mut bytes = [0; HEAD_MAX];
    let bytes = bytes.get_mut(..usize::from(length))?;
    file.read_exact_at(bytes, from).ok()?;
    Some(Print::of(bytes))
}

fn to_hex<S: Serializer>(hash: &[u8; HASH_LEN], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&data_encoding::HEXLOWER.encode(hash))
}

fn from_hex<'a, D: Deserializer<'a>>(from: D) -> Result<[u8; HASH_LEN], D::Error> {
    let text = String::deserialize(from)?;
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        serde::de::Error::custom("a print in a position is not 32 lower-case hex digits")
    })
}
