//! The applications of SOLLOL's dashboard: to its letter, with a proof of who speaks, and by our own node.

use std::process::Command;

use serde_json::{Value, json};

use super::process::{ADMIN, Hub, SECRET, bearer};
use crate::support::tools::eventually;
use crate::support::websocket::Watcher;
use crate::support::world::{PATIENCE, World};

fn told(id: &str, name: &str) -> Value {
    json!({
        "app_id": id, "name": name, "router_type": "RayAdvancedRouter", "version": "0.9.52",
        "metadata": {"nodes": 3},
    })
}

fn post(hub: &Hub, call: &str, heads: &[&str], body: &Value) -> (u16, Value) {
    let answer = hub.ask(&format!("POST /api/applications/{call}"), heads, &body.to_string());
    (answer.status, answer.json())
}

fn listed(hub: &Hub) -> Value {
    let answer = hub.ask("GET /api/applications", &[&bearer(ADMIN)], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn applications_register_beat_and_leave_as_with_the_dashboard_and_stand_side_by_side() {
    let hub = Hub::start(&[("HUB_PUBLIC", "full")]);
    let watcher = Watcher::open(&hub.at, "/ws/applications", &[]);
    let registered = post(&hub, "register", &[], &told("a", "One"));
    assert_eq!(registered, (200, json!({"status": "registered", "app_id": "a"})));
    assert_eq!(watcher.message("type", "app_registered")["name"], "One");
    // Unknown until now, as after a restart of the dashboard.
    assert_eq!(post(&hub, "heartbeat", &[], &told("b", "Two")), (200, json!({"status": "ok"})));
    let list = listed(&hub);
    assert_eq!((&list["total"], &list["active"]), (&2.into(), &2.into()));
    let one = &list["applications"][0];
    for (key, value) in [
        ("app_id", json!("a")),
        ("name", json!("One")),
        ("router_type", json!("RayAdvancedRouter")),
        ("version", json!("0.9.52")),
        ("status", json!("active")),
        ("metadata", json!({"nodes": 3})),
    ] {
        assert_eq!(one[key], value, "{one}");
    }
    assert!(one["started_at"].as_f64() > Some(1.7e9) && one["uptime_seconds"].is_u64(), "{one}");
    let left = post(&hub, "unregister", &[], &json!({"app_id": "a"}));
    assert_eq!(left, (200, json!({"status": "unregistered"})));
    assert_eq!(watcher.message("type", "app_unregistered")["app_id"], "a");
    let unknown = (404, json!({"error": "Unknown app_id"}));
    assert_eq!(post(&hub, "unregister", &[], &json!({"app_id": "a"})), unknown);
    // As the dashboard's own client says it, though that dashboard has no such route.
    assert_eq!(post(&hub, "b/unregister", &[], &json!(null)).0, 200);
    assert_eq!(listed(&hub)["total"], 0);
    let no_id = (400, json!({"error": "app_id required"}));
    assert_eq!(post(&hub, "register", &[], &json!({"name": "x"})), no_id);
}

#[test]
fn without_a_proof_nobody_registers_from_elsewhere_and_the_password_of_a_url_is_one() {
    let hub = Hub::start(&[("HUB_PUBLIC", "status")]);
    let body = told("a", "One");
    assert_eq!(post(&hub, "register", &[], &body).0, 401);
    assert_eq!(post(&hub, "register", &[&bearer("wrong-token")], &body).0, 401);
    assert_eq!(hub.ask("GET /api/applications", &[], "").status, 401);
    assert_eq!(post(&hub, "register", &[&bearer(SECRET)], &body).0, 200);
    // What a browser adds to another site's request.
    let foreign = [bearer(SECRET), "sec-fetch-site: cross-site".to_owned()];
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    assert_eq!(post(&hub, "register", &foreign, &body).0, 403);
    let url = format!("http://any:{SECRET}@{}/api/applications/register", hub.at);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-H", "content-type: application/json", "-d", r#"{"app_id":"c"}"#, &url]);
    let said = curl.output().expect("curl runs").stdout;
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    assert_eq!(said, json!({"status": "registered", "app_id": "c"}));
    assert_eq!(listed(&hub)["total"], 2);
    let proxied = Hub::start(&[("HUB_PUBLIC", "full")]);
    let through = ["x-forwarded-for: 203.0.113.9"];
    assert_eq!(post(&proxied, "register", &through, &body).0, 401, "a proxy asks for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_node_is_on_the_list_of_a_hub_that_is_its_dashboard() {
    let hub = Hub::start(&[("HUB_PUBLIC", "status")]);
    let world = World::start().await;
    let url = format!("http://node:{SECRET}@{}", hub.at);
    let agent = world.agent(&[("EVENTS_DASHBOARD_URL", &url)]);
    let app = eventually("the node is listed", PATIENCE, || {
        let list = listed(&hub);
        Some(list["applications"][0].clone()).filter(Value::is_object)
    });
    assert_eq!(app["metadata"]["node"], World::agent_address().to_string(), "{app}");
    assert_eq!((&app["router_type"], &app["status"]), (&"LamdaNode".into(), &"active".into()));
    agent.ask_to_end();
    eventually("it is gone from the list", PATIENCE, || (listed(&hub)["total"] == 0).then_some(()));
    assert!(!agent.log().contains(SECRET), "the secret is in no log");
}
