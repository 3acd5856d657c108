//! What a sidecar publishes on NATS, and what a hub makes of it.

use serde_json::Value;

use super::process::{PATIENCE, Sidecar};
use crate::hub::process::Hub;
use crate::support::nats::Nats;
use crate::support::tools::eventually;

/// What watchers have told the hub, the oldest first.
fn told(hub: &Hub) -> Vec<Value> {
    let answer = hub.ask("GET /api/events", &[], "").json();
    let rows = answer["rows"].as_array().expect("rows").clone();
    let bodies = rows.into_iter().rev().map(|row| row["body"].clone());
    bodies.filter(|body| body["component"] == "sidecar").collect()
}

fn types(told: &[Value]) -> Vec<&str> {
    told.iter().filter_map(|it| it["event_type"].as_str()).collect()
}

#[test]
fn each_verdict_that_changes_is_an_event_of_the_watcher_and_none_is_lost_or_doubled() {
    let mut nats = Nats::start();
    let url = nats.url();
    let hub = Hub::start(&[("NATS_URL", &url)]);
    let mut sidecar = Sidecar::swarm(&[("NATS_URL", &url)]);
    sidecar.says("INFO", "🐝 Joining round: 7");
    eventually("it is told to be well", PATIENCE, || {
        types(&told(&hub)).contains(&"well").then_some(())
    });
    nats.kill();
    sidecar.says("ERROR", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB");
    sidecar.until("it is stuck", |it| it["troubles"][0] == "stuck");
    // What waits survives the sidecar itself.
    sidecar.kill();
    sidecar.begin();
    nats.restart();
    let all = eventually("it is told to be stuck", PATIENCE * 2, || {
        Some(told(&hub)).filter(|all| types(all).contains(&"stuck"))
    });
    let stuck = all.iter().find(|it| it["event_type"] == "stuck").expect("it is there");
    assert_eq!(stuck["details"]["program"], "one");
    assert_eq!(stuck["details"]["training"], "no");
    assert_eq!(stuck["level"], "error");
    let mut times: Vec<&str> = all.iter().filter_map(|it| it["timestamp"].as_str()).collect();
    assert!(times.is_sorted(), "{all:#?}");
    times.dedup();
    assert_eq!(times.len(), all.len(), "none is doubled: {all:#?}");
    for pair in all.windows(2) {
        assert_ne!(pair[0]["details"], pair[1]["details"], "each differs from the one before");
    }
    assert_eq!(hub.names(), Vec::<String>::new(), "a watcher is no node");
}
