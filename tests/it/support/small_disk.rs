//! A small file system in memory, or in a file, which a test can fill.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::tool;

/// The file that fills the disk.
const BALLAST: &str = "ballast";

/// A mounted file system of a few MiB; unmounted on drop, however the test ends.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of this size at `at`, which is created.
    pub(crate) fn mount(at: &Path, mib: u32) -> Self {
        Self::mount_with(at, &format!("size={mib}m"))
    }

    /// Mounts one with these options of tmpfs(5) at `at`, which is created.
    pub(crate) fn mount_with(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let mut mount = Command::new(tool("mount"));
        mount.args(["-t", "tmpfs", "-o", size, "lamda-test"]).arg(at);
        assert!(mount.status().expect("mount runs").success(), "{size} at {}", at.display());
        Self(at.to_owned())
    }

    /// Mounts a btrfs of this size at `at`, which is created: its file lies beside it. Docker's driver for it
    /// holds layers to a size.
    pub(crate) fn mount_btrfs(at: &Path, mib: u64) -> Self {
        Self::mount_file(at, mib, "btrfs")
    }

    /// Mounts an ext4 of this size in the same way: what is allocated there and not written costs nothing here.
    pub(crate) fn mount_ext4(at: &Path, mib: u64) -> Self {
        Self::mount_file(at, mib, "ext4")
    }

    fn mount_file(at: &Path, mib: u64, kind: &str) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let image = at.with_extension(kind);
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(mib << 20).expect("a sparse file");
        let made = Command::new(tool(&format!("mkfs.{kind}"))).arg("-q").arg(&image).status();
        assert!(made.expect("mkfs runs").success(), "{}", image.display());
        let mut mount = Command::new(tool("mount"));
        mount.args(["-t", kind, "-o", "loop"]).arg(&image).arg(at);
        assert!(mount.status().expect("mount runs").success(), "{}", at.display());
        Self(at.to_owned())
    }

    /// Leaves at most this many KiB free. With 0, the journal also loses the space that it had allocated in
    /// advance, as after a while on a full disk.
    pub(crate) fn fill_but(&self, kib: u64) {
        self.free();
        if kib == 0 {
            self.use_up_the_journals_room();
        }
        let mut file = std::fs::File::create(self.0.join(BALLAST)).expect("a file");
        while self.free_kib() > kib && file.write_all(&[1; 4096]).is_ok() {}
    }

    fn use_up_the_journals_room(&self) {
        use rustix::fs::{FallocateFlags, fallocate};
        const PAGE: u64 = 4096;
        let log = std::fs::File::options().write(true).open(self.0.join("journal.db-wal"));
        let log = log.expect("a node's journal");
        let end = log.metadata().expect("its length").len().next_multiple_of(PAGE);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&log, punch, end, 1 << 30).expect("a hole");
    }

    /// The free space in KiB.
    pub(crate) fn free_kib(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("its size");
        stat.f_bavail * stat.f_frsize / 1024
    }

    /// Frees the space again.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join(BALLAST)).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as an engine may still use a folder in it.
        Command::new(tool("umount")).arg("--lazy").arg(&self.0).status().ok();
    }
}
