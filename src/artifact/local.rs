//! A file or folder that a stranger wrote, read without trusting it.
//!
//! What must hold: nothing outside the folder is ever opened. Every step goes through a folder
//! that is already open and follows no link, so a link that appears between two steps is refused
//! like any other. A descriptor is open for each folder on the way down, of [`DEPTH_MAX`] at most;
//! a name that the upload can't carry is refused here, before anything is hashed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};

use super::{DEPTH_MAX, ENTRIES_MAX, Error, NAME_BYTES_MAX, names};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file, or a folder with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<T> {
    File(T),
    Directory(BTreeMap<String, Item<T>>),
}

impl<T> Item<T> {
    /// Every file with the names that lead to it.
    pub(super) fn files(&self) -> Vec<(Vec<&str>, &T)> {
        let mut files = Vec::new();
        let mut open = vec![(Vec::new(), self)];
        while let Some((path, item)) = open.pop() {
            match item {
                Item::File(file) => files.push((path, file)),
                Item::Directory(items) => open.extend(items.iter().rev().map(|(name, item)| {
                    let mut path = path.clone();
                    path.push(name.as_str());
                    (path, item)
                })),
            }
        }
        files
    }
}

/// A file or folder on this machine, as it was found.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// What is there; a file with its length. Folders without a file below them are left out.
    pub(super) item: Item<u64>,
}

impl Tree {
    /// Looks at everything below `path`; its files may have `bytes_max` together.
    pub(super) fn open(path: &Path, bytes_max: u64) -> Result<Self, Error> {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|err| match err {
            rustix::io::Errno::NOENT => Error::Missing(path.to_owned()),
            other => Error::from(std::io::Error::from(other)),
        })?;
        let mut walk = Walk { bytes_left: bytes_max, bytes_max, entries_left: ENTRIES_MAX };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let root = match kind {
            FileType::RegularFile => openat(CWD, path, READ | OFlags::NONBLOCK, Mode::empty()),
            FileType::Directory => openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty()),
            other => return Err(unsupported(TOP, kind_name(other))),
        };
        let root = root.map_err(std::io::Error::from)?;
        let stat = fstat(&root).map_err(std::io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(unsupported(TOP, "something that changes while it is looked at"));
        }
        let item = if kind == FileType::Directory {
            // A descriptor of its own, so a position of its own.
            let own = openat(&root, ".", READ | OFlags::DIRECTORY, Mode::empty());
            let found = walk.folder(own.map_err(std::io::Error::from)?, &mut Vec::new())?;
            found.ok_or_else(|| unsupported(TOP, "a folder without a file in it"))?
        } else {
            Item::File(walk.file(stat.st_size)?)
        };
        Ok(Self { root, item })
    }

    /// Opens the file at `path` again, from its start.
    pub(super) fn open_file(&self, path: &[&str]) -> Result<File, Error> {
        let Some((name, folders)) = path.split_last() else {
            // The root itself is the file. A descriptor of its own, so a position of its own.
            let own = Path::new("/proc/self/fd").join(raw(&self.root).to_string());
            return File::open(own).map_err(Error::from);
        };
        let mut folder = self.root.try_clone()?;
        for name in folders {
            folder = openat(&folder, *name, READ | OFlags::DIRECTORY, Mode::empty())
                .map_err(std::io::Error::from)?;
        }
        let file = openat(&folder, *name, READ | OFlags::NONBLOCK, Mode::empty())
            .map_err(std::io::Error::from)?;
        match FileType::from_raw_mode(fstat(&file).map_err(std::io::Error::from)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            other => Err(unsupported(path, kind_name(other))),
        }
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

struct Walk {
    bytes_left: u64,
    bytes_max: u64,
    entries_left: usize,
}

impl Walk {
    fn folder(
        &mut self,
        folder: OwnedFd,
        path: &mut Vec<String>,
    ) -> Result<Option<Item<u64>>, Error> {
        if path.len() > DEPTH_MAX {
            return Err(unsupported(path, "too many folders in one another"));
        }
        let mut items = BTreeMap::new();
        let mut entries = Dir::new(folder).map_err(std::io::Error::from)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(std::io::Error::from)?;
            let (name, folder) = (entry.file_name(), entries.fd().map_err(std::io::Error::from)?);
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            path.push(name.to_string_lossy().into_owned());
            let entry_stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let entry_stat = entry_stat.map_err(std::io::Error::from)?;
            self.entries_left = (self.entries_left.checked_sub(1))
                .ok_or_else(|| unsupported(TOP, "too many files and folders"))?;
            match name.to_str() {
                Ok(name) if name.len() <= NAME_BYTES_MAX => {
                    names::check(name).map_err(|why| unsupported(path, why))?;
                }
                _ => return Err(unsupported(path, "a name that is no UTF-8")),
            }
            let item = match FileType::from_raw_mode(entry_stat.st_mode) {
                FileType::RegularFile => Some(Item::File(self.file(entry_stat.st_size)?)),
                FileType::Directory => {
                    let below = openat(folder, name, READ | OFlags::DIRECTORY, Mode::empty());
                    self.folder(below.map_err(std::io::Error::from)?, path)?
                }
                other => return Err(unsupported(path, kind_name(other))),
            };
            if let (Some(item), Some(name)) = (item, path.pop()) {
                items.insert(name, item);
            }
        }
        Ok((!items.is_empty()).then_some(Item::Directory(items)))
    }

    fn file(&mut self, bytes: i64) -> Result<u64, Error> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes_left = (self.bytes_left.checked_sub(bytes))
            .ok_or(Error::TooLarge { limit_bytes: self.bytes_max })?;
        Ok(bytes)
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "neither a file nor a folder",
    }
}

/// The path of the root itself.
const TOP: &[&str] = &[];

fn unsupported(path: &[impl AsRef<str>], reason: &str) -> Error {
    let path: Vec<_> = path.iter().map(AsRef::as_ref).collect();
    Error::Unsupported { path: names::shown(&path.join("/")), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_and_folders_with_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("empty/nested")).unwrap();
        fs::write(dir.path().join("a/b/c"), "see").unwrap();
        fs::write(dir.path().join("d"), "").unwrap();
        let tree = Tree::open(dir.path(), 3).unwrap();
        assert_eq!(tree.item.files(), [(vec!["a", "b", "c"], &3), (vec!["d"], &0)]);
        assert!(matches!(Tree::open(dir.path(), 2), Err(Error::TooLarge { limit_bytes: 2 })));
        let missing = dir.path().join("none");
        assert!(matches!(Tree::open(&missing, 2), Err(Error::Missing(path)) if path == missing));
    }

    #[test]
    fn links_pipes_and_sockets_are_refused_by_name() {
        for (make, reason) in [
            ((|at: &Path| symlink("/etc/passwd", at).unwrap()) as fn(&Path), "a symbolic link"),
            (|at| drop(std::os::unix::net::UnixListener::bind(at).unwrap()), "a socket"),
            (
                |at| rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                "a named pipe",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("in")).unwrap();
            make(&dir.path().join("in/odd"));
            match Tree::open(dir.path(), 9) {
                Err(Error::Unsupported { path, reason: why }) => {
                    assert_eq!((path.as_str(), why.as_str()), ("in/odd", reason));
                }
                other => panic!("{other:?}"),
            }
            let root = Tree::open(&dir.path().join("in/odd"), 9);
            assert!(matches!(root, Err(Error::Unsupported { .. })), "{root:?}");
        }
    }

    #[test]
    fn a_name_that_no_upload_can_carry_is_refused_and_shown_on_one_line() {
        for (name, shown) in [("bell\u{7}\nx", "in/bell\\u{7}\\nx"), ("a%0Ab", "in/a%0Ab")] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("in")).unwrap();
            fs::write(dir.path().join("in").join(name), "").unwrap();
            let refused = Tree::open(dir.path(), 9).map(drop).unwrap_err();
            assert!(
                matches!(&refused, Error::Unsupported { path, .. } if path == shown),
                "{refused}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("odd\nname\t\"\\"), "").unwrap();
        symlink("/", dir.path().join("line\nbreak")).unwrap();
        let refused = Tree::open(dir.path(), 9).map(drop).unwrap_err().to_string();
        assert!(refused.contains("`line\\nbreak`") && !refused.contains('\n'), "{refused}");
    }

    #[test]
    fn a_link_that_appears_after_the_look_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/file"), "mine").unwrap();
        let tree = Tree::open(dir.path(), 9).unwrap();
        fs::rename(dir.path().join("in"), dir.path().join("away")).unwrap();
        symlink("/etc", dir.path().join("in")).unwrap();
        assert!(tree.open_file(&["in", "passwd"]).is_err());
    }
}
