//! System calls that have no safe wrapper, each with fixed arguments.
//!
//! Must hold: no argument points to memory, so that a call that gets through finds none to read or write; and
//! no call that gets through changes the host.

use std::io;

use libc::{c_long, syscall};

/// A call to try.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// The kernel's key store: the id of the session's keyring.
    Keyctl,
    /// The kernel's small programs.
    Bpf,
    /// The processor's counters.
    Perf,
    /// Page faults handled by a program, which kernel exploits use.
    UserFault,
    /// A kernel module.
    Module,
    /// A file by its number, whatever the root folder is.
    Handle,
    /// A swap file.
    Swap,
    /// The kernel's own log.
    KernelLog,
    /// A user namespace, with every capability in it.
    NewUser,
    /// A mount namespace.
    NewMounts,
}

impl Call {
    fn arguments(self) -> [c_long; 6] {
        match self {
            Self::Keyctl => [libc::SYS_keyctl, 0, -3, 0, 0, 0],
            Self::Bpf => [libc::SYS_bpf, 0, 0, 0, 0, 0],
            Self::Perf => [libc::SYS_perf_event_open, 0, 0, -1, -1, 0],
            Self::UserFault => [libc::SYS_userfaultfd, 1, 0, 0, 0, 0],
            Self::Module => [libc::SYS_init_module, 0, 0, 0, 0, 0],
            Self::Handle => [libc::SYS_open_by_handle_at, -100, 0, 0, 0, 0],
            Self::Swap => [libc::SYS_swapon, 0, 0, 0, 0, 0],
            // The number of bytes in the log.
            Self::KernelLog => [libc::SYS_syslog, 10, 0, 0, 0, 0],
            Self::NewUser => [libc::SYS_unshare, c_long::from(libc::CLONE_NEWUSER), 0, 0, 0, 0],
            Self::NewMounts => [libc::SYS_unshare, c_long::from(libc::CLONE_NEWNS), 0, 0, 0, 0],
        }
    }

    /// Makes the call.
    #[expect(unsafe_code, reason = "there is no safe wrapper, and the arguments point nowhere")]
    pub(crate) fn make(self) -> io::Result<()> {
        let [number, first, second, third, fourth, fifth] = self.arguments();
        // SAFETY: the arguments are numbers and null pointers, which the kernel checks; no memory of ours is
        // named. A descriptor that is returned stays open and unused until the program ends.
        if unsafe { syscall(number, first, second, third, fourth, fifth) } < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
