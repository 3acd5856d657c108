//! Two programs with one key.

use std::time::Duration;

use serde_json::{Value, json};

use super::process::{Hub, PATIENCE};
use super::signed::{Speaker, bind, is_taken_up};
use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::tools::eventually;

/// What the hub shows of this node: its row, and the rules of the incidents that are open.
fn shown(hub: &Hub, name: &str) -> (Value, Vec<String>) {
    let get = |path: &str| hub.ask(&format!("GET {path}"), &[], "").json();
    let (fleet, alerts) = (get("/api/fleet"), get("/api/alerts"));
    let rows = fleet["rows"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["name"] == name).unwrap_or_default();
    let open = alerts["open"].as_array().cloned().unwrap_or_default();
    let rules = open.iter().filter_map(|it| it["rule"].as_str().map(str::to_owned));
    (row, rules.collect())
}

#[test]
fn two_that_beat_with_one_key_are_a_clash_until_one_of_them_stops() {
    let hub = Hub::start(&[]);
    let (one, two) = (Speaker::new(1, "one"), Speaker::new(1, "two"));
    bind(&hub, &one, "rack-1");
    is_taken_up(&hub, &one, "rack-1");
    assert_eq!(two.beat(&hub, "rack-1").status, 200, "it may have started anew");
    assert_eq!(shown(&hub, "rack-1").0["standing"], "up");
    assert_eq!(one.beat(&hub, "rack-1").status, 200);
    let row = eventually("it is a clash", PATIENCE, || {
        let (row, rules) = shown(&hub, "rack-1");
        (row["standing"] == "clash" && rules == ["key-clash"]).then_some(row)
    });
    let why = row["why"].as_str().expect("why");
    assert_eq!(why.matches("from 127.0.0.1").count(), 2, "{why}");
    let ids = [&one, &two].map(|it| it.instance.to_string());
    assert!(ids.iter().all(|id| why.contains(&id[..10])), "{why}");
    // One of them goes on alone.
    let mut last = std::time::Instant::now();
    eventually("it is over", PATIENCE + Duration::from_secs(90), || {
        if last.elapsed() > Duration::from_secs(20) {
            last = std::time::Instant::now();
            assert_eq!(one.beat(&hub, "rack-1").status, 200);
        }
        let (row, rules) = shown(&hub, "rack-1");
        (row["standing"] == "up" && rules.is_empty()).then_some(())
    });
}

#[test]
fn two_that_tell_nats_of_themselves_with_one_key_are_a_clash() {
    let nats = Nats::start();
    let hub = Hub::start(&[("NATS_URL", &nats.url())]);
    let name = Anvil::key(1).address().lower_hex();
    let presence = |instance: &str| {
        json!({"pools": [], "slots": 1, "free_slots": 1, "milli_cpus": 1, "memory_mib": 1, "disk_mib": 1,
            "ready": true, "version": "0.1.0", "instance": instance})
        .to_string()
    };
    let put = |instance: &str| {
        let script = "await nc.publish('$KV.NODES.' + args[0], args[1].encode())\nawait nc.flush()";
        nats.python(script, &[&name, &presence(instance)]);
    };
    let ids = ["one", "two"].map(|run| format!("00000000-0000-4000-8000-0000000000{run}"));
    eventually("the first is heard", PATIENCE, || {
        put(&ids[0]);
        (shown(&hub, &name).0["standing"] == "up").then_some(())
    });
    put(&ids[1]);
    put(&ids[1]);
    assert_eq!(shown(&hub, &name).0["standing"], "up", "it may have started anew");
    put(&ids[0]);
    eventually("it is a clash", PATIENCE, || {
        let (row, rules) = shown(&hub, &name);
        let why = row["why"].as_str().unwrap_or_default();
        let is_told = why.matches("from NATS").count() == 2 && rules == ["key-clash"];
        (row["standing"] == "clash" && is_told).then_some(())
    });
}
