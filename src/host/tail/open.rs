//! Opens logs, and says in a sentence why one can't be read.
//!
//! Must hold: nothing but a regular file is opened. Links to regular files are followed: many logs are links.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// What makes a file this file, while somebody holds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// An inode and the time of its birth: what tells a file from others for longer, on one file system.
pub(super) type Key = (u64, Option<u64>);

/// What is known of a regular file without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) id: Id,
    /// In nanoseconds since 1970; `None` where the file system doesn't know.
    pub(super) born: Option<u64>,
    /// In nanoseconds since 1970.
    pub(super) modified: u64,
    pub(super) size: u64,
}

impl Facts {
    pub(super) const fn key(&self) -> Key {
        (self.id.inode, self.born)
    }

    pub(super) fn of(meta: &Metadata) -> Self {
        let since_epoch = |at: std::time::SystemTime| at.duration_since(std::time::UNIX_EPOCH).ok();
        let nanoseconds = |at| since_epoch(at).and_then(|it| u64::try_from(it.as_nanos()).ok());
        Self {
            id: Id { device: meta.dev(), inode: meta.ino() },
            born: meta.created().ok().and_then(nanoseconds).filter(|born| *born > 0),
            modified: meta.modified().ok().and_then(nanoseconds).unwrap_or(0),
            size: meta.len(),
        }
    }
}

/// Why a log can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing is there.
    Missing,
    /// Something is there that can't be read: what, as the end of the sentence "NAME …".
    Other(String),
}

impl Refusal {
    /// The whole sentence.
    pub(super) fn sentence(&self, path: &Path) -> String {
        let why = match self {
            Self::Missing => "is not there",
            Self::Other(why) => why,
        };
        format!("the log {} {why}", path.display())
    }
}

impl From<io::Error> for Refusal {
    fn from(err: io::Error) -> Self {
        let why = match Errno::from_io_error(&err) {
            Some(Errno::NOENT) => return Self::Missing,
            Some(Errno::LOOP) => "is a loop of links",
            Some(Errno::ACCESS | Errno::PERM) => "may not be read by this user",
            Some(Errno::NOTDIR) => "lies below something that is not a directory",
            Some(Errno::STALE) => "was taken away by its file server",
            _ => return Self::Other(format!("can't be read: {err}")),
        };
        Self::Other(why.to_owned())
    }
}

/// What is at a path, if it is a regular file.
pub(super) fn look(path: &Path) -> Result<Facts, Refusal> {
    regular(&std::fs::metadata(path)?)
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> Result<(File, Facts), Refusal> {
    // Only to open a FIFO or a device can have an effect.
    look(path)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let facts = regular(&file.metadata()?)?;
    Ok((file, facts))
}

fn regular(meta: &Metadata) -> Result<Facts, Refusal> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(Facts::of(meta));
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Refusal::Other(format!("is {what}, not a file")))
}
