//! `remove-groups FOLDER PATH…`: removes control groups that jobs have left, as root of the host may.
//!
//! Must hold: nothing but empty control groups is removed, since only `rmdir` is called; no path leads out of the
//! folder.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// Removes each of these paths below the folder, or below each hierarchy in it (version 1).
pub(crate) fn remove(folder: &str, paths: &[String]) -> Result<(), String> {
    let hierarchies = hierarchies(Path::new(folder)).map_err(|err| format!("{folder}: {err}"))?;
    let mut failure = None;
    for path in paths {
        let path = below(path).ok_or_else(|| format!("{path} leads out of {folder}"))?;
        for hierarchy in &hierarchies {
            match fs::remove_dir(hierarchy.join(&path)) {
                Ok(()) => {}
                Err(err) if err.kind() == ErrorKind::NotFound => {}
                Err(err) => failure = Some(format!("{}: {err}", path.display())),
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

fn hierarchies(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if folder.join("cgroup.controllers").exists() {
        return Ok(vec![folder.to_owned()]);
    }
    let entries = fs::read_dir(folder)?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

/// The path without its leading slash, if it stays below.
fn below(path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    (stays && path.components().next().is_some()).then(|| path.to_owned())
}
