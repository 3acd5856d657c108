//! Facts about the host: its cores, its memory, its disk.
//!
//! [`tree`] handles untrusted folders, [`nodes`] looks at the devices of containers, [`cgroup`] at what jobs use,
//! [`process`] at programs of others, [`network`] at their traffic, [`machine`] at what all of it uses; [`lookaround`] finds those, [`tail`] reads their logs as they grow, [`service`]
//! asks systemd to start one again.
//!
//! Invariant: facts only, read afresh at each call; what they mean is decided elsewhere.

pub mod cgroup;
pub mod lookaround;
pub mod machine;
mod meter;
pub mod network;
pub mod nodes;
mod own;
pub mod process;
pub mod service;
pub mod tail;
pub mod tree;

use std::io::Read as _;
use std::path::Path;

pub use meter::Meter;
pub use own::{OwnUse, open_files, own_use};

/// Number of bytes in a MiB.
const MIB: u64 = 1 << 20;

/// Number of cores that this process may use; 1 if unknown.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most that is read of a process's cgroups, in bytes: a line for each hierarchy.
const CGROUP_BYTES_MAX: u64 = 8 * 1024;

/// The control groups of this process, as `/proc/<pid>/cgroup` lists them; they name its container. `None`
/// if the process is gone or not visible here.
pub fn cgroups_of(pid: u32) -> Option<String> {
    let file = std::fs::File::open(format!("/proc/{pid}/cgroup")).ok()?;
    let mut text = String::new();
    file.take(CGROUP_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether there is a process with this number, as far as the node can see: in a PID namespace of its own it sees few.
pub fn is_there(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The host's memory in MiB, from `/proc/meminfo`; 0 if unknown.
pub fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Free space for this process on the file system that holds `path`, in MiB.
pub fn disk_free_mib(path: &Path) -> std::io::Result<u64> {
    Ok(disk_room(path)?.mib)
}

/// Free space and inodes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Space free for every user, in MiB. The reserve for root is not counted: processes in
    /// containers may use it, but a node that is not root may not.
    pub mib: u64,
    /// Files and folders that can still be created; `u64::MAX` if the file system has no limit.
    pub inodes: u64,
}

/// Free space and inodes of the file system that holds `path`.
pub fn disk_room(path: &Path) -> std::io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    // Btrfs and others allocate inodes on demand and report 0 of 0.
    let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok(Room { mib: stat.f_bavail.saturating_mul(stat.f_frsize) / MIB, inodes })
}

/// The size of the file system that holds `path`, in MiB, without what only root may fill.
pub fn disk_size_mib(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    let roots = stat.f_bfree.saturating_sub(stat.f_bavail);
    Ok(stat.f_blocks.saturating_sub(roots).saturating_mul(stat.f_frsize) / MIB)
}

/// Allocates blocks for the first `bytes` bytes of an open file, so that later writes there find
/// room; the file is at least that long afterwards. Does nothing if the file system can't
/// preallocate.
pub fn take_blocks(file: &std::fs::File, bytes: u64) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Whether this process may read and remove other users' files whatever their modes, as root and
/// holders of `CAP_DAC_OVERRIDE` and `CAP_FOWNER` may.
pub fn overrides_owners() -> bool {
    has_capabilities(OVERRIDING)
}

/// `CAP_DAC_OVERRIDE` and `CAP_FOWNER` of capabilities(7).
const OVERRIDING: u64 = 1 << 1 | 1 << 3;

/// Whether this process has all of these capabilities, or is root where that can't be read.
fn has_capabilities(all: u64) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    are_effective(&status, all).unwrap_or_else(|| rustix::process::geteuid().is_root())
}

/// [`has_capabilities`] from the text of `status` in proc(5); `None` if it doesn't say.
fn are_effective(status: &str, all: u64) -> Option<bool> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(effective & all == all)
}

/// The kernel's ID of this boot, different after each start of the host; empty if unknown. See
/// random(4), `boot_id`.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// CPU time that the calling thread has used.
pub fn thread_cpu() -> std::time::Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.try_into().unwrap_or_default()
}

/// The host's name; `localhost` if unknown.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Creates a folder that only the node can enter.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // The folder may have existed with another mode, or the umask may have changed it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_its_size() {
        assert!(cores() >= 1);
        assert!(memory_mib() > 64);
        assert!(disk_free_mib(Path::new("/")).unwrap() < disk_size_mib(Path::new("/")).unwrap());
        assert!(!name().is_empty());
        assert_eq!(boot_id().len(), 36);
    }

    #[test]
    fn who_may_handle_the_files_of_others_is_told_by_its_capabilities() {
        let told = |bits: &str| {
            are_effective(&format!("Name:\tx\nCapEff:\t{bits}\nSeccomp:\t0\n"), OVERRIDING)
        };
        assert_eq!(told("000001ffffffffff"), Some(true), "root");
        assert_eq!(told("000000000000000a"), Some(true), "as the unit has it");
        assert_eq!(told("0000000000000000"), Some(false), "anybody");
        assert_eq!(told("0000000000000002"), Some(false), "it may read and not always remove");
        assert_eq!(are_effective("Name:\tx\n", OVERRIDING), None);
        assert_eq!(overrides_owners(), rustix::process::geteuid().is_root());
    }
}
