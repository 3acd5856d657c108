//! Publishes what happens to llama.cpp's coordinators and backends on Redis, as `SynapticLlamas` and SOLLOL do of their
//! own: what happened, the programs' lines, the coordinator's heartbeat and that of the registry over all backends.
//!
//! Invariants: nothing is told before it was written down; who observes never waits for Redis; lines never push out
//! what happened, since each has a ring of its own; a line takes at most `LINE_BYTES_MAX` of it.

mod carry;
pub mod system;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::fleet::event::Level;
use crate::fleet::seed_view::llama::{Happened, Told};
use crate::push::Ring;
use crate::sidecar::program::{Program, Tap};
use crate::sidecar::settings::RedisLink;
use crate::supervise::{Failure, Services};
use crate::watch::observation::Observation;
use system::System;

/// The longest line that waits for Redis, in bytes: of a longer one the end is cut off.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// How long the registry waits for ports that were not asked yet: those without an address never are.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked whether all were.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// How long until the first heartbeat: then each port was asked.
const FIRST: Duration = Duration::from_secs(6);

/// How long a part that failed rests.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// What waits for Redis.
#[derive(Debug)]
pub struct Sinks {
    events: Ring<Told>,
    lines: Ring<Told>,
}

/// Takes what is observed of one coordinator and its backends.
#[derive(Debug)]
pub struct LlamaTap {
    system: Mutex<System>,
    sinks: Arc<Sinks>,
}

impl Sinks {
    /// Rings for this link.
    pub fn new(link: &RedisLink) -> Arc<Self> {
        let ring = || Ring::new(link.ring, link.batch);
        Arc::new(Self { events: ring(), lines: ring() })
    }

    fn push(&self, happened: Happened) {
        let is_urgent = happened.level >= Level::Warning;
        self.events.push(Told::Happened(Box::new(happened)), is_urgent);
    }
}

impl LlamaTap {
    /// The tap of a program, if it is a coordinator with backends.
    pub fn of(program: &Program, sinks: &Arc<Sinks>) -> Option<Arc<Self>> {
        let profile = &program.watching.profile;
        if profile.backends.is_empty() {
            return None;
        }
        let system = System::of(program.name(), profile, &program.look().state);
        Some(Arc::new(Self { system: Mutex::new(system), sinks: Arc::clone(sinks) }))
    }

    fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for LlamaTap {
    fn observed(&self, observations: &[Observation]) {
        let mut system = self.system();
        for observation in observations {
            system.take(observation).into_iter().for_each(|it| self.sinks.push(it));
        }
    }

    fn lines(&self, log: &str, lines: Vec<String>, now: Timestamp) {
        let source = system::source(log);
        for line in lines {
            self.sinks.lines.push(Told::Line { at: now, source, line: cut(line) }, false);
        }
    }
}

/// A line that takes no more memory than it may.
fn cut(mut line: String) -> String {
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.shrink_to_fit();
    }
    line
}

/// Starts what publishes of these, if there are any.
pub fn start(
    services: &mut Services,
    link: &RedisLink,
    taps: Vec<Arc<LlamaTap>>,
    sinks: &Arc<Sinks>,
) {
    if taps.is_empty() {
        return;
    }
    let taps = Arc::new(taps);
    for is_lines in [false, true] {
        let carrier = carry::Carrier { link: link.clone(), sinks: Arc::clone(sinks), is_lines };
        services.spawn_with("redis", BACKOFF, carrier, carry::Carrier::run);
    }
    let state = (Arc::clone(&taps), link.coordinator_every);
    services.spawn_with("coordinators", BACKOFF, state, async |(taps, every)| {
        coordinators(&taps, every).await
    });
    if let Some(every) = link.registry_every {
        let state = (taps, Arc::clone(sinks), every);
        services.spawn_with("registry", BACKOFF, state, async |(taps, sinks, every)| {
            registry(&taps, &sinks, every).await
        });
    }
}

/// Tells each coordinator's heartbeat, for ever.
async fn coordinators(taps: &[Arc<LlamaTap>], every: Duration) -> Result<(), Failure> {
    let clock = SystemClock;
    clock.sleep(FIRST.min(every)).await;
    loop {
        for tap in taps {
            let beat = tap.system().heartbeat(clock.now());
            if let Some(beat) = beat {
                tap.sinks.push(beat);
            }
        }
        clock.sleep(every).await;
    }
}

/// Tells the registry's heartbeat, for ever: one over the backends of all coordinators.
async fn registry(taps: &[Arc<LlamaTap>], sinks: &Sinks, every: Duration) -> Result<(), Failure> {
    let clock = SystemClock;
    let begun = clock.monotonic();
    clock.sleep(FIRST.min(every)).await;
    let is_waiting = || taps.iter().any(|tap| !tap.system().unknown().is_empty());
    while is_waiting() && clock.monotonic().saturating_sub(begun) < ASKED_WITHIN {
        clock.sleep(ASKED_EVERY).await;
    }
    loop {
        let [mut configured, mut active, mut silent] = [const { BTreeSet::new() }; 3];
        for tap in taps {
            let system = tap.system();
            configured.extend(system.configured().map(str::to_owned));
            active.extend(system.active().into_iter().map(str::to_owned));
            silent.extend(system.silent().into_iter().map(str::to_owned));
        }
        if !configured.is_empty() {
            sinks.push(system::registry(&configured, &active, &silent, clock.now()));
        }
        clock.sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_waits_with_its_first_4_kib_and_no_more_memory() {
        let long = cut("é".repeat(40_000));
        assert_eq!((long.len(), long.capacity()), (LINE_BYTES_MAX, LINE_BYTES_MAX));
        let odd = cut(format!("a{}", "é".repeat(40_000)));
        assert_eq!(odd.len(), LINE_BYTES_MAX - 1, "no half character");
        assert_eq!(cut("slots are idle".to_owned()), "slots are idle");
    }
}
