//! What the sandbox shall refuse to a container, in words, and the verdict on what a program inside one found
//! (`probe/src/sandbox.rs`). Pure.
//!
//! Must hold: what the program does not tell has failed.

use super::policy::INSIDE;
use super::{Limits, Sandbox};

/// Limits of a trial's container: small, so that it meets each within a moment.
pub(super) const LIMITS: Limits = Limits {
    memory_bytes: 64 << 20,
    nano_cpus: 1_000_000_000,
    pids: 64,
    shm_bytes: 8 << 20,
    disk_bytes: 64 << 20,
};
/// Longest finding that is shown, in characters.
const FOUND_CHARS_MAX: usize = 120;
/// The devices of every container: of the process itself, its terminals, its memory, and numbers.
const DEVICES: [&str; 16] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
    "stdin", "stdout", "tty", "urandom", "zero",
];

/// One attempt, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The attempt's name.
    pub name: &'static str,
    /// What was tried, in words.
    pub what: &'static str,
    /// Whether the sandbox held.
    pub passed: bool,
    /// What the program found.
    pub found: String,
}

/// What an attempt has to find.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Refused,
    Is(&'static str),
    /// At most so much.
    AtMost(u64),
    /// A set of capabilities.
    Capabilities,
    /// The profile's user.
    User,
    /// No other devices than [`DEVICES`].
    Devices,
    /// Refused in the strict profile alone.
    RefusedIfStrict,
    /// Told to the owner; either is right.
    Any,
}

use Expected as E;

/// Name, words, and what has to be found.
const ATTEMPTS: [(&str, &str, Expected); 36] = [
    ("keyctl", "use the kernel's key store", E::Refused),
    ("bpf", "load a program into the kernel", E::Refused),
    ("perf", "read the processor's counters", E::Refused),
    ("userfaultfd", "handle page faults itself", E::Refused),
    ("module", "load a kernel module", E::Refused),
    ("handle", "open a file by its number, past the root folder", E::Refused),
    ("swap", "add a swap file", E::Refused),
    ("kernel-log", "read the kernel's log", E::Refused),
    ("mount", "mount a file system", E::Refused),
    ("bind", "mount a folder elsewhere", E::Refused),
    ("mknod", "make the device of the first disk", E::Refused),
    ("chroot", "change its root folder", E::Refused),
    ("hostname", "change the host name", E::Refused),
    ("setns", "join a namespace", E::Refused),
    ("kernel-files", "open /proc/sys, sysrq-trigger or /sys for writing", E::Refused),
    ("group-files", "open its control groups for writing", E::Refused),
    ("kernel-memory", "read /proc/kcore, /proc/keys, /dev/mem", E::Refused),
    ("oom-score", "be the last that is killed for memory", E::Refused),
    ("root-folder", "write to the root folder", E::RefusedIfStrict),
    ("devices", "see devices besides the usual ones", E::Devices),
    ("engine-socket", "connect to an engine's socket", E::Refused),
    ("raw-socket", "open a raw socket", E::Refused),
    ("packet-socket", "open a packet socket", E::Refused),
    ("routes", "find a route to public, private or metadata addresses", E::Refused),
    ("links", "see network links besides its own loopback", E::Is("lo")),
    ("capabilities", "have capabilities in effect", E::Capabilities),
    ("capabilities-kept", "have capabilities in reserve", E::Capabilities),
    ("capabilities-ever", "ever get capabilities", E::Capabilities),
    ("no-new-privileges", "gain privileges by a program (no-new-privileges is set)", E::Is("1")),
    ("seccomp", "make any system call (a filter is loaded)", E::Is("2")),
    ("user", "be another user than the profile's", E::User),
    ("root-on-host", "have root's number on the host where it is root", E::Any),
    ("processes", "see processes of others", E::AtMost(0)),
    ("setuid", "become root by a setuid program", E::Refused),
    ("threads", "have more processes than it may (64)", E::AtMost(LIMITS.pids as u64)),
    ("memory", "take more memory than it may (64 MiB)", E::Is("killed")),
];
/// Further ones, which end a process's use for others.
const LAST: [(&str, &str, Expected); 5] = [
    ("new-user", "make a user namespace", E::Refused),
    ("new-mounts", "make a mount namespace", E::Refused),
    ("core-size", "leave a memory dump on the disk", E::Is("0")),
    ("open-files", "open any number of files", E::AtMost(1 << 20)),
    ("user-processes", "start any number of processes as its user", E::AtMost(1 << 20)),
];

/// The verdict on what the program told from a container of this profile.
pub(super) fn judge(told: &str, sandbox: Sandbox) -> Vec<Tried> {
    let found = |wanted: &str| {
        let mut lines = told.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(name, _)| *name == wanted).map(|(_, found)| found)
    };
    let all = ATTEMPTS.into_iter().chain(LAST);
    all.map(|(name, what, expected)| {
        let found = found(name);
        let passed = found.is_some_and(|found| holds(found, expected, sandbox));
        let found = found.unwrap_or("it told nothing of this").replace('\t', ": ");
        Tried { name, what, passed, found: found.chars().take(FOUND_CHARS_MAX).collect() }
    })
    .collect()
}

fn holds(found: &str, expected: Expected, sandbox: Sandbox) -> bool {
    let is_refused = found.split('\t').next() == Some("refused");
    match expected {
        E::Refused => is_refused,
        E::RefusedIfStrict => is_refused || sandbox == Sandbox::Standard,
        E::Is(value) => found == value,
        E::AtMost(most) => found.parse().is_ok_and(|found: u64| found <= most),
        E::Capabilities => {
            u64::from_str_radix(found, 16).is_ok_and(|found| found & !allowed(sandbox) == 0)
        }
        E::User => match sandbox {
            Sandbox::Standard => found == "0",
            Sandbox::Strict(user) => found == user.uid.to_string(),
        },
        E::Devices => found.split(' ').all(|name| DEVICES.contains(&name)),
        E::Any => true,
    }
}

/// The capabilities of the profile as the kernel writes them: one bit each.
fn allowed(sandbox: Sandbox) -> u64 {
    let bit = |name: &str| match name {
        "CHOWN" => 1,
        "DAC_OVERRIDE" => 1 << 1,
        "FOWNER" => 1 << 3,
        "FSETID" => 1 << 4,
        "KILL" => 1 << 5,
        "SETGID" => 1 << 6,
        "SETUID" => 1 << 7,
        _ => 0,
    };
    match sandbox {
        Sandbox::Standard => INSIDE.into_iter().map(bit).sum(),
        Sandbox::Strict(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::User;

    const STRICT: Sandbox = Sandbox::Strict(User::NOBODY);

    /// What a program tells from a container that holds.
    fn good(sandbox: Sandbox) -> String {
        let lines = ATTEMPTS.into_iter().chain(LAST).map(|(name, _, expected)| {
            let found = match expected {
                E::Refused | E::RefusedIfStrict => {
                    "refused\tOperation not permitted (os error 1)".to_owned()
                }
                E::Is(value) => value.to_owned(),
                E::AtMost(most) => most.to_string(),
                E::Capabilities => format!("{:016x}", allowed(sandbox)),
                E::User if sandbox == STRICT => "65534".to_owned(),
                E::User => "0".to_owned(),
                E::Devices => "core fd full null random zero".to_owned(),
                E::Any => "root".to_owned(),
            };
            format!("{name}\t{found}\n")
        });
        lines.collect()
    }

    #[test]
    fn a_sandbox_holds_if_all_of_it_does() {
        for sandbox in [Sandbox::Standard, STRICT] {
            let told = good(sandbox);
            let judged = judge(&told, sandbox);
            assert!(judged.iter().all(|tried| tried.passed), "{judged:?}");
            // Each line alone makes it fail: by its absence, and by a value that no sandbox gives.
            for (name, _, expected) in ATTEMPTS.into_iter().chain(LAST) {
                let line = |told: &str| told.starts_with(&format!("{name}\t"));
                let without: Vec<&str> = told.lines().filter(|told| !line(told)).collect();
                let without = without.join("\n");
                let of = |told: &str| {
                    judge(told, sandbox).iter().any(|tried| tried.name == name && !tried.passed)
                };
                assert!(of(&without), "{name}");
                let free = matches!(expected, E::Any)
                    || matches!((expected, sandbox), (E::RefusedIfStrict, Sandbox::Standard));
                assert_eq!(of(&format!("{without}\n{name}\topen")), !free, "{name}");
            }
        }
    }

    #[test]
    fn one_capability_too_many_is_found() {
        for (told, sandbox, passes) in [
            ("00000000000000fb", Sandbox::Standard, true),
            ("00000000000004fb", Sandbox::Standard, false),
            ("00000000000000fb", STRICT, false),
            ("0000000000000000", STRICT, true),
            ("none", STRICT, false),
        ] {
            assert_eq!(holds(told, E::Capabilities, sandbox), passes, "{told}");
        }
        assert_eq!(allowed(Sandbox::Standard), 0xfb);
    }

    #[test]
    fn a_finding_is_bounded_and_on_one_line() {
        let judged = judge(&format!("mount\topen\t{}", "x".repeat(1000)), STRICT);
        let mount = judged.iter().find(|tried| tried.name == "mount").unwrap();
        assert!(!mount.passed && mount.found.starts_with("open: x"), "{mount:?}");
        assert_eq!(mount.found.chars().count(), FOUND_CHARS_MAX);
    }
}
