//! Who saw what: sidecars sign what they say of a program, and a hub shows it.

use std::os::unix::fs::PermissionsExt as _;

use lamda_node::chain::Key;
use lamda_node::clock::{Clock as _, SystemClock, Timestamp};
use lamda_node::fleet::seen::Said;
use lamda_node::ids::Signature;
use serde_json::{Value, json};

use super::process::{PATIENCE, Sidecar};
use crate::hub::process::{Answer, Hub, SECRET, bearer};
use crate::support::tools::eventually;

fn seen(hub: &Hub) -> Value {
    hub.ask("GET /api/fleet/seen?name=one", &[], "").json()
}

/// What each watcher answers to a question, once this holds.
fn until(hub: &Hub, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE * 2, || Some(seen(hub)).filter(|it| is(it)))
}

fn watching(hub: &Hub) -> Sidecar {
    let url = format!("http://{}", hub.at);
    Sidecar::swarm(&[("SIDECAR_HUB_URL", &url), ("SIDECAR_HUB_SECRET", SECRET)])
}

fn training(row: &Value) -> &Value {
    &row["said"]["answers"]["training"]["answer"]
}

#[test]
fn a_hub_shows_which_watcher_saw_what_with_the_evidence_and_where_they_disagree() {
    let hub = Hub::start(&[]);
    let mut one = watching(&hub);
    one.says("INFO", "🐝 Joining round: 7");
    let shown = until(&hub, "the first watcher says that it trains", |it| {
        training(&it["rows"][0]) == "yes"
    });
    let row = &shown["rows"][0];
    assert_eq!((&row["is_verified"], &row["is_late"]), (&json!(true), &json!(false)));
    let said = &row["said"];
    let key = std::fs::metadata(one.program.path("data/sidecar.key")).expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    assert_eq!((&said["program"], &said["profile"]), (&json!("one"), &json!("rl-swarm-hydra")));
    let evidence = said["answers"]["training"]["evidence"].to_string();
    assert!(evidence.contains("log swarm") && evidence.contains("Joining round"), "{evidence}");
    assert_eq!(shown["disagree"], json!([]));

    let other = watching(&hub);
    other.says("INFO", "🐝 Joining round: 7");
    other.says("ERROR", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB");
    let shown = until(&hub, "they disagree", |it| it["disagree"] == json!(["training"]));
    let rows = shown["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "{shown:#}");
    assert_ne!(rows[0]["said"]["watcher"], rows[1]["said"]["watcher"]);

    // After a restart it is who it was.
    let watcher = said["watcher"].clone();
    one.kill();
    one.begin();
    one.says("ERROR", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB");
    let shown = until(&hub, "they agree again", |it| {
        let rows = it["rows"].as_array().expect("rows");
        rows.len() == 2 && rows.iter().all(|row| training(row) == "no")
    });
    assert_eq!(shown["disagree"], json!([]));
    assert!(
        shown["rows"].as_array().expect("rows").iter().any(|it| it["said"]["watcher"] == watcher)
    );
    let changes = shown["changes"].as_array().expect("changes").len();
    assert!(changes >= 3, "{shown:#}");
}

/// A body of this time, and its signature by this key.
fn signed(key: &Key, by: &Key, at: Timestamp, program: &str) -> (String, String) {
    let yes = json!({"answer": "yes", "why": "it says so"});
    let body = json!({
        "watcher": key.address(), "program": program, "at": at, "since": at, "version": "1",
        "profile": "generic", "troubles": [], "says": "it is up",
        "answers": {"alive": yes, "training": yes, "published": yes, "earning": yes, "swarm": yes},
    });
    let body = body.to_string();
    let said = Said::parse(body.as_bytes()).expect("an observation");
    let signature = by.sign_digest(&said.digest(body.as_bytes()).0);
    (body, Signature(signature).to_string())
}

fn post(hub: &Hub, token: &str, (body, signature): &(String, String)) -> Answer {
    let heads = [bearer(token), format!("lamda-signature: {signature}")];
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    hub.ask("POST /api/observations", &heads, body)
}

#[test]
fn what_is_not_the_watchers_or_not_of_now_is_refused_with_a_reason() {
    let hub = Hub::start(&[]);
    let (key, other, now) = (Key::random(), Key::random(), SystemClock.now());
    let good = signed(&key, &key, now, "one");
    let ms = |ms: u64| Timestamp::from_unix_ms(now.unix_ms() - ms);
    let refused = |what: &(String, String), status: u16, why: &str| {
        let answer = post(&hub, SECRET, what);
        assert_eq!(answer.status, status, "{answer:?}");
        let told = answer.json()["detail"].as_str().expect("a sentence").to_owned();
        assert!(told.contains(why), "{told}");
    };
    assert_eq!(post(&hub, "wrong", &good).status, 401);
    refused(&good, 404, "has beaten");
    hub.beat("one", "UP");
    refused(&(good.0.clone(), "0x12".to_owned()), 400, "lamda-signature");
    refused(&signed(&key, &other, now, "one"), 400, "not the watcher's");
    refused(&(good.0.replace("it is up", "it is UP"), good.1.clone()), 400, "not the watcher's");
    refused(&signed(&key, &key, ms(11 * 60_000), "one"), 400, "ten minutes ago");
    let ahead = Timestamp::from_unix_ms(now.unix_ms() + 10 * 60_000);
    refused(&signed(&key, &key, ahead, "one"), 400, "future");
    refused(&("{}".to_owned(), good.1.clone()), 400, "no observation");
    assert_eq!(seen(&hub)["rows"], json!([]), "nothing of that is kept");
    for _ in 0..2 {
        assert_eq!(post(&hub, SECRET, &good).json(), json!({"ok": true}), "also once more");
    }
    refused(&signed(&key, &key, ms(1_000), "one"), 409, "same time or later");
    let shown = seen(&hub);
    assert_eq!(shown["rows"][0]["said"]["watcher"], json!(key.address()));
    assert_eq!(shown["rows"].as_array().map(Vec::len), Some(1));
}
