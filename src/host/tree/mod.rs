//! Untrusted folders: measured, synced and removed, whatever their shape.
//!
//! Invariants: neither the depth nor the number of entries decides how much stack or memory, or how
//! many descriptors, this takes; no link is followed; an entry that can't be handled holds nothing
//! else up.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fsync, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Maximum depth that is visited, with one descriptor per level; outputs are less deep.
const DEPTH_MAX: usize = 66;
/// Maximum closed folders reported after one pass; the others follow after the next one.
const CLOSED_MAX: usize = 1000;
/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Removes the contents of a folder, a bounded step at a time.
///
/// A folder that is not empty is moved to the top before its contents are visited, so that nested
/// folders cost no more than adjacent ones. After every step, a new [`Clearing`] can go on from
/// what is on disk.
#[derive(Debug)]
pub struct Clearing {
    top: OwnedFd,
    /// Progress of the current pass: new entries appear at the top while it runs.
    pass: Option<Pass>,
    /// The folder at the top that is being emptied.
    inside: Option<(CString, Dir)>,
    /// Folders whose modes deny access, as paths below the top, as far as one pass found them.
    closed: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Pass {
    entries: Dir,
    progress: bool,
    trouble: Option<Errno>,
}

/// The result of one [`Clearing::step`].
#[derive(Debug)]
pub enum Cleared {
    /// Nothing is left in the folder.
    All,
    /// There is more to do: call it again.
    More,
    /// What is left can't be removed, the first of it for this reason.
    Stuck(io::Error),
}

impl Clearing {
    /// Opens the folder. The folder stays; its contents are removed.
    pub fn of(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            top: openat(CWD, folder, FOLDER, Mode::empty())?,
            pass: None,
            inside: None,
            closed: BTreeSet::new(),
        })
    }

    /// Takes the folders that the last pass found closed. Once they are open, a pass empties them.
    pub fn take_closed(&mut self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.closed)
    }

    /// Handles about `entries_max` entries. An error means that the folder itself is unreadable.
    pub fn step(&mut self, entries_max: usize) -> io::Result<Cleared> {
        for _ in 0..entries_max {
            if self.inside.is_some() {
                self.empty_one()?;
            } else if let Some(end) = self.next_at_top()? {
                return Ok(end);
            }
        }
        Ok(Cleared::More)
    }

    /// Removes the next entry at the top, or begins to empty it. Returns a result at the end of a
    /// pass that removed nothing.
    fn next_at_top(&mut self) -> io::Result<Option<Cleared>> {
        let pass = match &mut self.pass {
            Some(pass) => pass,
            none => {
                // A separate descriptor has a read position of its own.
                let entries = Dir::read_from(&self.top)?;
                self.closed.clear();
                none.insert(Pass { entries, progress: false, trouble: None })
            }
        };
        let Some(name) = next_name(&mut pass.entries)? else {
            let (progress, trouble) = (pass.progress, pass.trouble);
            self.pass = None;
            return Ok(match trouble {
                _ if progress => None,
                Some(err) => Some(Cleared::Stuck(err.into())),
                None => Some(Cleared::All),
            });
        };
        match remove(self.top.as_fd(), &name) {
            Ok(()) => pass.progress = true,
            Err(Errno::NOTEMPTY | Errno::EXIST) => match open_up(self.top.as_fd(), &name) {
                Ok(folder) => self.inside = Some((name, Dir::new(folder)?)),
                Err(err) => {
                    pass.trouble = pass.trouble.or(Some(err));
                    note_closed(&mut self.closed, err, &[&name]);
                }
            },
            Err(err) => pass.trouble = pass.trouble.or(Some(err)),
        }
        Ok(None)
    }

    /// Removes the next entry of the folder being emptied, or moves it to the top.
    fn empty_one(&mut self) -> io::Result<()> {
        let (Some((own, folder)), Some(pass)) = (&mut self.inside, &mut self.pass) else {
            return Ok(());
        };
        let Some(name) = next_name(folder)? else {
            match unlinkat(&self.top, own.as_c_str(), AtFlags::REMOVEDIR) {
                Ok(()) => pass.progress = true,
                // An entry of it could not be removed and was noted, or the reading missed one.
                Err(err) => pass.trouble = pass.trouble.or(Some(err)),
            }
            self.inside = None;
            return Ok(());
        };
        let parent = folder.fd()?;
        let (done, is_folder) = match remove(parent, &name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => (lift(parent, &name, self.top.as_fd()), true),
            done => (done, false),
        };
        match done {
            Ok(()) => pass.progress = true,
            Err(err) => {
                pass.trouble = pass.trouble.or(Some(err));
                note_closed(&mut self.closed, err, &[own]);
                // Moving a folder takes write permission on the folder itself.
                if is_folder {
                    note_closed(&mut self.closed, err, &[own, &name]);
                }
            }
        }
        Ok(())
    }
}

/// Notes a folder that denies this user access.
fn note_closed(closed: &mut BTreeSet<PathBuf>, err: Errno, names: &[&CStr]) {
    if matches!(err, Errno::ACCESS | Errno::PERM) && closed.len() < CLOSED_MAX {
        closed.insert(names.iter().map(|name| OsStr::from_bytes(name.to_bytes())).collect());
    }
}

/// Removes a file or an empty folder.
fn remove(folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(folder, name, AtFlags::REMOVEDIR),
        done => done,
    }
}

/// Moves a folder out of its parent to the top. The kernel rewrites the folder's `..`, so its owner
/// needs write permission on it.
fn lift(parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> Result<(), Errno> {
    match renameat(parent, name, top, fresh_name()) {
        Err(Errno::ACCESS) => {
            open_up(parent, name)?;
            renameat(parent, name, top, fresh_name())
        }
        done => done,
    }
}

/// Opens a folder whose entries are to be removed, and gives its owner the permissions for it,
/// which a job may have taken away.
fn open_up(parent: impl AsFd + Copy, name: &CStr) -> Result<OwnedFd, Errno> {
    let open = |flags| openat(parent, name, flags, Mode::empty());
    match open(FOLDER) {
        Ok(folder) => {
            // Without write permission nothing can be removed from it.
            fchmod(&folder, Mode::RWXU).ok();
            Ok(folder)
        }
        Err(Errno::ACCESS) => {
            // Through a descriptor, so that no link that takes its place is followed.
            let place = open(FOLDER.union(OFlags::PATH))?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
            rustix::fs::chmod(path, Mode::RWXU)?;
            open(FOLDER)
        }
        Err(err) => Err(err),
    }
}

/// A random name that no other entry has.
pub fn fresh_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// The next name other than `.` and `..`.
fn next_name(folder: &mut Dir) -> io::Result<Option<CString>> {
    while let Some(entry) = folder.read() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

/// The disk usage of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk of its files and folders; a file with several hard links counts by its share.
    pub bytes: u64,
    /// Number of files and folders.
    pub entries: u64,
    /// Whether everything was counted: nothing too deep, too much, too slow or unreadable.
    pub is_whole: bool,
}

/// Measures the contents of a folder within the limits; others may change it meanwhile. What has
/// disappeared, even the folder itself, takes up nothing.
pub fn usage(folder: &Path, entries_max: u64, time_max: Duration) -> io::Result<Usage> {
    let begun = Instant::now();
    let mut usage = Usage { is_whole: true, ..Usage::default() };
    let root = match openat(CWD, folder, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(usage),
        root => root?,
    };
    let mut open = vec![Dir::new(root)?];
    while let Some(folder) = open.last_mut() {
        // A folder that disappears while it is read has nothing more to count.
        let Ok(Some(name)) = next_name(folder) else {
            open.pop();
            continue;
        };
        if usage.entries >= entries_max || begun.elapsed() > time_max {
            usage.is_whole = false;
            break;
        }
        let parent = folder.fd()?;
        let Ok(stat) = statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        usage.entries += 1;
        usage.bytes = usage.bytes.saturating_add(bytes_of(&stat));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match openat(parent, name.as_c_str(), FOLDER, Mode::empty()).and_then(Dir::new) {
                Ok(below) if open.len() < DEPTH_MAX => open.push(below),
                // It disappeared or was replaced: its former contents are not here.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                _ => usage.is_whole = false,
            }
        }
    }
    Ok(usage)
}

fn bytes_of(stat: &Stat) -> u64 {
    let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let names = if is_folder { 1 } else { stat.st_nlink.max(1) };
    bytes / names
}

/// Syncs a file, or a folder with everything in it, as deep as an output may be. Anything else is
/// left alone.
pub fn sync(path: &Path) -> io::Result<()> {
    let file = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
    let file = file.union(OFlags::CLOEXEC);
    let root = openat(CWD, path, file, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&root)?.st_mode);
    if kind != FileType::Directory {
        return if kind == FileType::RegularFile { Ok(fsync(&root)?) } else { Ok(()) };
    }
    let mut open = vec![Dir::new(root)?];
    while let Some(folder) = open.last_mut() {
        let Some(name) = next_name(folder)? else {
            fsync(folder.fd()?)?;
            open.pop();
            continue;
        };
        let parent = folder.fd()?;
        let stat = statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                fsync(openat(parent, name.as_c_str(), file, Mode::empty())?)?;
            }
            FileType::Directory => {
                let below = openat(parent, name.as_c_str(), FOLDER, Mode::empty())?;
                // What lies deeper is in no output and needs no sync.
                if open.len() < DEPTH_MAX {
                    open.push(Dir::new(below)?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether this user can't read the folder or something in it, as deep as an output may be.
pub fn is_closed(folder: &Path) -> bool {
    let file = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, folder, FOLDER, Mode::empty()).and_then(Dir::new) else {
        return true;
    };
    let mut open = vec![root];
    while let Some(folder) = open.last_mut() {
        let Ok(Some(name)) = next_name(folder) else {
            open.pop();
            continue;
        };
        let Ok(parent) = folder.fd() else { return true };
        let Ok(stat) = statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else {
            return true;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let flags = match kind {
            FileType::Directory => FOLDER,
            FileType::RegularFile => file,
            _ => continue,
        };
        match openat(parent, name.as_c_str(), flags, Mode::empty()) {
            Ok(below) if kind == FileType::Directory && open.len() < DEPTH_MAX => {
                let Ok(below) = Dir::new(below) else { return true };
                open.push(below);
            }
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests;
