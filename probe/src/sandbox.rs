//! Tries from inside a container everything that its sandbox must refuse, and prints the results.
//!
//! A line for each attempt: a name, a tab, and `refused`, `open`, or a value, with a detail after another
//! tab. The node knows the right result of each and describes the attempts in words
//! (`src/container/trial.rs`).
//!
//! Must hold: an attempt that succeeds does not change the host, and each attempt is reported under its own
//! name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use rustix::fs::{CWD, Dev, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::raw::Call;

/// This program, as the tool image has it.
const SELF: &str = "/lamda-probe";
/// A copy of it with the setuid bit.
const COPY: &str = "/tmp/setuid-copy";
/// Bytes that [`hog`] allocates: more than a trial's container may have.
const HOG_BYTES: usize = 96 << 20;
/// Most threads that are started: more than a trial's container may have.
const THREADS_MAX: usize = 256;
/// The user that the setuid copy is started as.
const USER: u32 = 1000;

/// Kernel files that must not be opened for writing.
const KERNEL_FILES: [&str; 8] = [
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
];
/// The files of the container's own control groups, in both versions.
const GROUP_FILES: [&str; 7] = [
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/pids.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/devices/devices.allow",
    "/sys/fs/cgroup/memory/release_agent",
];
/// The kernel's memory and secrets.
const SECRETS: [&str; 5] =
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/dev/mem", "/dev/kmsg"];
/// Sockets at which engines listen.
const ENGINES: [&str; 5] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
];
/// Addresses of every kind: public, the cloud's metadata, private, in both versions.
const ADDRESSES: [&str; 7] = [
    "8.8.8.8:53",
    "169.254.169.254:80",
    "10.0.0.1:80",
    "172.17.0.1:80",
    "192.168.0.1:80",
    "[2001:4860:4860::8888]:53",
    "[fd00:ec2::254]:80",
];

/// Makes all attempts and prints their results.
pub(crate) fn try_all() -> io::Result<()> {
    calls()?;
    files()?;
    tell("engine-socket", &first_open(&ENGINES, |path| UnixStream::connect(path).map(drop)))?;
    network()?;
    status()?;
    others()?;
    tell("setuid", &setuid())?;
    limits()?;
    // Last, since this process would be in them.
    for (name, call) in [("new-mounts", Call::NewMounts), ("new-user", Call::NewUser)] {
        tell(name, &outcome(call.make()))?;
    }
    Ok(())
}

/// Allocates more memory than a trial's container may have.
pub(crate) fn hog() {
    let taken = vec![1_u8; HOG_BYTES];
    // Keeps the compiler from dropping the allocation as unused.
    std::hint::black_box(&taken);
}

/// Prints the user that this program runs as, for the copy with the setuid bit.
pub(crate) fn whoami() -> io::Result<()> {
    writeln!(io::stdout(), "{}", rustix::process::geteuid().as_raw())
}

fn tell(name: &str, found: &str) -> io::Result<()> {
    // One line, whatever a file of the container says.
    let found: String = found.chars().filter(|c| *c == '\t' || !c.is_control()).take(200).collect();
    writeln!(io::stdout(), "{name}\t{found}")
}

/// `refused` if the error is a sandbox's, or means that the thing isn't there; else the call got through.
fn outcome<T, E: Into<io::Error>>(done: Result<T, E>) -> String {
    let Err(err) = done else { return "open".to_owned() };
    let err: io::Error = err.into();
    match err.raw_os_error() {
        Some(
            libc::EPERM
            | libc::EACCES
            | libc::ENOSYS
            | libc::EROFS
            | libc::ENOENT
            | libc::ENXIO
            | libc::ENODEV
            | libc::ENOTDIR
            | libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::EAFNOSUPPORT
            | libc::EADDRNOTAVAIL
            | libc::ECONNREFUSED,
        ) => format!("refused\t{err}"),
        // Refused for its arguments: the check of rights had let it through.
        _ => format!("open\t{err}"),
    }
}

/// `open` with the first that is, else `refused`.
fn first_open(names: &[&str], attempt: impl Fn(&str) -> io::Result<()>) -> String {
    let open = |name: &&&str| outcome(attempt(name)).starts_with("open");
    names.iter().find(open).map_or_else(|| "refused".to_owned(), |name| format!("open\t{name}"))
}

fn calls() -> io::Result<()> {
    for (name, call) in [
        ("keyctl", Call::Keyctl),
        ("bpf", Call::Bpf),
        ("perf", Call::Perf),
        ("userfaultfd", Call::UserFault),
        ("module", Call::Module),
        ("handle", Call::Handle),
        ("swap", Call::Swap),
        ("kernel-log", Call::KernelLog),
    ] {
        tell(name, &outcome(call.make()))?;
    }
    tell("mount", &outcome(mount("trial", "/tmp", "tmpfs", MountFlags::empty(), None)))?;
    let flags = MountFlags::BIND;
    tell("bind", &outcome(mount("/", "/usr", "", flags, None)))?;
    let disk: Dev = makedev(8, 0);
    let node = mknodat(CWD, "/tmp/disk", FileType::BlockDevice, Mode::RUSR, disk);
    tell("mknod", &outcome(node))?;
    tell("chroot", &outcome(rustix::process::chroot("/tmp")))?;
    tell("hostname", &outcome(rustix::system::sethostname(b"trial")))?;
    let namespace = File::open("/proc/self/ns/net").and_then(|file| {
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), None)
            .map_err(Into::into)
    });
    tell("setns", &outcome(namespace))
}

fn files() -> io::Result<()> {
    let write = |path: &str| OpenOptions::new().write(true).open(path).map(drop);
    tell("kernel-files", &first_open(&KERNEL_FILES, write))?;
    tell("group-files", &first_open(&GROUP_FILES, write))?;
    let read = |path: &str| -> io::Result<()> {
        let mut byte = [0];
        // An empty file stands in for what is masked.
        let count = File::open(path)?.read(&mut byte)?;
        if count == 1 { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let secret = SECRETS.iter().find(|path| read(path).is_ok());
    tell(
        "kernel-memory",
        &secret.map_or_else(|| "refused".to_owned(), |path| format!("open\t{path}")),
    )?;
    tell("oom-score", &outcome(std::fs::write("/proc/self/oom_score_adj", "-1000")))?;
    tell("root-folder", &outcome(std::fs::write("/trial", "x")))?;
    let mut devices = names("/dev")?;
    devices.sort_unstable();
    tell("devices", &devices.join(" "))
}

fn network() -> io::Result<()> {
    let raw = |family, kind, protocol| outcome(socket(family, kind, protocol));
    tell("raw-socket", &raw(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))?;
    tell("packet-socket", &raw(AddressFamily::PACKET, SocketType::RAW, None))?;
    // A datagram socket connects wherever there is a route.
    let reach = |address: &str| {
        let from = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        UdpSocket::bind(from).and_then(|socket| socket.connect(address))
    };
    tell("routes", &first_open(&ADDRESSES, reach))?;
    tell("links", &names("/sys/class/net").unwrap_or_default().join(" "))
}

/// The kernel's facts about this process.
fn status() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    for (name, key) in [
        ("capabilities", "CapEff:"),
        ("capabilities-ever", "CapBnd:"),
        ("capabilities-kept", "CapPrm:"),
        ("no-new-privileges", "NoNewPrivs:"),
        ("seccomp", "Seccomp:"),
    ] {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        tell(name, value.unwrap_or("not told").trim())?;
    }
    tell("user", &rustix::process::geteuid().as_raw().to_string())?;
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let maps_root = map.split_whitespace().take(2).collect::<Vec<_>>() != ["0", "0"];
    tell("root-on-host", if maps_root { "another user" } else { "root" })
}

/// Processes that are neither this one nor the engine's init, which started it.
fn others() -> io::Result<()> {
    let own = [1, std::process::id()];
    let pids = names("/proc")?.into_iter().filter_map(|name| name.parse().ok());
    let foreign: Vec<String> =
        pids.filter(|pid: &u32| !own.contains(pid)).map(|pid| pid.to_string()).collect();
    tell("processes", &foreign.len().to_string())
}

/// Starts, as another user, a copy of this program that root owns and that has the setuid bit, and reports
/// the user that it runs as. The profile without root can't make such a copy.
fn setuid() -> String {
    let mode = std::fs::Permissions::from_mode(0o4755);
    let copied = std::fs::copy(SELF, COPY).and_then(|_| std::fs::set_permissions(COPY, mode));
    if let Err(err) = copied {
        return format!("refused\t{err}");
    }
    let mut copy = Command::new(COPY);
    copy.arg("sandbox-whoami");
    if rustix::process::geteuid().is_root() {
        copy.uid(USER).gid(USER);
    }
    match copy.output() {
        Ok(told) if told.stdout.trim_ascii() == b"0" => "open\tit ran as root".to_owned(),
        Ok(told) => {
            format!("refused\tit ran as {}", String::from_utf8_lossy(told.stdout.trim_ascii()))
        }
        Err(err) => format!("refused\t{err}"),
    }
}

fn limits() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit};
    for (name, resource) in [
        ("core-size", Resource::Core),
        ("open-files", Resource::Nofile),
        ("user-processes", Resource::Nproc),
    ] {
        let most = getrlimit(resource).maximum;
        tell(name, &most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string()))?;
    }
    tell("threads", &threads().to_string())?;
    let hog = Command::new(SELF).arg("sandbox-hog").status()?;
    let killed = hog.signal() == Some(libc::SIGKILL);
    tell("memory", if killed { "killed" } else { "given" })
}

/// How many threads this process can have.
fn threads() -> usize {
    let mut threads = Vec::new();
    let mut count = 1;
    while count < THREADS_MAX {
        let (hold, ended) = mpsc::channel::<()>();
        let begun = thread::Builder::new().stack_size(64 << 10).spawn(move || ended.recv().is_ok());
        let Ok(thread) = begun else { break };
        threads.push((hold, thread));
        count += 1;
    }
    for (hold, thread) in threads {
        drop(hold);
        // It only waited.
        drop(thread.join());
    }
    count
}

fn names(folder: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
