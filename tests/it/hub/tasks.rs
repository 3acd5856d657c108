//! The API of the third original system's manager, with real nodes: a task becomes a job, and what is told of both is
//! kept.

use std::process::Command;

use serde_json::{Value, json};

use super::process::{ADMIN, Hub, SECRET, bearer};
use crate::support::nats::Nats;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World};

/// What curl gets for this: the status, and the body.
fn curl(hub: &Hub, path: &str, more: &[&str]) -> (u16, Value) {
    let url = format!("http://{}{path}", hub.at);
    let head = bearer(ADMIN);
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}", "-H", &head]).args(more).arg(url);
    let said = String::from_utf8(command.output().expect("curl runs").stdout).expect("UTF-8");
    let (body, status) = said.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), serde_json::from_str(body).unwrap_or_default())
}

fn get(hub: &Hub, path: &str) -> Value {
    let (status, body) = curl(hub, path, &[]);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn post(hub: &Hub, body: &Value) -> (u16, Value) {
    curl(hub, "/tasks", &["-H", "Content-Type: application/json", "-d", &body.to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_as_a_job_and_what_it_and_its_node_told_is_kept_over_a_restart() {
    let world = World::start().await;
    let agent = world.agent(&[("PROPLET_METRICS_INTERVAL", "1"), ("METRICS_DOMAIN", "home")]);
    let mut hub = Hub::start(&[("HUB_PUBLIC", "status"), ("NATS_URL", &world.nats.url())]);
    let address = World::agent_address().to_string();
    eventually("the node is alive", PATIENCE, || {
        let page = get(&hub, "/proplets?status=active");
        (page["total"] == 1 && page["proplets"][0]["id"] == address.as_str()).then_some(())
    });
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done; echo done > /output/output";
    let asked = json!({
        "name": "compute", "image_url": "docker://busybox:test", "cli_args": ["/bin/sh", "-c"],
        "inputs": [script], "env": {"TOKEN": "very-secret"}, "gpus": 0,
        "monitoring_profile": {"enabled": true, "interval": 500_000_000, "export_to_mqtt": true},
    });
    // It is up once its presence was heard too, which says how much room it has.
    let task = eventually("a node is up", PATIENCE, || {
        let (status, said) = post(&hub, &asked);
        assert!(matches!(status, 201 | 503), "{said}");
        (status == 201).then_some(said)
    });
    assert_eq!((&task["name"], &task["state"]), (&"compute".into(), &0.into()), "{task}");
    let id = task["id"].as_str().expect("an id").to_owned();
    let ended = eventually("it has completed", PATIENCE, || {
        Some(get(&hub, &format!("/tasks/{id}"))).filter(|task| task["state"] == 3)
    });
    assert_eq!((&ended["proplet_id"], &ended["name"]), (&json!(address), &json!("compute")));
    assert!(ended["results"].is_string() && ended["error"].is_null(), "{ended}");
    assert!(ended["start_time"].as_str() > Some("2020"), "{ended}");
    assert_eq!(get(&hub, &format!("/tasks/{id}/results"))["results"], ended["results"]);
    let of_task = format!("/tasks/{id}/metrics");
    let page = get(&hub, &of_task);
    let newest = &page["metrics"][0];
    assert!(page["total"].as_u64() > Some(3), "{page}");
    assert_eq!(
        (&newest["task_id"], &newest["proplet_id"]),
        (&id.as_str().into(), &address.as_str().into())
    );
    assert!(newest["metrics"]["uptime_seconds"].is_u64() && newest["timestamp"].is_string());
    assert!(newest["aggregated"]["sample_count"].as_u64() > Some(3), "{newest}");
    let two = get(&hub, &format!("{of_task}?offset=1&limit=2"));
    assert_eq!((&two["offset"], &two["limit"]), (&1.into(), &2.into()));
    assert_eq!(two["metrics"], json!([page["metrics"][1], page["metrics"][2]]));
    let of_node = eventually("the node has told of itself", PATIENCE, || {
        let page = get(&hub, &format!("/proplets/{address}/metrics"));
        (page["total"].as_u64() > Some(2)).then_some(page)
    });
    assert!(of_node["metrics"][0]["memory_metrics"]["rss_bytes"].as_u64() > Some(1 << 20));
    let history = get(&hub, &format!("/proplets/{address}/alive-history"));
    assert!(history["total"].as_u64() >= Some(1) && history["history"][0].is_string(), "{history}");
    let tasks = get(&hub, "/tasks");
    assert_eq!((&tasks["total"], &tasks["tasks"][0]["id"]), (&1.into(), &id.as_str().into()));
    assert!(!tasks.to_string().contains("very-secret"), "{tasks}");
    let one = get(&hub, &format!("/proplets/{}", address.to_lowercase()));
    assert_eq!((&one["alive"], &one["task_count"]), (&true.into(), &0.into()), "{one}");
    assert!(one["metadata"]["total_memory_bytes"].is_u64(), "{one}");

    hub.kill();
    hub.begin();
    assert_eq!(get(&hub, &of_task)["total"], page["total"]);
    assert_eq!(get(&hub, &format!("/tasks/{id}"))["state"], 3);
    drop(agent);
}

/// What a call of the owner gets that has no body.
fn call(hub: &Hub, path: &str) -> (u16, Value) {
    curl(hub, path, &["-X", "POST"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_stopped_by_its_owner_on_its_node_and_in_the_queue() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let hub = Hub::start(&[("HUB_PUBLIC", "full"), ("NATS_URL", &world.nats.url())]);
    let script = "trap 'exit 1' TERM; while true; do sleep 0.1; done";
    let task = json!({
        "name": "long", "id": "long-1", "image_url": "busybox:test", "cli_args": ["/bin/sh", "-c", script],
        "gpus": 0, "proplet_id": World::agent_address().to_string(),
    });
    let sent = eventually("NATS takes it", PATIENCE, || {
        let (status, said) = post(&hub, &task);
        assert!(matches!(status, 201 | 503), "{said}");
        (status == 201).then_some(said)
    });
    assert_eq!(call(&hub, "/tasks/long-1/start"), (200, json!({"started": true})), "{sent}");
    eventually("it runs", PATIENCE, || (get(&hub, "/tasks/long-1")["state"] == 2).then_some(()));
    let stranger = hub.ask("POST /tasks/long-1/stop", &[], "");
    assert_eq!(stranger.status, 401, "{stranger:?}");
    assert_eq!(get(&hub, "/tasks/long-1")["state"], 2);
    assert_eq!(call(&hub, "/tasks/long-1/stop"), (200, json!({"stopped": true})));
    eventually("it is over", PATIENCE, || (get(&hub, "/tasks/long-1")["state"] == 6).then_some(()));
    for again in ["stop", "start"] {
        let (status, said) = call(&hub, &format!("/tasks/long-1/{again}"));
        assert!(status == 409 && said["error"].is_string(), "{again}: {status} {said}");
    }
    assert_eq!(call(&hub, "/tasks/other/stop").0, 404);

    // No node is in this pool: its job is taken out of the queue.
    let mut pooled = task.clone();
    pooled["id"] = "pooled-1".into();
    pooled["pool"] = "nobody".into();
    pooled.as_object_mut().expect("an object").remove("proplet_id");
    let (status, said) = post(&hub, &pooled);
    assert_eq!((status, &said["state"]), (201, &json!(0)), "{said}");
    assert_eq!(call(&hub, "/tasks/pooled-1/stop"), (200, json!({"stopped": true})));
    assert_eq!(get(&hub, "/tasks/pooled-1")["state"], 6);
    assert_eq!(post(&hub, &pooled).0, 409, "the queue would call it a duplicate");
    drop(agent);
}

#[test]
fn a_question_that_cannot_be_read_is_refused_in_the_form_of_its_api() {
    let hub = Hub::start(&[]);
    for path in
        ["/tasks?offset=abc", "/tasks?limit=-1", "/proplets?limit=1000", "/tasks/%ff/results"]
    {
        let (status, said) = curl(&hub, path, &[]);
        assert!(status == 400 && said["error"].is_string(), "{path}: {status} {said}");
    }
    let (status, said) = curl(&hub, "/api/usage", &[]);
    assert!(status == 400 && said["detail"].is_string(), "{status} {said}");
}

#[test]
fn a_task_that_cannot_be_a_job_is_refused_in_a_sentence_and_only_the_owner_sends_any() {
    let nats = Nats::start();
    let hub = Hub::start(&[("HUB_PUBLIC", "full"), ("NATS_URL", &nats.url())]);
    let task = json!({"name": "n", "image_url": "busybox:test"});
    let with = |key: &str, value: Value| {
        let mut task = task.clone();
        task[key] = value;
        let (status, said) = post(&hub, &task);
        (status, said["error"].as_str().unwrap_or_default().to_owned())
    };
    let (status, why) = with("file", json!("AGFzbQEAAAA="));
    assert_eq!(status, 400);
    assert!(why.contains("WebAssembly") && why.contains("image_url"), "{why}");
    for (key, value, says) in [
        ("schedule", json!("* * * * *"), "`schedule`"),
        ("monitoring_profile", json!("closely"), "closely"),
        ("proplet_id", json!("nobody"), "`proplet_id`"),
        ("pool", json!("a b"), "`pool`"),
        ("timeout_s", json!(0), "timeout_s"),
        ("id", json!("../x"), "`id`"),
        ("env", json!({"=": "x"}), "env"),
    ] {
        let (status, why) = with(key, value);
        assert!(status == 400 && why.contains(says), "{key}: {status} {why}");
    }
    let (status, why) = with("name", json!("x".repeat(20_000)));
    assert!(status == 413 && why.contains("16384"), "{status} {why}");
    let (status, why) = post(&hub, &task);
    assert!(status == 503 && why["error"].to_string().contains("no node is up"), "{why}");
    // Whose nodes may be back soon.
    let at = || with("pool", json!("gpu")).0;
    eventually("it is in the queue", PATIENCE, || (at() == 201).then_some(()));
    // The same one again, and another one in its name.
    let send = |command: &str| {
        let task = json!({"name": "n", "image_url": "busybox:test", "pool": "gpu", "id": "mine",
            "cli_args": [command]});
        post(&hub, &task)
    };
    for (command, status) in [("one", 201), ("one", 201), ("two", 409), ("one", 201)] {
        let (got, said) = send(command);
        assert_eq!(got, status, "{command}: {said}");
    }
    assert_eq!(get(&hub, "/tasks/mine")["cli_args"], json!(["one"]));
    assert_eq!(curl(&hub, "/tasks?offset=10001", &[]).0, 400);
    for token in [None, Some(SECRET)] {
        let head = token.map_or_else(|| "x-nothing: 1".to_owned(), bearer);
        let answer = hub.ask("POST /tasks", &[&head], &task.to_string());
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    assert_eq!(curl(&hub, "/tasks?limit=101", &[]).0, 400);
    assert_eq!(curl(&hub, "/tasks/none/metrics", &[]).0, 404);
    assert_eq!(curl(&hub, "/proplets/none", &[]).0, 404);
    let alone = Hub::start(&[("HUB_PUBLIC", "status")]);
    let (status, why) = post(&alone, &json!({"name": "n", "image_url": "i", "pool": "gpu"}));
    assert!(status == 503 && why["error"].to_string().contains("not connected"), "{why}");
    assert_eq!(alone.ask("GET /proplets", &[], "").status, 401);
    assert_eq!(alone.ask("GET /tasks", &[], "").status, 401);
}

#[test]
fn another_systems_node_is_listed_by_what_it_says_over_mqtt_names_and_forged_ones_do_no_harm() {
    let nats = Nats::start();
    let hub = Hub::start(&[("HUB_PUBLIC", "full"), ("NATS_URL", &nats.url())]);
    let say = "
topic = 'm.home.c.rack.control.proplet.'
at = {'secs_since_epoch': 1736937000, 'nanos_since_epoch': 0}
for body in [b'{', b'[]', json.dumps({'proplet_id': 'x' * 5000}).encode()]:
    await nc.publish(topic + 'alive', body)
await nc.publish(topic + 'alive', json.dumps(
    {'proplet_id': '550e8400-e29b', 'status': 'alive', 'namespace': 'n'}).encode())
await nc.publish(topic + 'metrics', json.dumps(
    {'proplet_id': '550e8400-e29b', 'namespace': 'n', 'timestamp': at,
     'cpu_metrics': {'user_seconds': 1.5, 'system_seconds': 0.5, 'percent': 4.0},
     'memory_metrics': {'rss_bytes': 7}}).encode())
await nc.publish(topic + 'task_metrics', json.dumps(
    {'task_id': 't1', 'proplet_id': '550e8400-e29b', 'timestamp': at,
     'metrics': {'cpu_percent': 42.5, 'memory_bytes': 67108864}, 'aggregated': None}).encode())
await nc.flush()";
    let page = eventually("it is listed", PATIENCE, || {
        nats.python(say, &[]);
        Some(get(&hub, "/proplets")).filter(|page| page["total"] == 1)
    });
    let one = &page["proplets"][0];
    assert_eq!((&one["id"], &one["alive"]), (&"550e8400-e29b".into(), &true.into()), "{one}");
    let metrics = eventually("its figures are kept", PATIENCE, || {
        let page = get(&hub, "/proplets/550e8400-e29b/metrics");
        page["metrics"][0].is_object().then_some(page)
    });
    assert_eq!(metrics["metrics"][0]["timestamp"], "2025-01-15T10:30:00.000Z");
    assert_eq!(metrics["metrics"][0]["cpu_metrics"]["percent"], 4.0);
    let task = eventually("its task's figures are kept", PATIENCE, || {
        let (status, page) = curl(&hub, "/tasks/t1/metrics", &[]);
        (status == 200).then_some(page)
    });
    assert_eq!(task["metrics"][0]["metrics"]["memory_bytes"], 67_108_864);
}
