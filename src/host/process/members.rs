//! The single processes of a program, for whoever counts over time what they use.

use super::{By, Look, Process, one};
use crate::usage::Unknown;
use crate::watch::checks::Fact;

/// Most processes of one program.
const MEMBERS_MAX: usize = 4_096;

/// One process of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub pid: u32,
    /// The number of the process that began it, or that took it over.
    pub parent: u32,
    /// When it began, in clock ticks since the boot: with its number that means one process and no other.
    pub started_ticks: u64,
    /// Its own CPU time in clock ticks.
    pub own_ticks: u64,
    /// CPU time of children that it has waited for, and of theirs, in clock ticks.
    pub child_ticks: u64,
    /// Resident memory in bytes; what it shares with others counts in full.
    pub resident_bytes: u64,
    /// Number of threads.
    pub threads: u64,
}

impl Look {
    /// The processes of a program, those first that it was found by; none if it doesn't run. The error says why they
    /// can't be told.
    pub fn members(&self, program: usize) -> Fact<Vec<Member>> {
        if !self.is_there(program)? {
            return Ok(Vec::new());
        }
        let roots = self.roots.get(program).map_or(&[][..], Vec::as_slice);
        let places = self.below(roots);
        if places.len() >= MEMBERS_MAX {
            return Err(Unknown::NotSupported);
        }
        let processes = places.iter().filter_map(|place| self.processes.get(*place));
        Ok(processes.filter(|it| !it.is_gone).map(member).collect())
    }

    /// When all was looked at, in clock ticks since the boot.
    pub fn ticks(&self) -> u64 {
        let a_second = rustix::param::clock_ticks_per_second().max(1);
        let ticks = self.since_boot.as_millis().saturating_mul(u128::from(a_second)) / 1000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

fn member(process: &Process) -> Member {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    Member {
        pid: process.pid,
        parent: process.parent,
        started_ticks: process.started_ticks,
        own_ticks: process.own_ticks,
        child_ticks: process.child_ticks,
        resident_bytes: process.resident_pages.saturating_mul(page),
        threads: process.threads,
    }
}

/// Clock ticks in microseconds.
pub fn micros(ticks: u64) -> u64 {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000) / a_second
}

/// The container of a process: the first 12 digits of its id, if one of its control groups names it.
pub fn container_of(pid: u32) -> Option<String> {
    let text = crate::host::cgroups_of(pid)?;
    let parts = text.split(['/', '\n', '-', '.', ':']);
    let is_id = |part: &&str| part.len() == ID_BYTES && one::is_container_id(part);
    parts.into_iter().find(is_id).and_then(|id| id.get(..12)).map(str::to_owned)
}

/// The length of a container's whole id.
const ID_BYTES: usize = 64;

/// What a program's own control group is called by: its unit, or its container. `None` if it is found by anything
/// else, or by several: then no group is its own.
pub fn own_group(ways: &[By]) -> Option<&str> {
    match ways {
        [By::Unit(name) | By::Container(name)] => Some(name),
        _ => None,
    }
}
