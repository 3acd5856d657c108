//! Why a command may have failed: its log ends in something that a sandbox refuses and that works elsewhere.
//!
//! Must hold: a hint is a sentence of our own, and no word of the log is in it. Pure.

use serde::{Deserialize, Serialize};

/// How much of a log counts as its end: a traceback's last words, and not what was overcome long before.
const END_LINES: usize = 10;
const END_BYTES: usize = 4096;

/// What programs say when a write is refused by a read-only file system.
const NO_WRITE: [&str; 2] = ["read-only file system", "erofs"];
/// What they say when they may not change owners, users, or the machine.
const NO_RIGHT: [&str; 7] = [
    "operation not permitted",
    "eperm",
    "must be root",
    "must be superuser",
    "are you root",
    "failed switching to",
    "requires root",
];
/// What they also say where they are not root and usually would be.
const NO_ACCESS: [&str; 2] = ["permission denied", "eacces"];

/// What the end of a failed job's log hints at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// A refused write in the strict sandbox.
    StrictWrite,
    /// A refused change of owner or user, or a refused access, in the strict sandbox.
    StrictRight,
    /// A refused write in the standard sandbox.
    StandardWrite,
    /// An operation that the standard sandbox refuses.
    StandardRight,
}

impl Hint {
    /// By the end of the job's log, and whether it ran in the strict sandbox.
    pub fn of(log: &[u8], is_strict: bool) -> Option<Self> {
        let tail = &log[log.len().saturating_sub(END_BYTES)..];
        let text = String::from_utf8_lossy(tail).to_ascii_lowercase();
        let lines: Vec<&str> = text.lines().rev().take(END_LINES).collect();
        lines.into_iter().find_map(|line| {
            let says = |phrases: &[&str]| phrases.iter().any(|phrase| line.contains(phrase));
            if says(&NO_WRITE) {
                Some(if is_strict { Self::StrictWrite } else { Self::StandardWrite })
            } else if is_strict && (says(&NO_RIGHT) || says(&NO_ACCESS)) {
                Some(Self::StrictRight)
            } else {
                says(&NO_RIGHT).then_some(Self::StandardRight)
            }
        })
    }

    /// What the requester is told behind "the command ended with exit code 1; ".
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::StrictWrite => {
                "its log ends in a refused write: in the sandbox `strict` only /output, /tmp and /dev/shm can be \
                 written to"
            }
            Self::StrictRight => {
                "its log ends in something refused: the sandbox `strict` has no root, no capability, and another \
                 user than the image's; `standard` lets chown, tar, su and the like work, where the node's owner \
                 allows it"
            }
            Self::StandardWrite => {
                "its log ends in a refused write: /input, /proc/sys and /sys can't be written to, copy what has to \
                 be changed to /output or /tmp"
            }
            Self::StandardRight => {
                "its log ends in a refused operation: a job may change its own files, users and processes, and has \
                 no other privilege (no mounts, devices, raw sockets, tracing or kernel settings)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_hints_at_what_the_sandbox_refused() {
        use Hint as H;
        for (log, strict, standard) in [
            ("chown: /x: Operation not permitted\n", Some(H::StrictRight), Some(H::StandardRight)),
            (
                "tar: can't chown\nPermissionError: [Errno 1] Operation not permitted: 'x'",
                Some(H::StrictRight),
                Some(H::StandardRight),
            ),
            (
                "error: failed switching to \"app\": operation not permitted",
                Some(H::StrictRight),
                Some(H::StandardRight),
            ),
            (
                "sh: can't create /etc/x: Read-only file system",
                Some(H::StrictWrite),
                Some(H::StandardWrite),
            ),
            (
                "mkdir: cannot create directory '/root': Permission denied",
                Some(H::StrictRight),
                None,
            ),
            // The last one counts.
            (
                "x: Read-only file system\ny: Operation not permitted\nexiting",
                Some(H::StrictRight),
                Some(H::StandardRight),
            ),
            ("all is well", None, None),
            ("", None, None),
            ("\u{1b}[2J\u{0}\u{feff}", None, None),
        ] {
            assert_eq!(Hint::of(log.as_bytes(), true), strict, "{log}");
            assert_eq!(Hint::of(log.as_bytes(), false), standard, "{log}");
        }
        let long_ago = format!("chown: Operation not permitted\n{}", "went on\n".repeat(10));
        assert_eq!(Hint::of(long_ago.as_bytes(), true), None);
        let far = format!("Operation not permitted{}", "x".repeat(END_BYTES));
        assert_eq!(Hint::of(far.as_bytes(), true), None);
        // Not text, and cut within a character.
        let mut cut = vec![0xff; 10];
        cut.extend("ü: Operation not permitted".as_bytes());
        assert_eq!(Hint::of(&cut, true), Some(H::StrictRight));
    }
}
