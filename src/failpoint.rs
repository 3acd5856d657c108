//! Named places where a test can have the process killed, to see what the next start makes of it.
//!
//! What must hold: a release build has none of this; a place that no test armed costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where to die, and how many passes to let by before.
static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();

/// Arms the one failpoint that `spec` names: `name`, or `name:N` to die at the N-th pass. Does
/// nothing in a release build, and nothing the second time.
pub fn arm(spec: &str) {
    if cfg!(debug_assertions) {
        let (name, pass) = spec.split_once(':').unwrap_or((spec, "1"));
        let passes = pass.parse().unwrap_or(1);
        ARMED.set((name.to_owned(), AtomicU32::new(passes))).ok();
    }
}

/// Dies here as by `kill -9`, where a test armed `name` followed by `suffix`.
pub fn hit(name: &str, suffix: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some((armed, passes)) = ARMED.get() else { return };
    let here = armed.strip_prefix(name).is_some_and(|rest| rest == suffix);
    if here && passes.fetch_sub(1, Ordering::Relaxed) == 1 {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
        // The signal is on its way: nothing more may happen here.
        loop {
            std::thread::park();
        }
    }
}
