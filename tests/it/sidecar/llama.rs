//! llama.cpp's coordinator and backends, as their users' dashboards hear of them on Redis. The stand-ins are three
//! open ports and a log.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::process::{PATIENCE, Sidecar};
use crate::support::redis::{Heard, Redis};
use crate::support::tools::eventually;

const EVENTS: &str = "synapticllamas:llama_cpp:logs";
const COORDINATOR: &str = "synapticllamas:llama_cpp:coordinator";
const BACKENDS: &str = "synapticllamas:llama_cpp:rpc_backends";
const RAW: &str = "synapticllamas:llama_cpp:raw";
const ACTIVITY: &str = "sollol:dashboard:rpc:activity";

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    (listener, address)
}

/// The messages of a channel for which this holds, once there is one.
fn until(heard: &Heard, channel: &str, what: &str, is: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually(what, PATIENCE, || {
        let found: Vec<Value> = heard.on(channel).into_iter().filter(|it| is(it)).collect();
        (!found.is_empty()).then_some(found)
    })
}

fn keys(message: &Value) -> Vec<&str> {
    message.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The configuration that watches a coordinator with these backends.
fn watching(coordinator: &str, backends: &[&str], log: &str) -> String {
    let backends = backends.join(",");
    format!(
        "[[watch]]\nname = \"one\"\nprofile = \"llama-cpp\"\n\
         set = {{ backends = \"{backends}\", coordinator = \"{coordinator}\", coordinator_log = \"{log}\" }}\n"
    )
}

fn has_registry(message: &Value, active: u64) -> bool {
    message["backend"] == "rpc_registry" && message["details"]["total_active"] == active
}

#[test]
fn a_coordinator_and_its_backends_are_published_as_the_seeds_dashboards_read_them() {
    let redis = Redis::start();
    let heard = redis.heard_by_python();
    let (one, two, coordinator) = (listen(), listen(), listen());
    let config = watching(&coordinator.1, &[&one.1, &two.1], "ROOT/logs/llama.log");
    let settings = [
        ("SOLLOL_REDIS_URL", &*redis.url()),
        ("SOLLOL_RPC_HEARTBEAT_INTERVAL", "1"),
        ("SOLLOL_RPC_BACKEND_HEARTBEAT_INTERVAL", "1"),
    ];
    let mut sidecar = Sidecar::with(&config, &settings);
    sidecar.append("logs/llama.log", "");
    sidecar.begin();
    for address in [&one.1, &two.1] {
        let message = format!("RPC backend {address} answers");
        until(&heard, BACKENDS, "a backend connects", |it| it["message"] == message);
    }
    let starts = until(&heard, COORDINATOR, "it starts", |it| it["event_type"] == "start");
    let port: u16 = coordinator.1.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let expected = ["component", "details", "event_type", "level", "message", "timestamp"];
    assert_eq!(keys(&starts[0]), expected);
    assert_eq!(starts[0]["details"]["port"], port);
    assert_eq!(starts[0]["details"]["rpc_backends"], json!([one.1, two.1]));
    what_its_log_says(&sidecar, &heard);

    let beats = until(&heard, ACTIVITY, "the registry's heartbeat", |it| has_registry(it, 2));
    assert_eq!(beats[0]["event_type"], "rpc_backend_connect");
    assert_eq!(beats[0]["details"]["total_configured"], 2);
    assert_eq!(beats[0]["details"]["rpc_addresses"].as_array().map(Vec::len), Some(2));
    until(&heard, ACTIVITY, "the coordinator's heartbeat", |it| {
        it["backend"] == json!(coordinator.1) && it["details"]["type"] == "heartbeat"
    });

    drop(two.0);
    let lost = until(&heard, BACKENDS, "a backend is lost", |it| it["event_type"] == "disconnect");
    assert_eq!(lost[0]["details"]["backend"], json!(two.1));
    assert_eq!(lost[0]["level"], "warning");
    let beats = until(&heard, ACTIVITY, "the registry counts less", |it| has_registry(it, 1));
    assert_eq!(beats[0]["details"]["rpc_addresses"], json!([one.1]));
    drop(coordinator.0);
    until(&heard, COORDINATOR, "the coordinator ends", |it| it["event_type"] == "stop");
    let starts = heard.on(COORDINATOR).into_iter().filter(|it| it["event_type"] == "start");
    assert_eq!(starts.count(), 1, "its port and its log are one start");
}

/// Writes to the log, and sees that a model is loaded and that lines come without addresses.
fn what_its_log_says(sidecar: &Sidecar, heard: &Heard) {
    sidecar.append(
        "logs/llama.log",
        "srv    load_model: loading model '/models/llama-70b.gguf'\n\
         main: server is listening on http://127.0.0.1:8080 - starting the main loop\n\
         srv  log_server_r: request: GET /health 203.0.113.9 200\n",
    );
    let loads = until(heard, EVENTS, "a model is loaded", |it| it["event_type"] == "model_load");
    assert_eq!(loads[0]["details"]["model"], "/models/llama-70b.gguf");
    let lines = until(heard, RAW, "a raw line", |it| it.to_string().contains("log_server_r"));
    assert_eq!(keys(&lines[0]), ["line", "source", "timestamp"]);
    assert_eq!(lines[0]["source"], "coordinator");
    assert!(!lines[0].to_string().contains("203.0.113.9"), "{lines:?}");
}

#[test]
fn what_happens_while_redis_is_away_arrives_once_it_is_back() {
    let mut redis = Redis::start();
    redis.kill();
    let (one, coordinator) = (listen(), listen());
    let config = watching(&coordinator.1, &[&one.1], "");
    let url = redis.url();
    let mut sidecar = Sidecar::with(&config, &[("EVENTS_REDIS_URL", &url)]);
    sidecar.begin();
    eventually("it is said to be away", PATIENCE, || {
        sidecar.log().contains("the newest of it").then_some(())
    });
    redis.restart();
    let entries = eventually("the start arrives", PATIENCE * 2, || {
        let count = redis.python("print(r.xlen('sollol:dashboard:log_stream'))");
        (count.parse::<u32>().ok()? >= 2).then_some(())?;
        Some(redis.python("print([e[1]['log'] for e in r.xrange('sollol:dashboard:log_stream')])"))
    });
    assert!(entries.contains("coordinator started") && entries.contains("answers"), "{entries}");
}
