//! What this process uses itself, from `/proc/self` (proc(5)).

use std::time::Duration;

/// Most open files that are counted.
const FILES_MAX: usize = 1 << 20;

/// CPU time and memory of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnUse {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Resident memory in bytes; `None` if unknown.
    pub resident_bytes: Option<u64>,
}

/// What this process has used so far; `None` if the kernel does not say so.
pub fn own_use() -> Option<OwnUse> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
    let (user, system) = times(&stat)?;
    let span = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / ticks_a_second);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Some(OwnUse { user: span(user), system: span(system), resident_bytes: resident(&status) })
}

/// Number of files that this process has open, counted up to a million; `None` if unknown.
pub fn open_files() -> Option<usize> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.take(FILES_MAX).count();
    // One of them is the folder itself.
    open.checked_sub(1)
}

/// User and system time in clock ticks: the fields 14 and 15.
fn times(stat: &str) -> Option<(u64, u64)> {
    // The second field is the program's name in brackets, which may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 42 17 0 0 20 0 1 0 100 1 1";
        assert_eq!(times(stat), Some((42, 17)));
        assert_eq!(times("7 (a"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let used = own_use().unwrap();
        assert!(used.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{used:?}");
        assert!(open_files().unwrap() >= 3, "standard input, output and error");
    }
}
