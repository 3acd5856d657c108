//! Named places where a test can kill the process, to check what the next start makes of it.
//!
//! Must hold: a release build contains none of this; while no failpoint is armed, a place costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The armed failpoint, and the passes left up to and including the fatal one.
static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();

/// Arms the failpoint that `spec` names: `name`, or `name:N` to die at the N-th pass. Does nothing in a
/// release build, and nothing after the first call.
pub fn arm(spec: &str) {
    if cfg!(debug_assertions) {
        let (name, pass) = spec.split_once(':').unwrap_or((spec, "1"));
        let passes = pass.parse().unwrap_or(1);
        ARMED.set((name.to_owned(), AtomicU32::new(passes))).ok();
    }
}

/// Kills the process with SIGKILL if a test armed `name` followed by `suffix`.
pub fn hit(name: &str, suffix: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some((armed, passes)) = ARMED.get() else { return };
    let here = armed.strip_prefix(name).is_some_and(|rest| rest == suffix);
    if here && passes.fetch_sub(1, Ordering::Relaxed) == 1 {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
        // The signal may still be on its way: nothing more may happen here.
        loop {
            std::thread::park();
        }
    }
}
