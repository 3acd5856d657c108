//! The files beside a log that rotation made of it.
//!
//! Must hold: only names that rotation gives count, so that another program's log is not read as part of this one. A
//! folder that changes while it is listed is listed again. All of it is bounded.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use super::open::{self, Facts};

/// The most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 20_000;

/// How often a folder that changes is listed again.
const TRIES: usize = 5;

/// A file that rotation made.
#[derive(Debug, Clone)]
pub(super) struct Relative {
    pub(super) path: PathBuf,
    pub(super) facts: Facts,
    /// Compressed, so that its lines are not read.
    pub(super) is_packed: bool,
}

impl Relative {
    /// Opens it; `None` if another file has its name by now.
    pub(super) fn open(&self) -> Option<(File, Facts)> {
        let (file, facts) = open::open(&self.path).ok()?;
        (facts.id.inode == self.facts.id.inode).then_some((file, facts))
    }
}

/// When a file was created, or, where a file system doesn't know, last written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    pub(super) born: Option<u64>,
    pub(super) modified: u64,
}

impl Age {
    pub(super) const fn of(facts: &Facts) -> Self {
        Self { born: facts.born, modified: facts.modified }
    }

    /// The order in which the files were written.
    pub(super) fn order(self, other: Self) -> Ordering {
        match (self.born, other.born) {
            (Some(own), Some(others)) => own.cmp(&others).then(self.modified.cmp(&other.modified)),
            _ => self.modified.cmp(&other.modified),
        }
    }
}

/// The folders in which a log's files are: its own, and that of the file it is a link to.
fn folders(path: &Path) -> Vec<(PathBuf, Vec<OsString>)> {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let target = std::fs::canonicalize(path).ok();
    let mut names: Vec<OsString> = Vec::new();
    for name in [Some(path), target.as_deref()].into_iter().flatten().filter_map(Path::file_name) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let own = folder(path);
    let is_other = |other: &PathBuf| std::fs::canonicalize(&own).ok().as_ref() != Some(other);
    let others = target.as_deref().map(folder).filter(is_other);
    std::iter::once(own.clone()).chain(others).map(|folder| (folder, names.clone())).collect()
}

/// The folders whose changes may mean that a log was rotated.
pub(super) fn watched_folders(path: &Path) -> Vec<PathBuf> {
    folders(path).into_iter().map(|(folder, _)| folder).collect()
}

/// The file with this inode beside the log, whatever its name; `None` if it is gone.
pub(super) fn find(path: &Path, inode: u64) -> Option<(File, Facts)> {
    for _ in 0..TRIES {
        let entries = folders(path).into_iter().filter_map(|(folder, _)| folder.read_dir().ok());
        let mut entries = entries.flat_map(|entries| entries.take(ENTRIES_MAX)).flatten();
        let entry = entries.find(|entry| entry.ino() == inode);
        let opened = open::open(&entry.map_or_else(|| path.to_owned(), |entry| entry.path()));
        // It may have been renamed since, also while the folder was listed.
        if let Some(found) = opened.ok().filter(|(_, facts)| facts.id.inode == inode) {
            return Some(found);
        }
    }
    // Some file systems give other inodes in a listing.
    let all = relatives(path).unwrap_or_default();
    all.iter().find(|relative| relative.facts.id.inode == inode)?.open()
}

/// Whether the file with this inode has a name of the log: its own, or one that rotation gives.
pub(super) fn is_named(path: &Path, inode: u64) -> bool {
    let is_it = |facts: &Facts| facts.id.inode == inode;
    let is_relative = |it: &Relative| !it.is_packed && is_it(&it.facts);
    open::look(path).is_ok_and(|facts| is_it(&facts))
        || relatives(path).unwrap_or_default().iter().any(is_relative)
}

/// The files that rotation made of a log, without the one at its path, oldest first.
pub(super) fn relatives(path: &Path) -> io::Result<Vec<Relative>> {
    let mut latest = list(path)?;
    for _ in 0..TRIES {
        let again = list(path)?;
        let is_same = again.keys().eq(latest.keys());
        latest.extend(again);
        if is_same {
            break;
        }
    }
    let at_path = open::look(path).ok().map(|facts| facts.id);
    let mut found: Vec<Relative> =
        latest.into_values().filter(|it| Some(it.facts.id) != at_path).collect();
    found.sort_by(|a, b| Age::of(&a.facts).order(Age::of(&b.facts)));
    Ok(found)
}

/// By inode, since a folder in which files are renamed may tell of one twice.
fn list(path: &Path) -> io::Result<BTreeMap<u64, Relative>> {
    let mut found = BTreeMap::new();
    for (folder, names) in folders(path) {
        for entry in folder.read_dir()?.take(ENTRIES_MAX).flatten() {
            let name = entry.file_name();
            let kind = names.iter().find_map(|of| kinship(of, &name));
            let Some(is_packed) = kind else { continue };
            // A link, `latest` for one, would be a second name of a file.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() {
                let facts = Facts::of(&meta);
                found.insert(facts.id.inode, Relative { path: entry.path(), facts, is_packed });
            }
        }
    }
    Ok(found)
}

/// Whether rotation gives a log of this name that other name: `None` if not, else whether it is compressed.
fn kinship(log: &OsStr, name: &OsStr) -> Option<bool> {
    let (log, mut name) = (log.as_bytes(), name.as_bytes());
    let packed = PACKED.iter().find_map(|ending| name.strip_suffix(ending.as_bytes()));
    name = packed.unwrap_or(name);
    let after = name.strip_prefix(log).is_some_and(is_suffix);
    let is_kin = after || {
        // `x-20260101.log` of `x.log`.
        let dot = log.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0);
        let parts = dot.and_then(|dot| log.split_at_checked(dot));
        let between =
            parts.and_then(|(stem, ending)| name.strip_prefix(stem)?.strip_suffix(ending));
        between.is_some_and(is_suffix)
    };
    is_kin.then_some(packed.is_some())
}

/// The endings of compressed files.
const PACKED: [&str; 6] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z"];

/// The words that rotation appends.
const WORDS: [&[u8]; 6] = [b"old", b"bak", b"prev", b"previous", b"backup", b"last"];

/// The most bytes that rotation appends.
const SUFFIX_MAX: usize = 64;

/// Whether a text is what rotation appends to a name: a separator, then a number, a date, a hash, or a word.
fn is_suffix(text: &[u8]) -> bool {
    let Some((separator, rest)) = text.split_first() else { return false };
    if !b".-_".contains(separator) || rest.is_empty() || rest.len() > SUFFIX_MAX {
        return false;
    }
    let mut parts = rest.split(|byte| b".-_:+".contains(byte));
    let is_part = |part: &[u8]| {
        let is_number = part.iter().all(|byte| byte.is_ascii_hexdigit() || b"TZ".contains(byte));
        is_number || WORDS.contains(&part)
    };
    let has_digit = rest.iter().any(u8::is_ascii_digit);
    parts.all(is_part) && (has_digit || WORDS.iter().any(|word| rest.ends_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin(name: &str) -> Option<bool> {
        kinship(OsStr::new("swarm.log"), OsStr::new(name))
    }

    #[test]
    fn names_that_rotation_gives_are_known() {
        for name in [
            "swarm.log.1",
            "swarm.log.12",
            "swarm.log-20260102",
            "swarm.log.2026-01-02_03-04-05",
            "swarm.log-20260102T030405Z",
            "swarm.log.old",
            "swarm.log.1.bak",
            "swarm-20260102.log",
            "swarm.1.log",
            "swarm_2026-01-02.log",
        ] {
            assert_eq!(kin(name), Some(false), "{name}");
        }
        assert_eq!(kin("swarm.log.2.gz"), Some(true));
        assert_eq!(kin("swarm.log-20260102.zst"), Some(true));
        assert_eq!(kinship(OsStr::new("log"), OsStr::new("log.3")), Some(false));
    }

    #[test]
    fn the_logs_of_others_are_not_taken_for_rotated_ones() {
        for name in [
            "swarm.log",
            "swarm_launcher.log",
            "swarm-error.log",
            "swarm.log.lock",
            "swarm.log.pid",
            "swarm.log.swp",
            "swarm.log.",
            "swarm.log1",
            "swarm.logs.1",
            "yarn.log.1",
            "swarm.tar.gz",
            ".swarm.log.1",
        ] {
            assert_eq!(kin(name), None, "{name}");
        }
    }
}
