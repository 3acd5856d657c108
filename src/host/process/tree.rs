//! A program's processes and all below them, and what these use together.

use std::collections::BTreeSet;

use super::session::Session;
use super::{Found, Look, Process, Use, one};
use crate::usage::{Reading, Unknown};
use crate::watch::checks::Fact;

/// Most processes of one program.
const TREE_MAX: usize = 4_096;

/// Most processes whose open files are counted, and most files.
const COUNTED_MAX: usize = 256;
const FILES_MAX: usize = 65_536;

/// Most processes whose environment is read in one check.
const ENVIRONS_MAX: usize = 64;

impl Look {
    /// Whether a program runs.
    pub fn is_there(&self, program: usize) -> Fact<bool> {
        match self.roots.get(program) {
            Some(roots) if !roots.is_empty() => Ok(true),
            _ => match self.blind.get(program).copied().flatten() {
                Some(why) => Err(why),
                None => self.sight.map(|()| false),
            },
        }
    }

    /// A program's processes: those that it was found by, and all that they began.
    pub fn found(&self, program: usize) -> Found {
        let roots = self.roots.get(program).map_or(&[][..], Vec::as_slice);
        let places = self.below(roots);
        let oldest = roots.iter().filter_map(|place| self.processes.get(*place));
        let oldest = oldest.min_by_key(|process| (process.started_ticks, process.pid));
        Found {
            is_there: self.is_there(program),
            first: oldest.map(|process| (process.pid, process.started_ticks)),
            started: oldest.map(|process| self.began(process)).ok_or(Unknown::Gone),
            uses: self.uses(&places),
            pids: places
                .iter()
                .filter_map(|place| self.processes.get(*place))
                .filter(|it| !it.is_gone)
                .map(|it| it.pid)
                .collect(),
        }
    }

    /// These processes and all below them, each once, those first that were asked for.
    pub(super) fn below(&self, roots: &[usize]) -> Vec<usize> {
        let mut by_parent: Vec<(u32, usize)> =
            self.processes.iter().enumerate().map(|(place, it)| (it.parent, place)).collect();
        by_parent.sort_unstable();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut places: Vec<usize> = roots.to_vec();
        places.retain(|place| seen.insert(*place));
        places.truncate(TREE_MAX);
        let mut at = 0;
        while let Some(process) = places.get(at).and_then(|place| self.processes.get(*place)) {
            at += 1;
            let from = by_parent.partition_point(|(parent, _)| *parent < process.pid);
            let children = by_parent.iter().skip(from);
            let children = children.take_while(|(parent, _)| *parent == process.pid);
            for (_, place) in children {
                if places.len() < TREE_MAX && seen.insert(*place) {
                    places.push(*place);
                }
            }
        }
        places
    }

    fn uses(&self, places: &[usize]) -> Use {
        let processes = places.iter().filter_map(|place| self.processes.get(*place));
        let processes: Vec<&Process> = processes.filter(|process| !process.is_gone).collect();
        let sum = |of: fn(&Process) -> u64| -> Reading {
            if processes.is_empty() {
                return Err(Unknown::Gone);
            }
            if processes.len() == TREE_MAX {
                return Err(Unknown::NotSupported);
            }
            Ok(processes.iter().fold(0, |sum, process| sum.saturating_add(of(process))))
        };
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let ms = |ticks: u64| u64::try_from(one::span(ticks).as_millis()).unwrap_or(u64::MAX);
        Use {
            processes: sum(|_| 1),
            cpu_ms: sum(Process::cpu_ticks).map(ms),
            resident_bytes: sum(|process| process.resident_pages)
                .map(|pages| pages.saturating_mul(page)),
            threads: sum(|process| process.threads),
            files: files(&processes),
        }
    }

    /// Whether a process that a program was found by belongs to one of these sessions: it is below the session's own
    /// process, or was begun in it.
    pub(super) fn is_within(&self, program: usize, sessions: &[Session]) -> Fact<bool> {
        let servers: Vec<usize> =
            sessions.iter().filter_map(|session| self.place(session.pid)).collect();
        let below: BTreeSet<usize> = self.below(&servers).into_iter().collect();
        let roots = self.roots.get(program).map_or(&[][..], Vec::as_slice);
        if roots.iter().any(|place| below.contains(place)) {
            return Ok(true);
        }
        // One that let go of its parent still has the session's name.
        let mut blind = None;
        let pids = roots.iter().filter_map(|place| self.processes.get(*place)).take(ENVIRONS_MAX);
        for process in pids {
            for session in sessions {
                let line = format!("STY={}.{}", session.pid, session.name);
                match one::has_variable(process.pid, &line) {
                    Ok(true) => return Ok(true),
                    Ok(false) | Err(Unknown::Gone) => {}
                    Err(why) => blind = Some(why),
                }
            }
        }
        match (blind, self.sight) {
            (Some(why), _) | (None, Err(why)) => Err(why),
            (None, Ok(())) => Ok(false),
        }
    }
}

/// The number of open files of these processes. Those of one that has ended meanwhile are none, and those of none at all
/// are unknown.
fn files(processes: &[&Process]) -> Reading {
    let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    files_of(&pids)
}

/// The number of open files of these processes together, of which those that have ended meanwhile have none;
/// [`Unknown::Gone`] if all have, [`Unknown::NotSupported`] if there are too many of either.
pub fn files_of(processes: &[u32]) -> Reading {
    if processes.len() > COUNTED_MAX {
        return Err(Unknown::NotSupported);
    }
    let (mut sum, mut left): (Reading, usize) = (Err(Unknown::Gone), FILES_MAX);
    for pid in processes {
        match one::open_files(*pid, &mut left) {
            Ok(count) => sum = Ok(sum.unwrap_or(0).saturating_add(count)),
            Err(Unknown::Gone) => {}
            Err(why) => return Err(why),
        }
    }
    sum
}
