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
    let stuck: Vec<&Value> = all.iter().filter(|it| it["event_type"] == "stuck").collect();
    assert_eq!(stuck.len(), 1, "{all:#?}");
    assert_eq!(stuck[0]["details"]["program"], "one");
    assert_eq!(stuck[0]["details"]["training"], "no");
    assert_eq!(stuck[0]["level"], "error");
    assert_eq!(all.iter().filter(|it| it["event_type"] == "well").count(), 1, "{all:#?}");
    assert_eq!(hub.names(), Vec::<String>::new(), "a watcher is no node");
}
