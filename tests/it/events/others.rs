//! What a node tells besides events: its GPUs to the reporter's key and stream, itself to a dashboard's list.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use serde_json::{Value, json};

use crate::support::nvml::FakeNvml;
use crate::support::redis::Redis;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World};

const CARD: &str = "GPU-5d6e7f80-1111-4222-8333-944455566677";

#[tokio::test(flavor = "multi_thread")]
async fn the_gpus_are_reported_with_what_is_known_of_them() {
    let (world, redis) = (World::start().await, Redis::start());
    let nvml = FakeNvml::build(&format!(
        "driver 550.54.15\ncuda 12040\ngpu {CARD} 85520809984 0 NVIDIA H100 80GB HBM3\n"
    ));
    let library = nvml.library().display().to_string();
    let settings =
        [("GPU_MODE", "auto"), ("NVML_LIB", &*library), ("EVENTS_REDIS_URL", &redis.url())];
    let _agent = world.agent(&settings);
    let node = World::agent_address().to_string();
    let script =
        format!("print(json.dumps([r.get('sollol:gpu:{node}'), r.ttl('sollol:gpu:{node}')]))");
    let (report, ttl): (String, u64) = eventually("the key is there", PATIENCE, || {
        serde_json::from_str(&redis.python(&script)).ok()
    });
    assert!((1..=120).contains(&ttl), "{ttl}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["vendor"], &report["node_id"]), (&json!("nvidia"), &json!(node)));
    assert!(report["timestamp"].is_f64(), "{report}");
    let gpu = &report["gpus"][0];
    assert_eq!((&gpu["index"], &gpu["name"]), (&json!(0), &json!("NVIDIA H100 80GB HBM3")));
    assert_eq!(gpu["memory_total_mb"], 81_559);
    let entry = &redis.last_entries(&["sollol:gpu:stats"])[0];
    let at = entry.iter().position(|field| field == "gpus").expect("a field");
    let flat: Value = serde_json::from_str(&entry[at + 1]).expect("JSON");
    assert_eq!(flat[0]["name"], gpu["name"]);
}

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_lists_the_node_from_its_start_to_its_end() {
    let calls = Calls::default();
    let hear = |State(calls): State<Calls>, Path(what): Path<String>, body: axum::Json<Value>| async move {
        calls.lock().expect("no panic").push((what, body.0));
    };
    let routes = Router::new().route("/api/applications/{what}", post(hear));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("its address"));
    let mut serving = tokio::task::JoinSet::new();
    let app = routes.with_state(Arc::clone(&calls));
    serving.spawn(async move { axum::serve(listener, app).await });
    let world = World::start().await;
    let mut agent = world.agent(&[("EVENTS_DASHBOARD_URL", &url)]);
    let called = |what: &str| {
        eventually(what, PATIENCE, || {
            let calls = calls.lock().expect("no panic");
            calls.iter().find(|(called, _)| called == what).map(|(_, body)| body.clone())
        })
    };
    let registered = called("register");
    assert_eq!(registered["metadata"]["node"], json!(World::agent_address()));
    let beat = called("heartbeat");
    assert_eq!(beat, registered, "the same body");
    agent.ask_to_end();
    agent.wait_for_end();
    assert_eq!(called("unregister")["app_id"], registered["app_id"]);
    assert_eq!(calls.lock().expect("no panic").last().expect("a call").0, "unregister");
}
