//! The cost of an event to whoever tells it, with a ring that is full all the time, and none that reads it.

use std::sync::Arc;
use std::time::Instant;

use lamda_node::clock::Timestamp;
use lamda_node::fleet::{Event, kinds};
use lamda_node::ids::Address;
use lamda_node::push::Ring;
use serde_json::{Value, json};

/// Threads that push at once.
const THREADS: usize = 2;

/// The row for so many events.
pub(crate) fn events(count: u32) -> Value {
    let job = "job".parse().ok();
    let begun = Instant::now();
    let made: Vec<Arc<Event>> = (0..1_000)
        .map(|number: u32| {
            let event = Event::new(
                kinds::JOB_RUNNING,
                Address::new([7; 20]),
                Timestamp::default(),
                "it runs",
            );
            let event = event.with("attempt", number);
            Arc::new(match &job {
                Some(job) => event.about(job),
                None => event,
            })
        })
        .collect();
    let make_ns = begun.elapsed().as_nanos() / 1_000;
    let ring = Ring::new(10_000, 100);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for event in made.iter().cycle().take(count as usize / THREADS) {
                    ring.push(Arc::clone(event), false);
                }
            });
        }
    });
    let took = begun.elapsed();
    let pushed = ring.counts().pushed;
    json!({
        "pushed": pushed,
        "make_ns": u64::try_from(make_ns).unwrap_or(u64::MAX),
        "push_ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) * THREADS as u64 / pushed.max(1),
        "pushes_a_second": pushed * 1_000 / u64::try_from(took.as_millis()).unwrap_or(1).max(1),
    })
}
