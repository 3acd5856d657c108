//! The private folder in which an object is assembled until all of it is verified.
//!
//! Invariants: it lies next to the final path, so that one rename publishes the object; only
//! checked names become paths; dropping it removes it with its contents. A finished object is not
//! synced to disk: after a power loss it has to be fetched again.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::{ENTRIES_MAX, Error, NAME_BYTES_MAX, PATH_BYTES_MAX, names};

/// Files kept open at a time: blocks of several files may arrive interleaved.
const OPEN_MAX: usize = 8;

/// Index of a file or folder of the object; 0 is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId(u32);

impl EntryId {
    /// The root of the object.
    pub(super) const ROOT: Self = Self(0);
}

#[derive(Debug)]
struct Entry {
    parent: EntryId,
    name: Box<str>,
    depth: usize,
    path_bytes: usize,
}

/// An object under assembly; see the module.
#[derive(Debug)]
pub(super) struct Staging {
    dir: tempfile::TempDir,
    dest: PathBuf,
    entries: Vec<Entry>,
    open: Vec<(EntryId, File)>,
    /// Created last, so that nothing is ever written through a link.
    links: Vec<(EntryId, String)>,
    spill: Option<(File, u64)>,
}

impl Staging {
    /// Creates a staging folder for `dest`, which must not exist.
    pub(super) fn new(dest: &Path) -> Result<Self, Error> {
        if dest.symlink_metadata().is_ok() {
            return Err(Error::Io(std::io::ErrorKind::AlreadyExists.into()));
        }
        let parent = dest.parent().unwrap_or(Path::new("."));
        let dir = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent)?;
        let root = Entry { parent: EntryId::ROOT, name: "object".into(), depth: 0, path_bytes: 0 };
        let dest = dest.to_owned();
        let (entries, open, links) = (vec![root], Vec::new(), Vec::new());
        Ok(Self { dir, dest, entries, open, links, spill: None })
    }

    /// Path at which the object is assembled.
    pub(super) fn object(&self) -> PathBuf {
        self.path(EntryId::ROOT)
    }

    /// Registers an entry called `name` in `parent`; creates nothing on disk yet.
    pub(super) fn entry(&mut self, parent: EntryId, name: &[u8]) -> Result<EntryId, Error> {
        let shown = || String::from_utf8_lossy(name).escape_debug().take(64).collect::<String>();
        let refuse = |reason: &str| Error::Unsupported { path: shown(), reason: reason.into() };
        let name = std::str::from_utf8(name).map_err(|_| refuse("a name that is not UTF-8"))?;
        let hostile = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
        if hostile || name.len() > NAME_BYTES_MAX {
            return Err(refuse("a name that no file can have"));
        }
        let Entry { depth, path_bytes, .. } = self.entries[parent.0 as usize];
        // A slash before each name but the first.
        let slash = usize::from(depth > 0);
        let (depth, path_bytes) = (depth + 1, path_bytes + slash + name.len());
        names::check_place(depth, path_bytes).map_err(refuse)?;
        let id = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        if self.entries.len() > ENTRIES_MAX {
            return Err(refuse(&format!(
                "more than {ENTRIES_MAX} files and folders in one object"
            )));
        }
        self.entries.push(Entry { parent, name: name.into(), depth, path_bytes });
        Ok(EntryId(id))
    }

    /// Creates the entry's folder. Fails if another entry has the same name.
    pub(super) fn create_dir(&self, entry: EntryId) -> Result<(), Error> {
        let path = self.path(entry);
        fs::create_dir(&path).map_err(|err| self.refused(entry, err))?;
        // Any user in the container may read it, whatever this process's umask is.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::from)
    }

    /// Registers a symbolic link to `target`, which must stay inside the object.
    pub(super) fn link(&mut self, entry: EntryId, target: &[u8]) -> Result<(), Error> {
        let refuse = |reason: &str| {
            Err(Error::Unsupported { path: self.shown(entry), reason: reason.to_owned() })
        };
        let Ok(target) = std::str::from_utf8(target) else {
            return refuse("a symbolic link whose target is not UTF-8");
        };
        // Number of folders above the link: it may lead up by as many steps.
        let mut depth = self.entries[entry.0 as usize].depth.saturating_sub(1);
        for part in Path::new(target).components() {
            match part {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir if depth > 0 => depth -= 1,
                _ => return refuse("a symbolic link that leads out of the object"),
            }
        }
        if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains('\0') {
            return refuse("a symbolic link to a name that no file can have");
        }
        self.links.push((entry, target.to_owned()));
        Ok(())
    }

    /// Creates the entry's empty file. Fails if another entry has the same name.
    pub(super) fn create_file(&mut self, entry: EntryId) -> Result<(), Error> {
        let options = File::options().read(true).write(true).create_new(true).clone();
        let file = options.open(self.path(entry)).map_err(|err| self.refused(entry, err))?;
        // An upload carries no modes, so any file may have to be executable.
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        self.keep_open(entry, file);
        Ok(())
    }

    /// Writes `bytes` at `offset` of a file.
    pub(super) fn write(&mut self, entry: EntryId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file(entry)?.write_all_at(bytes, offset).map_err(Error::from)
    }

    /// Reads `len` bytes at `offset` of a file back.
    pub(super) fn read(
        &mut self,
        entry: EntryId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.file(entry)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Stores a block that may be needed again; returns its position.
    pub(super) fn spill(&mut self, block: &[u8]) -> Result<u64, Error> {
        if self.spill.is_none() {
            self.spill = Some((tempfile::tempfile_in(self.dir.path())?, 0));
        }
        let Some((file, end)) = &mut self.spill else { return Err(lost()) };
        let at = *end;
        file.write_all_at(block, at)?;
        *end += block.len() as u64;
        Ok(at)
    }

    /// Reads a block that [`Self::spill`] stored.
    pub(super) fn unspill(&self, at: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut block = vec![0; len];
        let (file, _) = self.spill.as_ref().ok_or_else(lost)?;
        file.read_exact_at(&mut block, at)?;
        Ok(block)
    }

    /// Creates the links and moves the object to its final name.
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.dest.symlink_metadata().is_ok() {
            return Err(Error::Io(std::io::ErrorKind::AlreadyExists.into()));
        }
        for (entry, target) in &self.links {
            let made = std::os::unix::fs::symlink(target, self.path(*entry));
            made.map_err(|err| self.refused(*entry, err))?;
        }
        fs::rename(self.object(), &self.dest).map_err(Error::from)
    }

    /// The entry's path within the object, escaped for messages.
    pub(super) fn shown(&self, entry: EntryId) -> String {
        let path = self.path(entry);
        let path = path.strip_prefix(self.object()).unwrap_or(&path);
        if path.as_os_str().is_empty() {
            return "the object itself".to_owned();
        }
        path.to_string_lossy().escape_debug().take(200).collect()
    }

    fn path(&self, entry: EntryId) -> PathBuf {
        let mut names = Vec::new();
        let mut at = entry;
        loop {
            let Entry { parent, name, .. } = &self.entries[at.0 as usize];
            names.push(&**name);
            if at == EntryId::ROOT {
                break;
            }
            at = *parent;
        }
        let mut path = self.dir.path().to_owned();
        path.extend(names.iter().rev());
        path
    }

    fn file(&mut self, entry: EntryId) -> Result<&File, Error> {
        if let Some(at) = self.open.iter().position(|(open, _)| *open == entry) {
            return Ok(&self.open[at].1);
        }
        let file = File::options().read(true).write(true).open(self.path(entry))?;
        Ok(self.keep_open(entry, file))
    }

    fn keep_open(&mut self, entry: EntryId, file: File) -> &File {
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push((entry, file));
        &self.open[self.open.len() - 1].1
    }

    fn refused(&self, entry: EntryId, err: std::io::Error) -> Error {
        if err.kind() == std::io::ErrorKind::AlreadyExists {
            let reason = "two entries of one name".into();
            return Error::Unsupported { path: self.shown(entry), reason };
        }
        Error::from(err)
    }
}

fn lost() -> Error {
    Error::Io(std::io::ErrorKind::NotFound.into())
}
