//! The host under the node: its cores, its memory, its disk.
//!
//! What must hold: facts only, read afresh at each call; what they mean is decided elsewhere.

use std::path::Path;

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The host's memory in MiB, from `/proc/meminfo`; 0 where it can't be told.
pub fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// What is free for this process on the file system that holds `path`, in MiB.
pub fn disk_free_mib(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / MIB)
}

/// What the kernel calls this boot: another name after each start of the host. Empty where it can't
/// be told. See random(4), `boot_id`.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The host's name; `localhost` where it can't be told.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_its_size() {
        assert!(cores() >= 1);
        assert!(memory_mib() > 64);
        assert!(disk_free_mib(Path::new("/")).is_ok());
        assert!(!name().is_empty());
        assert_eq!(boot_id().len(), 36);
    }
}
