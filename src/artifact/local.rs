//! Reads an untrusted file or folder.
//!
//! Invariants: nothing outside the folder is ever opened. Every step goes through a folder that is
//! already open and follows no link, so a link that appears between two steps is refused like any
//! other. One descriptor is open per folder on the way down, at most 64 (`names::check_place`). Entries that
//! the upload can't carry are left out here and noted by name, before anything is hashed.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};

use super::carry::{self, Found, LeftOut};
use super::item::{Item, Leaf, View};
use super::{ENTRIES_MAX, Error, NAME_BYTES_MAX, names};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A local file or folder with the listing of its contents.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// What was found. Folders without a file below them are left out.
    pub(super) item: Item<Leaf>,
    /// Entries that can't be carried, with reasons.
    pub(super) left_out: LeftOut,
}

impl Tree {
    /// Lists everything below `path`.
    pub(super) fn open(path: &Path, view: &View) -> Result<Self, Error> {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|err| match err {
            rustix::io::Errno::NOENT => Error::Missing(path.to_owned()),
            other => Error::from(std::io::Error::from(other)),
        })?;
        let mut walk = Walk::new(view);
        // `NONBLOCK`: a pipe that takes the file's place must not block the open.
        let kind = FileType::from_raw_mode(stat.st_mode);
        let root = match kind {
            FileType::RegularFile => openat(CWD, path, READ | OFlags::NONBLOCK, Mode::empty()),
            FileType::Directory => openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty()),
            other => return Err(walk.of_root(kind_name(other))),
        };
        let root = root.map_err(std::io::Error::from)?;
        let stat = fstat(&root).map_err(std::io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(walk.of_root("something that changes while it is read"));
        }
        let item = if kind == FileType::Directory {
            // A separate descriptor has a read position of its own.
            let own = openat(&root, ".", READ | OFlags::DIRECTORY, Mode::empty());
            let found = walk.folder(own.map_err(std::io::Error::from)?, &mut Vec::new())?;
            let entries_left = walk.entries_left;
            carry::carried(&found, view, entries_left, &mut walk.left_out)
                .ok_or_else(|| walk.of_root(&no_file(&walk.left_out)))?
        } else {
            Item::File(Leaf::plain(walk.file(stat.st_size)?))
        };
        Ok(Self { root, item, left_out: walk.left_out })
    }

    /// Opens the file at `path` again, from its start.
    pub(super) fn open_file(&self, path: &[&str], leaf: &Leaf) -> Result<File, Error> {
        let behind: Option<Vec<&str>> =
            leaf.lies_at().map(|real| real.iter().map(String::as_str).collect());
        self.open_at(behind.as_deref().unwrap_or(path))
    }

    fn open_at(&self, path: &[&str]) -> Result<File, Error> {
        let Some((name, folders)) = path.split_last() else {
            // The root itself is the file. Opening it anew gives a read position of its own.
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
            other => Err(unsupported(names::shown(&path.join("/")), kind_name(other))),
        }
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

fn no_file(left_out: &LeftOut) -> String {
    let told = left_out.told();
    if told.is_empty() {
        return "it is a folder without a file in it".to_owned();
    }
    let told: String = told.join("; ").chars().take(250).collect();
    format!("it contains nothing that can be ({told})")
}

struct Walk<'a> {
    view: &'a View,
    bytes_left: u64,
    entries_left: usize,
    left_out: LeftOut,
}

impl<'a> Walk<'a> {
    fn new(view: &'a View) -> Self {
        let (bytes_left, entries_left) = (view.bytes_max, ENTRIES_MAX);
        Self { view, bytes_left, entries_left, left_out: LeftOut::default() }
    }

    fn folder(&mut self, folder: OwnedFd, path: &mut Vec<String>) -> Result<Found, Error> {
        let mut found = BTreeMap::new();
        let mut entries = Dir::new(folder).map_err(std::io::Error::from)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(std::io::Error::from)?;
            let (name, folder) = (entry.file_name(), entries.fd().map_err(std::io::Error::from)?);
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
                self.of_root(&format!("it holds more than {ENTRIES_MAX} files and folders"))
            })?;
            path.push(name.to_string_lossy().into_owned());
            match self.entry(folder, name, path)? {
                Ok(entry) => drop(path.pop().map(|name| found.insert(name, entry))),
                Err(why) => {
                    self.left_out.note(path, why);
                    path.pop();
                }
            }
        }
        Ok(Found::Folder(found))
    }

    /// Classifies an entry. The inner `Err` says why it can't be carried.
    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<String>,
    ) -> Result<Result<Found, &'static str>, Error> {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(std::io::Error::from)?;
        match name.to_str() {
            Ok(name) if name.len() <= NAME_BYTES_MAX => {
                if let Err(why) = names::check(name) {
                    return Ok(Err(why));
                }
            }
            _ => return Ok(Err("a name that is not UTF-8")),
        }
        if let Err(why) = names::check_path(path) {
            return Ok(Err(why));
        }
        Ok(Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Found::File(self.file(stat.st_size)?),
            FileType::Directory => {
                let below = openat(folder, name, READ | OFlags::DIRECTORY, Mode::empty());
                self.folder(below.map_err(std::io::Error::from)?, path)?
            }
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new()).map_err(std::io::Error::from)?;
                Found::Link(target.to_string_lossy().into_owned())
            }
            other => return Ok(Err(kind_name(other))),
        }))
    }

    fn file(&mut self, bytes: i64) -> Result<u64, Error> {
        let (bytes, limit_bytes) = (u64::try_from(bytes).unwrap_or(u64::MAX), self.view.bytes_max);
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(Error::TooLarge { limit_bytes })?;
        Ok(bytes)
    }

    /// The error for a root that can't be carried.
    fn of_root(&self, reason: &str) -> Error {
        unsupported(names::shown(&self.view.seen_as), reason)
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

fn unsupported(path: String, reason: &str) -> Error {
    Error::Unsupported { path, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &Path, bytes_max: u64) -> Result<Tree, Error> {
        Tree::open(path, &View { seen_as: "/output".to_owned(), bytes_max })
    }

    #[test]
    fn only_files_and_folders_with_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("empty/nested")).unwrap();
        fs::write(dir.path().join("a/b/c"), "see").unwrap();
        fs::write(dir.path().join("d"), "").unwrap();
        let tree = open(dir.path(), 3).unwrap();
        let (full, none) = (Leaf::plain(3), Leaf::plain(0));
        assert_eq!(tree.item.files(), [(vec!["a", "b", "c"], &full), (vec!["d"], &none)]);
        assert!(matches!(open(dir.path(), 2), Err(Error::TooLarge { limit_bytes: 2 })));
        let missing = dir.path().join("none");
        assert!(matches!(open(&missing, 2), Err(Error::Missing(path)) if path == missing));
    }

    #[test]
    fn a_folder_of_too_many_files_is_refused_with_the_number() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=ENTRIES_MAX {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let refused = open(dir.path(), 9).map(drop).unwrap_err().to_string();
        assert!(refused.contains("it holds more than 30000 files and folders"), "{refused}");
        fs::remove_file(dir.path().join("0")).unwrap();
        assert_eq!(open(dir.path(), 9).unwrap().item.files().len(), ENTRIES_MAX);
    }

    #[test]
    fn links_out_pipes_and_sockets_are_left_out_by_name_and_the_rest_is_carried() {
        for (make, reason) in [
            (
                (|at: &Path| symlink("/etc/passwd", at).unwrap()) as fn(&Path),
                "a link that leads out of it",
            ),
            (|at| drop(std::os::unix::net::UnixListener::bind(at).unwrap()), "a socket"),
            (
                |at| rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                "a named pipe",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("in")).unwrap();
            make(&dir.path().join("in/odd"));
            let refused = open(dir.path(), 9).map(drop).unwrap_err().to_string();
            let told = format!(
                "`/output` can't be carried: it contains nothing that can be (in/odd: {reason})"
            );
            assert_eq!(refused, told);
            fs::write(dir.path().join("in/file"), "x").unwrap();
            let tree = open(dir.path(), 9).unwrap();
            assert_eq!(tree.item.files(), [(vec!["in", "file"], &Leaf::plain(1))]);
            assert_eq!(tree.left_out.told(), [format!("in/odd: {reason}")]);
            let root = open(&dir.path().join("in/odd"), 9);
            assert!(
                matches!(&root, Err(Error::Unsupported { path, .. }) if path == "/output"),
                "{root:?}"
            );
        }
    }

    #[test]
    fn a_name_that_no_upload_can_carry_is_left_out_and_shown_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        for name in ["bell\u{7}\nx", "a%0Ab", "fine", "odd\nname\t\"\\"] {
            fs::write(dir.path().join("in").join(name), "").unwrap();
        }
        symlink("/", dir.path().join("line\nbreak")).unwrap();
        let tree = open(dir.path(), 9).unwrap();
        assert_eq!(tree.item.files().len(), 2);
        let told = tree.left_out.told().join(" ");
        assert!(told.contains("in/bell\\u{7}\\nx") && told.contains("in/a%0Ab"), "{told}");
        assert!(told.contains("line\\nbreak: ") && !told.contains('\n'), "{told}");
    }

    #[test]
    fn what_lies_too_deep_to_be_fetched_is_left_out_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("fine"), "x").unwrap();
        let name = "n".repeat(250);
        // Step by step: such a path is longer than a system call takes.
        let mut at: OwnedFd = File::open(dir.path()).unwrap().into();
        for _ in 0..20 {
            rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
            at = openat(&at, &*name, READ | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        let deep = dir.path().join(["d"; 64].join("/"));
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        fs::write(&deep, "at the limit").unwrap();
        fs::create_dir_all(dir.path().join(["e"; 64].join("/"))).unwrap();
        fs::write(dir.path().join(["e"; 65].join("/")), "beyond it").unwrap();
        let tree = open(dir.path(), 99).unwrap();
        let depths: Vec<_> = tree.item.files().iter().map(|(path, _)| path.len()).collect();
        assert_eq!(depths, [64, 1]);
        let mut told = tree.left_out.told();
        told.sort();
        assert!(told[0].ends_with(": more than 64 folders in one another"), "{told:?}");
        assert!(told[1].ends_with(": a path of more than 2048 bytes"), "{told:?}");
    }

    #[test]
    fn links_never_make_an_object_of_more_entries_than_can_be_fetched() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("many")).unwrap();
        for number in 0..ENTRIES_MAX / 2 {
            fs::write(dir.path().join("many").join(number.to_string()), "").unwrap();
        }
        symlink("many", dir.path().join("again")).unwrap();
        let tree = open(dir.path(), 9).unwrap();
        assert_eq!(tree.item.files().len(), ENTRIES_MAX / 2);
        assert_eq!(tree.left_out.told(), ["again: a link to more than may be carried"]);
        fs::remove_file(dir.path().join("many/0")).unwrap();
        assert_eq!(open(dir.path(), 9).unwrap().item.files().len(), ENTRIES_MAX - 2);
    }

    #[test]
    fn a_link_that_appears_after_the_look_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/file"), "mine").unwrap();
        let tree = open(dir.path(), 9).unwrap();
        fs::rename(dir.path().join("in"), dir.path().join("away")).unwrap();
        symlink("/etc", dir.path().join("in")).unwrap();
        assert!(tree.open_file(&["in", "passwd"], &Leaf::plain(1)).is_err());
    }
}
