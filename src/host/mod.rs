//! The host under the node: its cores, its memory, its disk.
//!
//! [`tree`] handles folders that strangers wrote.
//!
//! What must hold: facts only, read afresh at each call; what they mean is decided elsewhere.

pub mod tree;

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
    Ok(disk_room(path)?.mib)
}

/// What a file system has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For everybody, in MiB. What the file system keeps for root is not counted: processes in
    /// containers may use it, and a node that is not root may not.
    pub mib: u64,
    /// Files and folders that can still be made; `u64::MAX` where the file system counts none.
    pub inodes: u64,
}

/// What is left on the file system that holds `path`.
pub fn disk_room(path: &Path) -> std::io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    // Btrfs and others make inodes as they need them, and say 0 of 0.
    let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok(Room { mib: stat.f_bavail.saturating_mul(stat.f_frsize) / MIB, inodes })
}

/// Takes blocks for the first `bytes` of an open file, so that what is written there later finds
/// room; the file is as long afterwards. A file system that can't take any in advance does nothing.
pub fn take_blocks(file: &std::fs::File, bytes: u64) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Whether this process may read and remove what other users own, however it is closed: as root may,
/// and who has root's two capabilities for that.
pub fn overrides_owners() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_rights_of_root(&status).unwrap_or_else(|| rustix::process::geteuid().is_root())
}

/// The same by the text of proc(5), `status`; `None` where it does not say.
fn has_rights_of_root(status: &str) -> Option<bool> {
    /// `CAP_DAC_OVERRIDE` and `CAP_FOWNER` of capabilities(7).
    const BOTH: u64 = 1 << 1 | 1 << 3;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(effective & BOTH == BOTH)
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

    #[test]
    fn who_may_handle_the_files_of_others_is_told_by_its_capabilities() {
        let told =
            |bits: &str| has_rights_of_root(&format!("Name:\tx\nCapEff:\t{bits}\nSeccomp:\t0\n"));
        assert_eq!(told("000001ffffffffff"), Some(true), "root");
        assert_eq!(told("000000000000000a"), Some(true), "as the unit has it");
        assert_eq!(told("0000000000000000"), Some(false), "anybody");
        assert_eq!(told("0000000000000002"), Some(false), "it may read and not always remove");
        assert_eq!(has_rights_of_root("Name:\tx\n"), None);
        assert_eq!(overrides_owners(), rustix::process::geteuid().is_root());
    }
}
