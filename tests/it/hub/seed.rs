//! The original's API: every answer and every refusal in its form.

use serde_json::{Value, json};

use super::process::{ADMIN, Hub, PATIENCE, SECRET, bearer};
use crate::support::prometheus::Page;
use crate::support::tools::eventually;

#[test]
fn a_beat_is_shown_with_the_originals_keys_and_a_node_that_says_down_is_down() {
    let hub = Hub::start(&[]);
    hub.beat("b-2", "UP");
    hub.beat("a-1", "DOWN");
    let nodes = hub.nodes();
    assert_eq!(hub.names(), ["a-1", "b-2"], "by name");
    let keys: Vec<&String> = nodes[0].as_object().unwrap().keys().collect();
    let mut expected = [
        "node_id",
        "ip",
        "last_seen",
        "computed",
        "last_state",
        "meta",
        "age_sec",
        "reported",
        "gswarm",
        "gswarm_alert",
    ];
    expected.sort_unstable();
    let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!((&nodes[0]["computed"], &nodes[1]["computed"]), (&json!("DOWN"), &json!("UP")));
    assert_eq!((&nodes[0]["reported"], &nodes[0]["ip"]), (&json!("DOWN"), &json!("203.0.113.7")));
    assert!(nodes[1]["last_seen"].as_u64().unwrap() > 1_700_000_000);
    assert!(nodes[1]["age_sec"].as_u64().unwrap() < 30);
    assert!(hub.log().contains("no NATS_URL") && hub.log().contains("no OPBNB_RPC_URL"));
}

#[test]
fn every_refusal_of_a_beat_has_the_originals_form() {
    let hub = Hub::start(&[]);
    let unauthorized = json!({"detail": "Unauthorized"});
    for head in ["x: y", "authorization: Bearer wrong", "authorization: Basic shared-hunter2"] {
        let answer = hub.ask("POST /api/heartbeat", &[head], r#"{"node_id":"n"}"#);
        assert_eq!((answer.status, answer.json()), (401, unauthorized.clone()), "{head}");
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    }
    let status = json!({"type": "literal_error", "loc": ["body", "status"],
        "msg": "Input should be 'UP' or 'DOWN'", "input": "SIDEWAYS"});
    for (body, code, detail) in [
        ("{", 400, json!("Malformed JSON payload")),
        ("[1]", 400, json!("Malformed JSON payload")),
        (r#"{"ip":"x"}"#, 400, json!("node_id required")),
        (r#"{"node_id":"  "}"#, 400, json!("node_id required")),
        (
            r#"{"node_id":"a\nb"}"#,
            400,
            json!("node_id has 1 to 128 bytes, without control characters"),
        ),
        (r#"{"node_id":"n","status":"SIDEWAYS"}"#, 422, json!([status])),
        (&"x".repeat(17_000), 413, json!("the body has more than 16384 bytes")),
    ] {
        let answer = hub.post(SECRET, body);
        assert_eq!((answer.status, answer.json()), (code, json!({"detail": detail})), "{body:.40}");
    }
    let answer = hub.ask("GET /nothing", &[], "");
    assert_eq!((answer.status, answer.json()), (404, json!({"detail": "Not Found"})));
    let answer = hub.ask("GET /api/heartbeat", &[], "");
    assert_eq!((answer.status, answer.json()), (405, json!({"detail": "Method Not Allowed"})));
    assert!(answer.head.contains("\r\nallow: post"), "{}", answer.head);
    assert!(hub.names().is_empty());
}

#[test]
fn the_owner_renames_deletes_and_prunes() {
    let hub = Hub::start(&[]);
    for name in ["a", "b", "c"] {
        hub.beat(name, "UP");
    }
    let rename = |old: &str, new: &str| hub.admin("rename", &json!({"old_id": old, "new_id": new}));
    let done = json!({"ok": true, "renamed": true, "old_id": "a", "new_id": "z"});
    assert_eq!(rename("a", "z"), (200, done));
    assert_eq!(rename("b", "c"), (409, json!({"detail": "new_id already exists"})));
    assert_eq!(rename("x", "y"), (404, json!({"detail": "node not found"})));
    assert_eq!(rename("b", "b"), (200, json!({"ok": true, "renamed": false})));
    assert_eq!(rename("b", " "), (400, json!({"detail": "old_id/new_id required"})));
    let deleted = json!({"ok": true, "deleted": "c"});
    assert_eq!(hub.admin("delete", &json!({"node_id": "c"})), (200, deleted));
    let pruned = json!({"ok": true, "deleted": 0, "cutoff_days": 7});
    assert_eq!(hub.admin("prune", &json!({"days": 7})), (200, pruned.clone()));
    assert_eq!(hub.admin("prune", &json!(7)), (200, pruned));
    let skipped = json!({"ok": true, "deleted": 0, "skipped": true});
    assert_eq!(hub.admin("prune", &Value::Null), (200, skipped));
    assert_eq!(hub.names(), ["b", "z"]);
    let alert = json!({"node_id": "b", "enabled": "off"}).to_string();
    let set = hub.ask("POST /api/nodes/gswarm/alert", &[&bearer(ADMIN)], &alert);
    assert_eq!(set.json(), json!({"ok": true, "node_id": "b", "enabled": false}));
    assert_eq!(hub.nodes()[0]["gswarm_alert"], json!(false));
    hub.beat("b", "UP");
    assert_eq!(hub.nodes()[0]["gswarm"]["alert"], json!(false), "a beat leaves it");
}

#[test]
fn every_refusal_of_an_owners_call_has_the_frameworks_form() {
    let hub = Hub::start(&[]);
    let missing = json!([{"type": "missing", "loc": ["body", "node_id"], "msg": "Field required",
        "input": {"node": "x"}}]);
    let body = json!({"node": "x"});
    assert_eq!(hub.admin("delete", &body), (422, json!({"detail": missing})));
    let string = json!([{"type": "string_type", "loc": ["body", "node_id"],
        "msg": "Input should be a valid string", "input": 5}]);
    assert_eq!(hub.admin("delete", &json!({"node_id": 5})), (422, json!({"detail": string})));
    let integer = json!([{"type": "int_type", "loc": ["body", "days"],
        "msg": "Input should be a valid integer", "input": "x"}]);
    assert_eq!(hub.admin("prune", &json!({"days": "x"})), (422, json!({"detail": integer})));
    let broken = hub.ask("POST /api/admin/delete", &[&bearer(ADMIN)], "{");
    assert_eq!((broken.status, &broken.json()["detail"][0]["type"]), (422, &json!("json_invalid")));
    for token in [SECRET, "wrong"] {
        let refused = hub.ask("POST /api/admin/delete", &[&bearer(token)], "{");
        assert_eq!((refused.status, refused.json()), (401, json!({"detail": "Unauthorized"})));
    }
    let locked = Hub::start(&[("ADMIN_TOKEN", "")]);
    let refused = locked.ask("POST /api/admin/prune", &[&bearer("")], "");
    assert_eq!(refused.status, 401, "without a token of his own nobody is the owner");
}

#[test]
fn who_did_not_log_in_sees_what_the_owner_shows() {
    let names_only = Hub::start(&[("HUB_PUBLIC", "status")]);
    names_only.beat("a", "UP");
    assert_eq!(names_only.nodes(), [json!({"node_id": "a", "computed": "UP"})]);
    let nothing = Hub::start(&[("HUB_PUBLIC", "off")]);
    nothing.beat("a", "UP");
    for path in ["/api/nodes", "/metrics"] {
        let line = format!("GET {path}");
        let refused = nothing.ask(&line, &[], "");
        assert_eq!((refused.status, refused.json()), (401, json!({"detail": "Unauthorized"})));
        assert_eq!(nothing.ask(&line, &[&bearer(SECRET)], "").status, 401);
        assert_eq!(nothing.ask(&line, &[&bearer(ADMIN)], "").status, 200);
    }
    assert_eq!(nothing.ask("GET /healthz", &[], "").body, "ok\n");
}

#[test]
fn prometheus_reads_what_the_hub_counts() {
    let hub = Hub::start(&[]);
    hub.beat("a", "UP");
    hub.beat("a", "UP");
    hub.post("wrong", "{}");
    hub.post(SECRET, "{}");
    let page = Page::at(&hub.at).expect("it answers");
    page.is_clean();
    for (series, value) in [
        ("lamda_hub_beats_total", 2.0),
        ("lamda_hub_nodes{standing=\"up\"}", 1.0),
        ("lamda_hub_nodes{standing=\"down\"}", 0.0),
        ("lamda_hub_beats_refused_total{reason=\"unauthorized\"}", 1.0),
        ("lamda_hub_beats_refused_total{reason=\"invalid\"}", 1.0),
    ] {
        assert_eq!(page.value(series), Some(value), "{series}\n{}", page.0);
    }
}

#[test]
fn a_node_with_a_secret_of_its_own_needs_it_within_seconds_while_the_hub_runs() {
    let hub = Hub::start(&[]);
    hub.beat("a", "UP");
    let made = hub.program.run(&["hub", "node-secret", "a"]).succeeds();
    let own = made.stdout().trim().to_owned();
    assert!(own.len() >= 32 && made.stderr().contains("SHARED_SECRET"), "{}", made.both());
    let body = r#"{"node_id":"a"}"#;
    eventually("the shared secret is refused", PATIENCE, || {
        (hub.post(SECRET, body).status == 401).then_some(())
    });
    assert_eq!(hub.post(&own, body).status, 200);
    assert_eq!(hub.post(&own, r#"{"node_id":"b"}"#).status, 401, "it speaks for no other");
    hub.beat("b", "UP");
    let kept = std::fs::read(hub.program.path("data/hub.db")).unwrap();
    assert!(!String::from_utf8_lossy(&kept).contains(&own), "only its hash is kept");
    hub.program.run(&["hub", "node-secret", " "]).is_refused(64, "node_id required");
}
