//! What is read of a container's single processes: how many there are, their files, their network.
//!
//! Invariant: a process id is used only in the moment after the group listed it; the network's counters are read by a
//! file that was opened then, which stays the same network whatever becomes of the process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::Kept;
use super::kept::why;
use crate::host::network::traffic;
use crate::host::process::{disk_bytes, open_files};
use crate::usage::{Metric, Reading, Readings, Unknown};

/// Most processes whose files are counted in one round: a job may have more, and this is not worth so much time.
const COUNTED_MAX: usize = 256;
/// Most bytes of the list of processes: 32,768 of them, more than a job may have.
const LIST_BYTES_MAX: u64 = 256 * 1024;
/// Most entries of the folders of open files that are read in one look.
const ENTRIES_MAX: usize = 8_192;

/// The processes of one container.
#[derive(Debug)]
pub(super) struct Processes {
    list: PathBuf,
    /// The most bytes that all were seen to have written.
    written: u64,
    network: Option<Kept>,
    buffer: Vec<u8>,
}

impl Processes {
    /// The processes in this group.
    pub(super) fn of(group: &Path) -> Self {
        Self { list: group.join("cgroup.procs"), written: 0, network: None, buffer: Vec::new() }
    }

    pub(super) fn read(&mut self, wants: &impl Fn(Metric) -> bool, into: &mut Readings) {
        if wants(Metric::NetRx) || wants(Metric::NetTx) {
            let sums = self.network();
            into[Metric::NetRx] = sums.map(|(received, _)| received);
            into[Metric::NetTx] = sums.map(|(_, sent)| sent);
        }
        if !wants(Metric::Processes) && !wants(Metric::Descriptors) {
            return;
        }
        let pids = self.pids();
        if wants(Metric::Processes) {
            into[Metric::Processes] =
                pids.as_ref().map(|pids| pids.len() as u64).map_err(|why| *why);
        }
        if wants(Metric::Descriptors) {
            into[Metric::Descriptors] = pids.and_then(|pids| descriptors(&pids));
        }
    }

    /// The ids of the container's processes in this process's PID namespace.
    fn pids(&self) -> Result<Vec<u32>, Unknown> {
        let file = File::open(&self.list).map_err(|err| match why(&err) {
            Unknown::NotSupported => Unknown::Gone,
            other => other,
        })?;
        let lines = BufReader::new(file.take(LIST_BYTES_MAX)).lines();
        let pid = |line: std::io::Result<String>| {
            line.map_err(|err| why(&err))?.parse().map_err(|_| Unknown::Failed)
        };
        let pids: Vec<u32> = lines.map(pid).collect::<Result<_, _>>()?;
        // 0 stands for a process that this PID namespace does not have: nothing can be read of it.
        if pids.contains(&0) { Err(Unknown::NotSupported) } else { Ok(pids) }
    }

    /// Bytes that the processes had written to disks, page cache included. A process that ends leaves its count to the
    /// one that waits for it, at the latest to the container's first; in between the sum is too low, so the highest
    /// counts. A process that left the container's tree is missed.
    pub(super) fn written(&mut self) -> Reading {
        let pids = self.pids()?;
        if pids.len() > COUNTED_MAX {
            return Err(Unknown::NotSupported);
        }
        let mut sum = 0_u64;
        for pid in pids {
            match disk_bytes(pid) {
                Ok((_, bytes)) => sum = sum.saturating_add(bytes),
                Err(Unknown::Gone) => {}
                Err(why) => return Err(why),
            }
        }
        self.written = self.written.max(sum);
        Ok(self.written)
    }

    /// Opens what tells the network's counters, unless that was done.
    fn find_network(&mut self) {
        if self.network.is_some() {
            return;
        }
        let mut files = self.pids().unwrap_or_default().into_iter().take(COUNTED_MAX);
        self.network = files.find_map(|pid| {
            let file = Kept::open(&PathBuf::from(format!("/proc/{pid}/net/dev")));
            file.is_open().then_some(file)
        });
    }

    /// Bytes received and sent over all interfaces except the loopback.
    fn network(&mut self) -> Result<(u64, u64), Unknown> {
        self.find_network();
        let file = self.network.as_ref().ok_or(Unknown::Gone)?;
        traffic(file.read(&mut self.buffer)?)
    }
}

/// The number of open files of these processes. Those of one that has ended meanwhile are none.
fn descriptors(pids: &[u32]) -> Reading {
    if pids.len() > COUNTED_MAX {
        return Err(Unknown::NotSupported);
    }
    let mut sum = 0_u64;
    // Before Linux 6.2 each file is an entry that is read, and a job can have millions.
    let mut left = ENTRIES_MAX;
    for pid in pids {
        match open_files(*pid, &mut left) {
            Ok(count) => sum = sum.saturating_add(count),
            Err(Unknown::Gone) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_this_process_are_counted_and_those_of_none_are_not() {
        let held: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let own = std::process::id();
        let counted = descriptors(&[own]).unwrap();
        assert!(counted >= held.len() as u64, "{counted}");
        // The highest number that a process can have.
        assert_eq!(descriptors(&[4_194_303]), Ok(0));
        assert_eq!(descriptors(&[own; COUNTED_MAX + 1]), Err(Unknown::NotSupported));
    }
}
