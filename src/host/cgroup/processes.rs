//! What is read of a container's single processes: how many there are, their files, their network.
//!
//! Invariant: a process id is used only in the moment after the group listed it; the network's counters are read by a
//! file that was opened then, which stays the same network whatever becomes of the process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::Kept;
use super::kept::why;
use crate::usage::{Metric, Reading, Readings, Unknown};

/// Most processes whose files are counted in one round: a job may have more, and this is not worth so much time.
const COUNTED_MAX: usize = 256;
/// Most bytes of the list of processes: 32,768 of them, more than a job may have.
const LIST_BYTES_MAX: u64 = 256 * 1024;
/// Most entries of the folders of open files that are read in one look.
const ENTRIES_MAX: usize = 8_192;
/// Most bytes of a process's `io`.
const IO_BYTES_MAX: u64 = 4 * 1024;

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
            match written_by(pid) {
                Ok(bytes) => sum = sum.saturating_add(bytes),
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

/// Bytes that this process had written to disks, with those of its children for which it has waited (proc(5), `io`).
fn written_by(pid: u32) -> Reading {
    let gone = |err: std::io::Error| match why(&err) {
        Unknown::NotSupported => Unknown::Gone,
        other => other,
    };
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/io")).map_err(gone)?;
    file.take(IO_BYTES_MAX).read_to_string(&mut text).map_err(gone)?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.ok_or(Unknown::NotSupported)?.trim().parse().map_err(|_| Unknown::Failed)
}

fn open_files(pid: u32, left: &mut usize) -> Reading {
    let gone = |err: std::io::Error| match why(&err) {
        Unknown::NotSupported => Unknown::Gone,
        other => other,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = format!("/proc/{pid}/fd");
    let folder = openat(CWD, &path, flags, Mode::empty()).map_err(|err| gone(err.into()))?;
    // Since Linux 6.2 the folder's size is the number of its entries, whoever asks.
    let size = fstat(&folder).map_err(|err| gone(err.into()))?.st_size;
    if size > 0 {
        return Ok(u64::try_from(size).unwrap_or_default());
    }
    let count = std::fs::read_dir(path).map_err(gone)?.take(*left).count();
    *left -= count;
    if *left == 0 { Err(Unknown::NotSupported) } else { Ok(count as u64) }
}

/// Bytes received and sent, from the text of `/proc/net/dev` (see proc(5)). An engine takes the interface of a bridge
/// away at the container's end, with its counters: then nothing is known.
fn traffic(text: &str) -> Result<(u64, u64), Unknown> {
    let (mut received, mut sent, mut is_there) = (0_u64, 0_u64, false);
    for line in text.lines().skip(2) {
        let (name, numbers) = line.split_once(':').ok_or(Unknown::Failed)?;
        if name.trim() == "lo" {
            continue;
        }
        is_there = true;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let mut nth = |at| numbers.nth(at).and_then(Result::ok).ok_or(Unknown::Failed);
        // Eight numbers of what was received come first.
        received = received.saturating_add(nth(0)?);
        sent = sent.saturating_add(nth(7)?);
    }
    if is_there { Ok((received, sent)) } else { Err(Unknown::Gone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_all_interfaces_but_the_loopback_is_summed() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    \
                    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier \
                    compressed\n    lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n  eth0: 1500 2 0 0 0 0 0 0 70 1 0 0 0 0 \
                    0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), Ok((1501, 72)));
        assert_eq!(traffic("a\nb\n  eth0: 1 2\n"), Err(Unknown::Failed));
        assert_eq!(
            traffic("a\nb\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"),
            Err(Unknown::Gone),
            "taken away"
        );
    }

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
