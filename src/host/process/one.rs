//! One process, as proc(5) tells it.
//!
//! Must hold: each read is bounded; the name in `stat`, which may hold anything, shifts no field.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::usage::{Reading, Unknown};

/// Most bytes of `stat`: 52 numbers and a short name.
const STAT_BYTES_MAX: usize = 2 * 1024;

/// Most bytes of the list of groups.
const GROUPS_BYTES_MAX: u64 = 8 * 1024;

/// Most bytes of a process's `io`.
const IO_BYTES_MAX: u64 = 4 * 1024;

/// Most bytes of the list of mounts.
const MOUNTS_BYTES_MAX: u64 = 256 * 1024;

/// Most bytes of a process's environment.
const ENVIRON_BYTES_MAX: u64 = 128 * 1024;

/// Shortest part of a container's id by which it is looked for.
const ID_BYTES_MIN: usize = 12;

/// The kernel's thread that begins its others.
const KTHREADD: u32 = 2;

/// A process at one moment.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// In clock ticks since the boot.
    pub(super) started_ticks: u64,
    /// Its own CPU time in clock ticks.
    pub(super) own_ticks: u64,
    /// CPU time in clock ticks of the children that it has waited for, and of theirs.
    pub(super) child_ticks: u64,
    pub(super) resident_pages: u64,
    pub(super) threads: u64,
    /// Whether it ended since all were looked at.
    pub(super) is_gone: bool,
    /// What it is: the kernel's own, a session of screen, or anything else.
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernels,
    Screen,
    Other,
}

impl Process {
    /// Reads the process in this folder of `/proc`.
    pub(super) fn read(folder: &Path, pid: u32) -> Result<Self, Unknown> {
        let mut file = File::open(folder.join("stat")).map_err(|err| why(&err))?;
        // The kernel gives all of it in one read.
        let mut bytes = [0; STAT_BYTES_MAX];
        let length = file.read(&mut bytes).map_err(|err| why(&err))?;
        let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
        Self::parse(&text, pid).ok_or(Unknown::Failed)
    }

    fn parse(stat: &str, pid: u32) -> Option<Self> {
        let end = stat.rfind(')')?;
        let name = stat.get(stat.find('(')? + 1..end)?;
        let fields: Vec<&str> = stat.get(end + 1..)?.split_ascii_whitespace().collect();
        // Fields count from 1, and the third comes first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let positive = |number: usize| Some(u64::try_from(field(number)?).unwrap_or(0));
        let own_ticks = positive(14)?.saturating_add(positive(15)?);
        let child_ticks = positive(16)?.saturating_add(positive(17)?);
        let parent = u32::try_from(field(4)?).ok()?;
        let is_kernels = (pid == KTHREADD && parent == 0) || parent == KTHREADD;
        Some(Self {
            pid,
            parent,
            started_ticks: positive(22)?,
            own_ticks,
            child_ticks,
            resident_pages: positive(24)?,
            threads: positive(20)?,
            is_gone: false,
            kind: match name {
                // A program may call itself so; then its parent is another one.
                _ if is_kernels && positive(23)? == 0 => Kind::Kernels,
                name if name.eq_ignore_ascii_case("screen") => Kind::Screen,
                _ => Kind::Other,
            },
        })
    }

    /// CPU time in clock ticks, its own and that of children it has waited for.
    pub(super) const fn cpu_ticks(&self) -> u64 {
        self.own_ticks.saturating_add(self.child_ticks)
    }

    /// Whether it is a thread of the kernel: it has no memory of its own.
    pub(super) fn is_kernels(&self) -> bool {
        self.kind == Kind::Kernels
    }

    pub(super) fn is_screen(&self) -> bool {
        self.kind == Kind::Screen
    }
}

/// Whether the second process is the kernel's own: so it is unless these are the processes of a container.
pub(in crate::host) fn sees_kernel() -> bool {
    let folder = Path::new("/proc").join(KTHREADD.to_string());
    Process::read(&folder, KTHREADD).is_ok_and(|it| it.is_kernels())
}

/// The numbers of all processes in rising order, and whether these are all.
pub(super) fn numbers(proc: &Path, most: usize) -> Result<(Vec<u32>, bool), Unknown> {
    let entries = std::fs::read_dir(proc).map_err(|err| why(&err))?.flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut numbers: Vec<u32> = numbers.take(most + 1).collect();
    let is_all = numbers.len() <= most;
    numbers.truncate(most);
    numbers.sort_unstable();
    Ok((numbers, is_all))
}

/// Its arguments, each ended by a NUL; empty if they can't be read.
pub(super) fn arguments(folder: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    if let Ok(file) = File::open(folder.join("cmdline")) {
        file.take(most).read_to_end(&mut bytes).ok();
    }
    bytes
}

/// The arguments with spaces between them.
pub(super) fn command(arguments: &[u8]) -> String {
    let text = String::from_utf8_lossy(arguments);
    text.trim_end_matches('\0').replace('\0', " ")
}

/// Whether our root is made of layers, as images are. A pod of Kubernetes has no other sign that everybody may read; a
/// system that was begun from a medium has such a root, too.
pub(super) fn is_on_layers(proc: &Path) -> bool {
    let mounts = small_file(&proc.join("self/mountinfo"), MOUNTS_BYTES_MAX).unwrap_or_default();
    // What is mounted last at a place is what is seen there.
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    let kind = root.and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    kind.is_some_and(|kind| kind == "overlay" || kind == "fuse.fuse-overlayfs")
}

/// Its control groups; empty if they can't be read.
pub(super) fn groups(folder: &Path) -> String {
    small_file(&folder.join("cgroup"), GROUPS_BYTES_MAX).unwrap_or_default()
}

/// Whether one of the groups is the unit's or below it.
pub(super) fn is_of_unit(groups: &str, unit: &str) -> bool {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    !unit.is_empty() && paths.flat_map(|path| path.split('/')).any(|part| part == unit)
}

/// Whether a text is a container's id, or the first part of one: 12 hexadecimal digits or more. All else is a name.
pub fn is_container_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() >= ID_BYTES_MIN && text.bytes().all(is_digit)
}

/// Whether one of the groups is the container's.
pub(super) fn is_of_container(groups: &str, id: &str) -> bool {
    is_container_id(id) && groups.contains(id)
}

/// Whether its environment has this line. A process of another user's shows it to root alone.
pub(super) fn has_variable(pid: u32, line: &str) -> Result<bool, Unknown> {
    let file = File::open(format!("/proc/{pid}/environ")).map_err(|err| why(&err))?;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    file.take(ENVIRON_BYTES_MAX).read_to_end(&mut bytes).map_err(|err| why(&err))?;
    Ok(bytes.split(|byte| *byte == 0).any(|it| it == line.as_bytes()))
}

/// The number of its open files; where they must be counted one by one at most `left` are, which are then fewer.
pub fn open_files(pid: u32, left: &mut usize) -> Reading {
    let path = format!("/proc/{pid}/fd");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |err: Errno| why(&err.into());
    let folder = openat(CWD, &path, flags, Mode::empty()).map_err(failed)?;
    // Since Linux 6.2 the folder's size is the number of its entries, whoever asks.
    let size = fstat(&folder).map_err(failed)?.st_size;
    if size > 0 {
        return Ok(u64::try_from(size).unwrap_or_default());
    }
    let entries = std::fs::read_dir(path).map_err(|err| why(&err))?;
    let count = entries.take(*left).count();
    *left -= count;
    if *left == 0 { Err(Unknown::NotSupported) } else { Ok(count as u64) }
}

/// Bytes that a process had read from and written to disks, with those of its children for which it has waited (proc(5),
/// `io`).
pub fn disk_bytes(pid: u32) -> Result<(u64, u64), Unknown> {
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/io")).map_err(|err| why(&err))?;
    file.take(IO_BYTES_MAX).read_to_string(&mut text).map_err(|err| why(&err))?;
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.ok_or(Unknown::NotSupported)?.trim().parse().map_err(|_| Unknown::Failed)
    };
    Ok((number("read_bytes: ")?, number("write_bytes: ")?))
}

/// The text of a small regular file.
pub(in crate::host) fn small_file(path: &Path, most: u64) -> Result<String, Unknown> {
    // Opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(|err| why(&err))?.is_file() {
        return Err(Unknown::NotSupported);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|err| why(&err))?;
    file.take(most).read_to_end(&mut bytes).map_err(|err| why(&err))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A span of clock ticks.
pub(super) fn span(ticks: u64) -> Duration {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / a_second)
}

/// Why something could not be read.
pub(in crate::host) fn why(err: &io::Error) -> Unknown {
    match err.kind() {
        io::ErrorKind::NotFound => Unknown::Gone,
        io::ErrorKind::PermissionDenied => Unknown::Denied,
        // The process ended between the open and the read.
        _ if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Unknown::Gone,
        _ => Unknown::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 40 2 300 8 20 0 9 0 555 4096 12 1";
        let process = Process::parse(stat, 7).unwrap();
        assert_eq!((process.parent, process.cpu_ticks(), process.threads), (1, 350, 9));
        assert_eq!((process.own_ticks, process.child_ticks), (42, 308));
        assert_eq!((process.started_ticks, process.resident_pages), (555, 12));
        assert!(!process.is_kernels() && !process.is_screen());
        assert!(Process::parse("7 (a", 7).is_none() && Process::parse("7 (a) S 1", 7).is_none());
    }

    #[test]
    fn a_unit_is_a_whole_part_of_a_groups_path_and_a_container_its_id() {
        let groups = "12:memory:/system.slice/rl-swarm.service/x\n0::/system.slice/docker-0123456789abcdef.scope\n";
        assert!(is_of_unit(groups, "rl-swarm.service") && !is_of_unit(groups, "swarm.service"));
        assert!(!is_of_unit(groups, "") && !is_of_unit("rubbish", "rubbish"));
        assert!(is_of_container(groups, "0123456789abcdef"));
        assert!(!is_of_container(groups, "0123") && !is_of_container(groups, "/system.slice"));
        let named = "0::/system.slice/gensynrlswarm.service\n";
        assert!(!is_of_container(named, "gensynrlswarm"), "a name is no id");
    }
}
