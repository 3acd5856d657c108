//! The original side car's configuration and its service.

use std::fs::File;

use serde_json::{Value, json};

use super::process::{PATIENCE, hydra};
use crate::hub::process::ask;
use crate::support::program::Program;
use crate::support::receiver::{Receiver, Says};
use crate::support::tools::{Running, eventually, free_port};

#[test]
fn the_originals_configuration_is_read_as_it_is_and_its_service_gets_each_line_once() {
    let refuses =
        [Says::Answer(500, "", json!({})), Says::Answer(429, "retry-after: 1\r\n", json!({}))];
    let ingest = Receiver::start(refuses);
    let port = free_port();
    let program = Program::with(&[]);
    std::fs::create_dir_all(program.path("logs")).expect("a folder");
    let log = program.path("logs/swarm_launcher.log");
    std::fs::write(&log, "").expect("a log");
    let url = ingest.url();
    let config = program.write(
        "config.yaml",
        &format!(
            "node_id: \"my-node-123\"\njwt_token: \"header.payload.hunter2\"\n\
             system:\n  health_port: {port}\n  poll_interval: 10\n\
             log_monitoring:\n  api_endpoint: \"{url}/prod/v1/ingest\"\n  auth_token: \"x\"\n  batch_size: 10\n  \
             log_files: [\"{log}\"]\nblockchain:\n  contract_address: \"\"\n  chain_id: 1234\n\
             colour: blue\n"
        ),
    );
    let errors = File::create(program.path("log")).expect("a log");
    let mut command = program.command(&["sidecar", "--config", &config]);
    let _running = Running::start(command.stderr(errors));
    let at = format!("127.0.0.1:{port}");
    let health = eventually("health answers", PATIENCE, || ask(&at, "GET /health", &[], ""));
    assert_eq!(health.json()["node_id"], "my-node-123");
    let lines = ["Starting round: 5/9.", "🐝 Joining round: 5"].map(|line| hydra("INFO", line));
    std::fs::write(&log, lines.concat()).expect("room for a log");
    let events = || -> Vec<Value> {
        let posts = ingest.taken();
        posts.iter().filter_map(Value::as_array).flatten().cloned().collect()
    };
    let events = eventually("both lines arrive", PATIENCE * 2, || {
        Some(events()).filter(|events| events.len() >= 2)
    });
    assert_eq!(events.len(), 2, "{events:?}");
    let first = &events[0];
    assert_eq!((&first["node_id"], &first["event_type"]), (&json!("my-node-123"), &json!("info")));
    assert_eq!(first["details"]["message"], "Starting round: 5/9.");
    let head = &ingest.requests()[0].head;
    assert!(head.contains("authorization: bearer header.payload.hunter2"), "{head}");
    let told = std::fs::read_to_string(program.path("log")).expect("a log");
    assert!(told.contains("colour") && told.contains("1234"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}
