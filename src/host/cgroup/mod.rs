//! The control groups of jobs: what the kernel counts of all processes of one, also of those that have ended.
//!
//! A job's container has a parent group of its own, which outlives it: after the container is gone, the parent still
//! holds the sums of its CPU time, its disk traffic and its memory's peak. See cgroups(7) and the kernel's
//! `admin-guide/cgroup-v2.rst` and `cgroup-v1/`.
//!
//! Invariants: what can't be read is unknown, with the reason, and never 0; the files of a group are opened once, so
//! that a group of the same name that comes later is not taken for it; each read is bounded.

mod kept;
mod processes;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};

use crate::usage::watch::Place;
use crate::usage::{Kind, Metric, Readings, Unknown};
use kept::Kept;
use processes::Processes;

/// Where the kernel shows control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// The control groups of one job.
#[derive(Debug)]
pub struct Group {
    files: Files,
    processes: Processes,
}

#[derive(Debug)]
enum Files {
    V1(v1::Files),
    V2(v2::Files),
}

impl Group {
    /// Opens the files of the group at this place. Fails if there is no such group, or it can't be read.
    pub fn open(place: &Place) -> Result<Self, Unknown> {
        Self::open_at(Path::new(ROOT), place)
    }

    /// Opens the files of a program's own group: the one around this process that has this name, a unit's, or a
    /// container's id. Fails if none of the process's groups has it, or it can't be read.
    pub fn around(pid: u32, name: &str) -> Result<Self, Unknown> {
        let root = Path::new(ROOT);
        let is_v2 = root.join("cgroup.controllers").exists();
        let path = up_to(&of_process(pid, name, is_v2)?, name).ok_or(Unknown::Gone)?;
        Self::open_path(root, is_v2, &path, &path)
    }

    fn open_at(root: &Path, place: &Place) -> Result<Self, Unknown> {
        let is_v2 = root.join("cgroup.controllers").exists();
        let (path, container) = match place {
            Place::Parent { path, container } => (plain(path)?, Some(container)),
            Place::Container { container, pid } => (of_process(*pid, container, is_v2)?, None),
        };
        let below = container.map_or_else(|| path.clone(), |id| path.join(id));
        Self::open_path(root, is_v2, &path, &below)
    }

    /// Opens the group at `path`, whose processes are in the one at `below`.
    fn open_path(root: &Path, is_v2: bool, path: &Path, below: &Path) -> Result<Self, Unknown> {
        if is_v2 {
            let files = v2::Files::open(&root.join(path))?;
            let processes = Processes::of(&root.join(below));
            return Ok(Self { files: Files::V2(files), processes });
        }
        let files = v1::Files::open(root, path)?;
        // Any hierarchy has them: the engine puts the container into all.
        let processes = Processes::of(&root.join("memory").join(below));
        Ok(Self { files: Files::V1(files), processes })
    }

    /// Reads those metrics for which `wants` is true; the others are [`Unknown::Off`].
    pub fn read(&mut self, wants: impl Fn(Metric) -> bool) -> Readings {
        let mut readings = Readings::unknown(Unknown::Off);
        match &mut self.files {
            Files::V1(files) => {
                files.read(&wants, &mut readings);
                if wants(Metric::DiskWrite) {
                    readings[Metric::DiskWrite] = self.processes.written();
                }
            }
            Files::V2(files) => files.read(&wants, &mut readings),
        }
        self.processes.read(&wants, &mut readings);
        readings
    }

    /// Reads the sums and the peak once more after the container has ended. What only a running job has is
    /// [`Unknown::Gone`].
    pub fn read_last(&mut self, wants: impl Fn(Metric) -> bool) -> Readings {
        let mut readings = self.read(|metric| wants(metric) && metric.kind() != Kind::Gauge);
        if matches!(self.files, Files::V1(_)) && wants(Metric::DiskWrite) {
            // What its processes wrote after the last look went with them.
            readings[Metric::DiskWrite] = Err(Unknown::Missed);
        }
        for metric in Metric::ALL {
            if wants(metric) && metric.kind() == Kind::Gauge {
                readings[metric] = Err(Unknown::Gone);
            }
        }
        readings
    }
}

/// A path below the hierarchies' roots, checked: the engine was told it, but it is built from a job's id.
fn plain(path: &str) -> Result<PathBuf, Unknown> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Unknown::Failed);
    }
    Ok(parts.iter().collect())
}

/// The group of this process, if it names the container.
fn of_process(pid: u32, container: &str, is_v2: bool) -> Result<PathBuf, Unknown> {
    let text = super::cgroups_of(pid).ok_or(Unknown::Gone)?;
    let line = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_it = if is_v2 {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == "memory")
        };
        is_it.then_some(path)
    });
    let path = line.ok_or(Unknown::NotSupported)?;
    if container.is_empty() || !path.contains(container) {
        return Err(Unknown::Gone);
    }
    plain(path)
}

/// The path up to the group with this name: a unit is a whole part of it, and a container's id stands in one.
fn up_to(path: &Path, name: &str) -> Option<PathBuf> {
    let is_id = super::process::is_container_id(name);
    let ends_at = |part: &str| part == name || (is_id && part.contains(name));
    let mut up_to = PathBuf::new();
    for part in path.components() {
        up_to.push(part);
        if part.as_os_str().to_str().is_some_and(ends_at) {
            return Some(up_to);
        }
    }
    None
}

/// Removes a job's parent group from all hierarchies. Groups that are there no more are no error; one that still
/// has processes or groups below it is ([`io::ErrorKind::ResourceBusy`]).
pub fn remove(path: &str) -> io::Result<()> {
    remove_at(Path::new(ROOT), path)
}

fn remove_at(root: &Path, path: &str) -> io::Result<()> {
    let path = plain(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut failure = None;
    for hierarchy in hierarchies(root)? {
        match std::fs::remove_dir(hierarchy.join(&path)) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => failure = Some(err),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// The names of the groups below `parent`, in any hierarchy; at most `most`.
pub fn below(parent: &str, most: usize) -> Vec<String> {
    let Ok(path) = plain(parent) else { return Vec::new() };
    let hierarchies = hierarchies(Path::new(ROOT)).unwrap_or_default();
    let entries = hierarchies.iter().filter_map(|root| std::fs::read_dir(root.join(&path)).ok());
    let folders =
        entries.flatten().flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    let mut names: Vec<String> = Vec::new();
    for name in folders.filter_map(|it| it.file_name().into_string().ok()) {
        if names.len() == most {
            break;
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The roots of the hierarchies: one for version 2, one for each set of controllers for version 1.
fn hierarchies(root: &Path) -> io::Result<Vec<PathBuf>> {
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = std::fs::read_dir(root)?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests;
