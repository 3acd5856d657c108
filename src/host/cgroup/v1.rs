//! The files of version 1: a hierarchy for each controller, and pressure in the unified one beside them, if the
//! system has mounted it.
//!
//! Bytes written are not among them: version 1 counts only what a process writes to a disk itself, past the page cache.
//! They are read of the single processes.

use std::path::Path;

use super::Kept;
use super::kept::{field, pressure};
use super::v2::without;
use crate::usage::{Metric, Readings, Unknown};

/// The open files of one group.
#[derive(Debug)]
pub(super) struct Files {
    cpu: Kept,
    memory: Kept,
    memory_stat: Kept,
    peak: Kept,
    memory_and_swap: Kept,
    io: Kept,
    threads: Kept,
    pressures: [(Metric, Kept); 3],
    buffer: Vec<u8>,
}

impl Files {
    pub(super) fn open(root: &Path, path: &Path) -> Result<Self, Unknown> {
        let open =
            |controller: &str, name: &str| Kept::open(&root.join(controller).join(path).join(name));
        let cpu = open("cpuacct", "cpuacct.usage");
        let memory = open("memory", "memory.usage_in_bytes");
        if !cpu.is_open() && !memory.is_open() {
            return Err(Unknown::Gone);
        }
        // Where groups don't count what is below them (before Linux 5.11), the parent knows nothing of its container.
        let mut buffer = Vec::new();
        let sums = open("memory", "memory.use_hierarchy").number(&mut buffer) != Ok(0);
        let open_memory = |name: &str| if sums { open("memory", name) } else { Kept::absent() };
        let pressure = |name: &str| {
            if root.join("unified").is_dir() { open("unified", name) } else { Kept::absent() }
        };
        Ok(Self {
            cpu,
            memory: if sums { memory } else { Kept::absent() },
            memory_stat: open_memory("memory.stat"),
            peak: open_memory("memory.max_usage_in_bytes"),
            memory_and_swap: open_memory("memory.memsw.usage_in_bytes"),
            io: open("blkio", "blkio.throttle.io_service_bytes_recursive"),
            threads: open("pids", "pids.current"),
            pressures: [
                (Metric::CpuPressure, pressure("cpu.pressure")),
                (Metric::MemoryPressure, pressure("memory.pressure")),
                (Metric::IoPressure, pressure("io.pressure")),
            ],
            buffer,
        })
    }

    pub(super) fn read(&mut self, wants: &impl Fn(Metric) -> bool, into: &mut Readings) {
        let buffer = &mut self.buffer;
        if wants(Metric::Cpu) {
            into[Metric::Cpu] = self.cpu.number(buffer).map(|ns| ns / 1000);
        }
        let used = if wants(Metric::Memory) || wants(Metric::Swap) {
            self.memory.number(buffer)
        } else {
            Err(Unknown::Off)
        };
        if wants(Metric::Memory) {
            let stat = self.memory_stat.read(buffer);
            into[Metric::Memory] =
                without(used, stat.and_then(|it| field(it, "total_inactive_file")));
        }
        if wants(Metric::Swap) {
            into[Metric::Swap] = without(self.memory_and_swap.number(buffer), used);
        }
        for (metric, file) in [(Metric::MemoryPeak, &self.peak), (Metric::Threads, &self.threads)] {
            if wants(metric) {
                into[metric] = file.number(buffer);
            }
        }
        for (metric, file) in &self.pressures {
            if wants(*metric) {
                into[*metric] = file.read(buffer).and_then(pressure);
            }
        }
        if wants(Metric::DiskRead) {
            into[Metric::DiskRead] = self.io.read(buffer).and_then(|text| summed(text, "Read"));
        }
    }
}

/// Bytes of this operation over all disks.
fn summed(text: &str, operation: &str) -> Result<u64, Unknown> {
    let mut sum = 0_u64;
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.nth(1) == Some(operation) {
            let bytes = words.next().and_then(|word| word.parse::<u64>().ok());
            sum = sum.saturating_add(bytes.ok_or(Unknown::Failed)?);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_one_operation_are_summed_over_all_disks() {
        let text =
            "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\n8:0 Read 1\nTotal 12289\n";
        assert_eq!(summed(text, "Read"), Ok(4097));
        assert_eq!(summed("Total 0\n", "Read"), Ok(0), "a group that never used a disk");
        assert_eq!(summed("254:0 Read many\n", "Read"), Err(Unknown::Failed));
    }
}
