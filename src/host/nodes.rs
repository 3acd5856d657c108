//! The device nodes of NVIDIA's cards that a process has before it, and may open.
//!
//! Invariants: whose process it is was checked through the same handle by which its files are read, so that a
//! number that the kernel gave to another process misleads nobody; no link of the process's is followed, and no
//! device is opened: opening one can do something.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, major, minor, openat, statat};
use rustix::io::Errno;

/// The major number of NVIDIA's cards; their minor numbers are those of `/dev/nvidia<minor>`.
const MAJOR: u32 = 195;
/// More cards than a host has; the driver's other nodes have higher numbers.
const MINORS: std::ops::Range<u32> = 0..250;
/// Most processes that are looked at to find a container's.
const PROCESSES_MAX: usize = 100_000;
/// Most bytes that are read of a small file in `/proc` or of a control group.
const BYTES_MAX: u64 = 64 * 1024;
/// The device node of a host that has none for each card.
const WSL: &str = "/dev/dxg";
/// Where the kernel's first version of control groups keeps the rules for devices.
const RULES: &str = "/sys/fs/cgroup/devices";

/// What a container's process has of the cards, each by its minor number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The nodes that are there.
    pub nodes: BTreeSet<u32>,
    /// Those that its control group lets it open; `None` if that can't be read (version 2 has no list).
    pub allowed: Option<BTreeSet<u32>>,
}

/// Why nothing was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blind {
    /// No process of the container is to be seen: it has ended, or the node is in another PID namespace.
    Nowhere,
    /// The node's user may not look.
    Denied,
    /// Something else; holds the system's words.
    Failed(String),
}

/// Looks at the container with this id, whose first process has this number as its engine says.
pub fn seen(pid: u32, container: &str) -> Result<Seen, Blind> {
    if Path::new(WSL).exists() {
        return Err(Blind::Failed("this host (WSL) has one device node for all cards".to_owned()));
    }
    let process = Process::open(pid, container).or_else(|| first_of(container));
    let process = process.ok_or(Blind::Nowhere)?;
    process.seen().map_err(|err| match err.kind() {
        io::ErrorKind::PermissionDenied => Blind::Denied,
        io::ErrorKind::NotFound => Blind::Nowhere,
        _ if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Blind::Nowhere,
        _ => Blind::Failed(err.to_string()),
    })
}

/// The container's first process, found by its control groups: an engine in a PID namespace of its own has other
/// numbers.
fn first_of(container: &str) -> Option<Process> {
    let entries = std::fs::read_dir("/proc").ok()?.take(PROCESSES_MAX).flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut processes = pids.filter_map(|pid| Process::open(pid, container));
    processes.find(Process::is_first)
}

/// A process, by a handle that means no other one.
struct Process {
    folder: OwnedFd,
    cgroups: String,
}

impl Process {
    /// The process with this number if its control groups name the container.
    fn open(pid: u32, container: &str) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        let cgroups = read(&folder, "cgroup").ok()?;
        (!container.is_empty() && cgroups.contains(container)).then_some(Self { folder, cgroups })
    }

    /// Whether it is the first in its PID namespace.
    fn is_first(&self) -> bool {
        let status = read(&self.folder, "status").unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
    }

    fn seen(&self) -> io::Result<Seen> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // `root` is a link of the kernel's own to the root that the process has.
        let root = openat(&self.folder, "root", flags, Mode::empty())?;
        // In there a link of the container's would lead out of it.
        let dev = openat(&root, "dev", flags | OFlags::NOFOLLOW, Mode::empty())?;
        let mut nodes = BTreeSet::new();
        for number in MINORS {
            let found = statat(&dev, format!("nvidia{number}"), AtFlags::SYMLINK_NOFOLLOW);
            let found = match found {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
            if is_device && major(found.st_rdev) == MAJOR {
                nodes.insert(minor(found.st_rdev));
            }
        }
        Ok(Seen { nodes, allowed: self.allowed() })
    }

    /// The cards that its control group lets it open.
    fn allowed(&self) -> Option<BTreeSet<u32>> {
        let rules = File::open(rules_of(&self.cgroups)?.join("devices.list")).ok()?;
        let mut text = String::new();
        rules.take(BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(allowed_by(&text))
    }
}

/// The folder with the rules for devices of a process with these control groups; `None` with version 2.
fn rules_of(cgroups: &str) -> Option<PathBuf> {
    let path = cgroups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "devices").then_some(path)
    })?;
    // One outside of the node's own control group namespace.
    let is_here = !path.split('/').any(|part| part == "..");
    is_here.then(|| Path::new(RULES).join(path.trim_start_matches('/')))
}

/// The cards that these rules, as `devices.list` has them, let a process read and write.
fn allowed_by(rules: &str) -> BTreeSet<u32> {
    let mut allowed = BTreeSet::new();
    for rule in rules.lines() {
        let mut words = rule.split_whitespace();
        let (Some(kind), Some(device), Some(access)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some((of, number)) = device.split_once(':') else { continue };
        let is_ours = (kind == "a" || kind == "c") && (of == "*" || of.parse() == Ok(MAJOR));
        if !is_ours || !access.contains('r') || !access.contains('w') {
            continue;
        }
        match number.parse() {
            Ok(number) => _ = allowed.insert(number),
            Err(_) if number == "*" => allowed.extend(MINORS),
            Err(_) => {}
        }
    }
    allowed
}

fn read(folder: &OwnedFd, name: &str) -> io::Result<String> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether this process may look at others' files through `/proc`: root, or `CAP_SYS_PTRACE` (19 of
/// capabilities(7)).
pub fn may_look() -> bool {
    super::has_capabilities(1 << 19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_the_kernel_lists_them() {
        let all: BTreeSet<u32> = MINORS.collect();
        for (rules, allowed) in [
            ("c 1:3 rwm\nc 195:255 rw\nc 195:2 rw\n", [2, 255].into()),
            ("c 195:0 r\nb 195:1 rwm\nc 195:x rw\nc 195 rw\nnonsense\n", BTreeSet::new()),
            ("a *:* rwm\n", all.clone()),
            ("c 195:* rwm\nc 136:* rwm\n", all),
            ("", BTreeSet::new()),
        ] {
            assert_eq!(allowed_by(rules), allowed, "{rules}");
        }
    }

    #[test]
    fn the_rules_lie_where_the_control_groups_say_and_version_2_has_none() {
        let of = |cgroups: &str| rules_of(cgroups).map(|path| path.display().to_string());
        assert_eq!(
            of("9:name=systemd:/x\n5:devices:/docker/ab\n0::/\n").as_deref(),
            Some("/sys/fs/cgroup/devices/docker/ab")
        );
        assert_eq!(
            of("5:cpu,devices:/system.slice/docker-ab.scope\n").as_deref(),
            Some("/sys/fs/cgroup/devices/system.slice/docker-ab.scope")
        );
        assert_eq!(of("0::/system.slice/docker-ab.scope\n"), None);
        assert_eq!(of("5:devices:/../docker/ab\n"), None, "another namespace's");
        assert_eq!(of("rubbish\n"), None);
    }

    #[test]
    fn a_process_of_another_container_is_not_looked_at() {
        assert_eq!(seen(std::process::id(), "no-such-container"), Err(Blind::Nowhere));
        assert_eq!(seen(u32::MAX, ""), Err(Blind::Nowhere));
    }
}
