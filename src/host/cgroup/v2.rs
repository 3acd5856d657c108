//! The files of version 2: one hierarchy for all controllers.

use std::collections::BTreeMap;
use std::path::Path;

use super::Kept;
use super::kept::{field, pressure};
use crate::usage::{Metric, Reading, Readings, Unknown};

/// Most disks that are told apart.
const DISKS_MAX: usize = 1024;

/// The open files of one group.
#[derive(Debug)]
pub(super) struct Files {
    cpu: Kept,
    memory: Kept,
    memory_stat: Kept,
    peak: Kept,
    swap: Kept,
    io: Kept,
    threads: Kept,
    pressures: [(Metric, Kept); 3],
    /// Whether a disk stands on other disks that are counted as well.
    stacked: BTreeMap<String, bool>,
    buffer: Vec<u8>,
}

impl Files {
    pub(super) fn open(group: &Path) -> Result<Self, Unknown> {
        let open = |name: &str| Kept::open(&group.join(name));
        if !group.is_dir() {
            return Err(Unknown::Gone);
        }
        Ok(Self {
            cpu: open("cpu.stat"),
            memory: open("memory.current"),
            memory_stat: open("memory.stat"),
            // Since Linux 5.19.
            peak: open("memory.peak"),
            swap: open("memory.swap.current"),
            io: open("io.stat"),
            threads: open("pids.current"),
            pressures: [
                (Metric::CpuPressure, open("cpu.pressure")),
                (Metric::MemoryPressure, open("memory.pressure")),
                (Metric::IoPressure, open("io.pressure")),
            ],
            stacked: BTreeMap::new(),
            buffer: Vec::new(),
        })
    }

    pub(super) fn read(&mut self, wants: &impl Fn(Metric) -> bool, into: &mut Readings) {
        let buffer = &mut self.buffer;
        if wants(Metric::Cpu) {
            into[Metric::Cpu] = self.cpu.read(buffer).and_then(|text| field(text, "usage_usec"));
        }
        if wants(Metric::Memory) {
            let used = self.memory.number(buffer);
            let stat = self.memory_stat.read(buffer);
            let inactive = stat.and_then(|text| field(text, "inactive_file"));
            into[Metric::Memory] = without(used, inactive);
        }
        for (metric, file) in [
            (Metric::MemoryPeak, &self.peak),
            (Metric::Swap, &self.swap),
            (Metric::Threads, &self.threads),
        ] {
            if wants(metric) {
                into[metric] = file.number(buffer);
            }
        }
        for (metric, file) in &self.pressures {
            if wants(*metric) {
                into[*metric] = file.read(buffer).and_then(pressure);
            }
        }
        if wants(Metric::DiskRead) || wants(Metric::DiskWrite) {
            let stacked = &mut self.stacked;
            let sums =
                self.io.read(buffer).and_then(|text| sums(text, |disk| is_stacked(stacked, disk)));
            into[Metric::DiskRead] = sums.map(|(read, _)| read);
            into[Metric::DiskWrite] = sums.map(|(_, written)| written);
        }
    }
}

/// Memory without the file pages that can be dropped. The two numbers are not of the same moment.
pub(super) fn without(used: Reading, inactive: Reading) -> Reading {
    Ok(used?.saturating_sub(inactive?))
}

/// Bytes read and written over all disks of `io.stat`, without those that stand on others.
fn sums(text: &str, mut is_stacked: impl FnMut(&str) -> bool) -> Result<(u64, u64), Unknown> {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in text.lines() {
        let (disk, values) = line.split_once(' ').ok_or(Unknown::Failed)?;
        let (major, minor) = disk.split_once(':').ok_or(Unknown::Failed)?;
        if major.parse::<u32>().is_err() || minor.parse::<u32>().is_err() {
            return Err(Unknown::Failed);
        }
        if is_stacked(disk) {
            continue;
        }
        // A disk that was never used has no values.
        let value = |key: &str| {
            let value = values.split(' ').find_map(|word| word.strip_prefix(key));
            value.map_or(Ok(0), |value| value.parse::<u64>().map_err(|_| Unknown::Failed))
        };
        read = read.saturating_add(value("rbytes=")?);
        written = written.saturating_add(value("wbytes=")?);
    }
    Ok((read, written))
}

/// Whether this disk, `major:minor`, stands on others, as LVM's and RAID's do: the kernel counts the same bytes again
/// on those.
fn is_stacked(known: &mut BTreeMap<String, bool>, disk: &str) -> bool {
    if let Some(is_stacked) = known.get(disk) {
        return *is_stacked;
    }
    if known.len() >= DISKS_MAX {
        return false;
    }
    let slaves = std::fs::read_dir(format!("/sys/dev/block/{disk}/slaves"));
    let is_stacked = slaves.is_ok_and(|mut entries| entries.next().is_some());
    known.insert(disk.to_owned(), is_stacked);
    is_stacked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_all_disks_are_summed_and_those_of_stacked_ones_are_not() {
        let text = "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n253:0 rbytes=100 wbytes=7\n\
                    259:0 rbytes=5 wbytes=0\n8:16 \n";
        assert_eq!(sums(text, |disk| disk == "253:0"), Ok((105, 7)));
        assert_eq!(sums("", |_| false), Ok((0, 0)), "a group that never used a disk");
        assert_eq!(sums("8:0 rbytes=x wbytes=1\n", |_| false), Err(Unknown::Failed));
        assert_eq!(sums("nonsense\n", |_| false), Err(Unknown::Failed));
    }

    #[test]
    fn memory_without_its_file_pages_is_unknown_if_one_of_the_two_is() {
        assert_eq!(without(Ok(10), Ok(4)), Ok(6));
        assert_eq!(without(Ok(3), Ok(4)), Ok(0), "read at two moments");
        assert_eq!(without(Ok(3), Err(Unknown::Denied)), Err(Unknown::Denied));
        assert_eq!(without(Err(Unknown::Gone), Ok(1)), Err(Unknown::Gone));
    }
}
