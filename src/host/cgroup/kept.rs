//! A small file of the kernel's that is opened once and read again and again.
//!
//! Invariant: a read starts at the file's beginning and takes at most [`BYTES_MAX`].

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;

use crate::usage::{Reading, Unknown};

/// The largest of these files, `memory.stat`, has 2 KiB; `io.stat` has 100 bytes for each disk.
const BYTES_MAX: usize = 16 * 1024;

/// An open file, or why it could not be opened.
#[derive(Debug)]
pub(super) struct Kept(Result<File, Unknown>);

impl Kept {
    pub(super) fn open(path: &Path) -> Self {
        Self(File::open(path).map_err(|err| why(&err)))
    }

    /// A file that this kind of group does not have.
    pub(super) const fn absent() -> Self {
        Self(Err(Unknown::NotSupported))
    }

    /// Whether it was there.
    pub(super) const fn is_open(&self) -> bool {
        self.0.is_ok()
    }

    /// Its text now, into `buffer`.
    pub(super) fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b str, Unknown> {
        let file = self.0.as_ref().map_err(|why| *why)?;
        buffer.resize(BYTES_MAX, 0);
        let mut length = 0;
        while length < BYTES_MAX {
            let into = buffer.get_mut(length..).unwrap_or_default();
            match file.read_at(into, length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(why(&err)),
            }
        }
        // The rest of it would be missing, and the last number with it.
        if length == BYTES_MAX {
            return Err(Unknown::Failed);
        }
        std::str::from_utf8(buffer.get(..length).unwrap_or_default()).map_err(|_| Unknown::Failed)
    }

    /// The one number that it holds; `max` means no limit and is unknown.
    pub(super) fn number(&self, buffer: &mut Vec<u8>) -> Reading {
        self.read(buffer)?.trim().parse().map_err(|_| Unknown::Failed)
    }
}

/// Why the kernel refused.
pub(super) fn why(err: &io::Error) -> Unknown {
    match err.kind() {
        ErrorKind::NotFound => Unknown::NotSupported,
        ErrorKind::PermissionDenied => Unknown::Denied,
        // The group was removed after its files were opened.
        _ if err.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Unknown::Gone,
        _ if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Unknown::Gone,
        // Pressure is not counted: `psi=0`, or a kernel without it.
        _ if err.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Unknown::NotSupported,
        _ => Unknown::Failed,
    }
}

/// The number after `key` and a space at the start of a line.
pub(super) fn field(text: &str, key: &str) -> Reading {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.ok_or(Unknown::NotSupported)?.trim().parse().map_err(|_| Unknown::Failed)
}

/// The microseconds after `total=` in the line of a pressure file that begins with `some`.
pub(super) fn pressure(text: &str) -> Reading {
    let line = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("total=")));
    total.ok_or(Unknown::Failed)?.trim().parse().map_err(|_| Unknown::Failed)
}
