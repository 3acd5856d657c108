//! The cost of an event to whoever tells it: made, and pushed into the rings of both sinks, which are full all the time
//! and which nobody reads.

use std::time::{Duration, Instant};

use lamda_node::agent::events::{Events, Settings};
use lamda_node::clock::SystemClock;
use lamda_node::fleet::{Sampling, kinds};
use lamda_node::ids::{Address, JobId};
use lamda_node::push::redis::Config;
use lamda_node::secret::Secret;
use serde_json::{Value, json};

/// Threads that tell at once.
const THREADS: usize = 2;

/// The row for so many events.
pub(crate) fn events(count: u32) -> Value {
    let settings = Settings {
        ring: 10_000,
        redis: Config::new(Secret::new("redis://127.0.0.1:6379")).ok(),
        sampling: Sampling::ALL,
        batch: 100,
        flush: Duration::from_secs(1),
        heartbeat: None,
        dashboard: None,
    };
    let events = Events::new(&settings, Address::new([7; 20]), &[], &SystemClock);
    let job: Option<JobId> = "job".parse().ok();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for number in 0..count as usize / THREADS {
                    events.tell(kinds::JOB_RUNNING, "it runs", |event| {
                        let event = event.with("attempt", number);
                        match &job {
                            Some(job) => event.about(job),
                            None => event,
                        }
                    });
                }
            });
        }
    });
    let took = begun.elapsed();
    let told = events.counts().values().map(|counts| counts.pushed).max().unwrap_or_default();
    json!({
        "told": told,
        "tell_ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) * THREADS as u64 / told.max(1),
        "tells_a_second": told * 1_000 / u64::try_from(took.as_millis()).unwrap_or(1).max(1),
    })
}
