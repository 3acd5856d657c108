//! What this machine as a whole does now: its processors, its memory, its load.
//!
//! Invariant: what can't be read is unknown, with the reason, and never 0.

use std::path::Path;

use super::process::{small_file, why};
use crate::usage::{Reading, Unknown};

/// Most bytes that are read of one file: `/proc/stat` has a line for each processor and a long one of interrupts, of
/// which only the first is needed.
const BYTES_MAX: u64 = 16 * 1024;

/// Most sensors that are looked at.
const SENSORS_MAX: usize = 64;

/// The sensors of processors' packages.
const PROCESSORS: [&str; 4] = ["coretemp", "k10temp", "zenpower", "cpu_thermal"];

/// Above this no processor works; a higher reading is not believed.
const CELSIUS_MAX: u64 = 150;

/// Time of all processors together since the boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    /// In which they worked, also for virtual machines, or their host took them away.
    pub busy_ticks: u64,
    /// All of it.
    pub all_ticks: u64,
}

/// The number of processors that are on, whichever of them this process may use.
pub fn cores() -> Reading {
    online(&small_file(Path::new("/sys/devices/system/cpu/online"), BYTES_MAX)?)
        .ok_or(Unknown::Failed)
}

/// How many there are in a list as `0-3,8`.
fn online(text: &str) -> Option<u64> {
    let mut count = 0_u64;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        count = count.saturating_add(last.checked_sub(first)?.saturating_add(1));
    }
    Some(count)
}

/// What the processors did since the boot.
pub fn processors() -> Result<Processors, Unknown> {
    times(&small_file(Path::new("/proc/stat"), BYTES_MAX)?).ok_or(Unknown::Failed)
}

fn times(text: &str) -> Option<Processors> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let mut numbers = [0_u64; 8];
    // What guests get is part of the first two.
    let mut words = line.split_ascii_whitespace();
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    let [user, nice, system, idle, waits, irq, softirq, steal] = numbers;
    let sum = |all: &[u64]| all.iter().fold(0_u64, |sum, it| sum.saturating_add(*it));
    let busy_ticks = sum(&[user, nice, system, irq, softirq, steal]);
    Some(Processors { busy_ticks, all_ticks: sum(&[busy_ticks, idle, waits]) })
}

/// The memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that there is.
    pub total: u64,
    /// What programs could still get.
    pub available: u64,
    /// All swap space.
    pub swap_total: u64,
    /// Swap space that is free.
    pub swap_free: u64,
}

impl Memory {
    /// In use, caches excluded.
    pub const fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

/// The memory now.
pub fn memory() -> Result<Memory, Unknown> {
    sizes(&small_file(Path::new("/proc/meminfo"), BYTES_MAX)?).ok_or(Unknown::Failed)
}

fn sizes(text: &str) -> Option<Memory> {
    let size = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib: u64 = line?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib.saturating_mul(1024))
    };
    Some(Memory {
        total: size("MemTotal")?,
        available: size("MemAvailable")?,
        swap_total: size("SwapTotal")?,
        swap_free: size("SwapFree")?,
    })
}

/// How many tasks wanted a processor or waited for a disk, over 1, 5 and 15 minutes.
pub fn load() -> Result<[f64; 3], Unknown> {
    averages(&small_file(Path::new("/proc/loadavg"), BYTES_MAX)?).ok_or(Unknown::Failed)
}

fn averages(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|it| it.parse::<f64>().ok());
    let mut next = || words.next().flatten().filter(|it| it.is_finite());
    Some([next()?, next()?, next()?])
}

/// The temperature of the processor in degrees Celsius, of the hottest if there are several.
pub fn celsius() -> Reading {
    celsius_in(Path::new("/sys/class/hwmon"))
}

fn celsius_in(sensors: &Path) -> Reading {
    // Virtual machines have none.
    let entries = std::fs::read_dir(sensors).map_err(|_| Unknown::NotSupported)?;
    let mut hottest: Reading = Err(Unknown::NotSupported);
    for entry in entries.flatten().take(SENSORS_MAX) {
        let folder = entry.path();
        let name = small_file(&folder.join("name"), BYTES_MAX).unwrap_or_default();
        if !PROCESSORS.contains(&name.trim()) {
            continue;
        }
        let text = small_file(&folder.join("temp1_input"), BYTES_MAX);
        let told = text.and_then(|it| it.trim().parse::<u64>().map_err(|_| Unknown::Failed));
        let told = told.map(|thousandths| thousandths / 1000).and_then(|celsius| {
            if celsius <= CELSIUS_MAX { Ok(celsius) } else { Err(Unknown::Failed) }
        });
        hottest = match (hottest, told) {
            (Ok(known), Ok(more)) => Ok(known.max(more)),
            (Ok(known), Err(_)) => Ok(known),
            (Err(_), told) => told,
        };
    }
    hottest
}

/// Why the free space at a path is not known, or how much there is, in bytes.
pub fn disk_free(path: &Path) -> Reading {
    let room = super::disk_room(path).map_err(|err| why(&err))?;
    Ok(room.mib.saturating_mul(super::MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processors_wait_for_is_not_work_and_what_guests_get_counts_once() {
        let text = "cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(times(text), Some(Processors { busy_ticks: 171, all_ticks: 4671 }));
        assert_eq!(times("cpu  1 2 3\n"), None);
        assert_eq!(times("intr 1\n"), None);
        assert_eq!((online("0-3,8\n"), online("0\n"), online("")), (Some(5), Some(1), None));
        assert_eq!((online("3-1"), cores().is_ok_and(|it| it >= 1)), (None, true));
    }

    #[test]
    fn memory_without_one_of_its_lines_is_unknown_and_not_0() {
        let text = "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let memory = sizes(text).unwrap();
        assert_eq!((memory.total, memory.used(), memory.swap_total), (2 << 20, 3 << 19, 0));
        assert_eq!(sizes(&text.replace("MemAvailable", "MemOther")), None);
        assert_eq!(averages("0.50 1.25 2.00 1/99 7\n"), Some([0.5, 1.25, 2.0]));
        assert_eq!((averages("0.50 NaN 1"), averages("")), (None, None));
    }

    #[test]
    fn the_processors_sensor_is_told_from_others_and_a_machine_without_one_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let sensor = |at: &str, name: &str, told: &str| {
            let folder = dir.path().join(at);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("name"), format!("{name}\n")).unwrap();
            std::fs::write(folder.join("temp1_input"), told).unwrap();
        };
        sensor("hwmon0", "nvme", "90000\n");
        assert_eq!(celsius_in(dir.path()), Err(Unknown::NotSupported));
        sensor("hwmon1", "k10temp", "rubbish\n");
        assert_eq!(celsius_in(dir.path()), Err(Unknown::Failed));
        sensor("hwmon2", "coretemp", "61500\n");
        sensor("hwmon3", "coretemp", "999000\n");
        assert_eq!(celsius_in(dir.path()), Ok(61));
        assert_eq!(celsius_in(&dir.path().join("none")), Err(Unknown::NotSupported));
    }

    #[test]
    fn this_machine_tells_of_itself() {
        let before = processors().unwrap();
        assert!(before.busy_ticks > 0 && before.all_ticks >= before.busy_ticks);
        let memory = memory().unwrap();
        assert!(memory.used() > 1 << 20 && memory.used() < memory.total, "{memory:?}");
        assert!(load().unwrap().iter().all(|it| *it >= 0.0));
        assert!(disk_free(Path::new("/")).unwrap() > 0);
        assert_eq!(disk_free(Path::new("/no/such/folder")), Err(Unknown::Gone));
    }
}
