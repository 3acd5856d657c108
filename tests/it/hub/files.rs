//! The hub's file: what a kill leaves, an original's file, copies, and a second hub.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use lamda_node::sql::Connection;
use serde_json::json;

use super::process::{Hub, PATIENCE, SECRET, ask, bearer};
use crate::support::tools::eventually;

/// Ends the threads of a test however it ends.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_hub_whose_log_is_on_a_full_disk_goes_on_taking_beats() {
    let mut hub = Hub::with(&[]);
    hub.log_into("/dev/full");
    hub.begin();
    for _ in 0..2 {
        assert_eq!(hub.post("wrong-token", r#"{"node_id":"n"}"#).status, 401);
        assert_eq!(hub.post(SECRET, r#"{"node_id":"n"}"#).status, 200);
    }
    assert!(hub.child().try_wait().expect("a child").is_none(), "it runs");
}

#[test]
fn a_hub_that_is_killed_amid_beats_has_lost_none_that_it_acknowledged() {
    let mut hub = Hub::start(&[]);
    let (at, taken, ended) = (hub.at.clone(), Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let end = EndOnDrop(&ended);
        for thread in 0..8 {
            let (at, taken, ended) = (&at, &taken, &ended);
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("node-{thread}-{number}");
                    let body = json!({"node_id": name}).to_string();
                    let answer = ask(at, "POST /api/heartbeat", &[&bearer(SECRET)], &body);
                    if answer.is_some_and(|answer| answer.status == 200) {
                        taken.lock().unwrap().push(name);
                    } else if ended.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        eventually("beats are taken", PATIENCE, || {
            (taken.lock().unwrap().len() > 300).then_some(())
        });
        hub.kill();
        drop(end);
    });
    hub.begin();
    let (known, taken) = (hub.names(), taken.into_inner().unwrap());
    let lost: Vec<_> = taken.iter().filter(|name| known.binary_search(name).is_err()).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), taken.len());
}

const ORIGINAL: &str = "CREATE TABLE nodes (node_id TEXT PRIMARY KEY, ip TEXT, last_seen INTEGER, \
    last_state TEXT, last_computed TEXT, meta TEXT, last_reported TEXT DEFAULT 'UP', \
    gswarm_eoa TEXT, gswarm_tgid TEXT, gswarm_peer_ids TEXT, gswarm_stats TEXT, \
    gswarm_updated INTEGER, gswarm_alert INTEGER DEFAULT 1); \
    INSERT INTO nodes VALUES ('old-1', '198.51.100.4', 1700000000, 'UP', 'UP', 'fsn1', 'UP', '0xAb', \
    NULL, '[\"p\"]', NULL, NULL, 0);";

#[test]
fn an_originals_file_is_refused_by_the_hub_and_taken_over_by_import() {
    let mut hub = Hub::with(&[]);
    let original = hub.program.path("monitor.db");
    Connection::open(&original).unwrap().execute_batch(ORIGINAL).unwrap();
    let mut refused = Hub::with(&[("DB_PATH", &original)]);
    let ended = refused.program.run(&["hub"]);
    ended.is_refused(69, &format!("lamda-node hub import {original}"));
    let itself = refused.program.run(&["hub", "import", &original]);
    itself.is_refused(64, "DB_PATH names");
    refused.program.set("DB_PATH", &refused.program.path("hub.db"));
    let done = hub.program.run(&["hub", "import", &original]).succeeds().stdout();
    assert!(done.starts_with("1 node taken over"), "{done}");
    hub.begin();
    let node = &hub.nodes()[0];
    assert_eq!((&node["node_id"], &node["last_seen"]), (&json!("old-1"), &json!(1_700_000_000)));
    assert_eq!((&node["meta"], &node["last_state"]), (&json!("fsn1"), &json!("UP")));
    let gswarm = json!({"eoa": "0xAb", "peer_ids": ["p"], "stats": null, "updated": null,
        "tgid": null, "alert": false});
    assert_eq!(node["gswarm"], gswarm);
    hub.program.run(&["hub", "import", &original]).is_refused(1, "another hub uses");
    let other = hub.program.write("text", "no database, but a long enough text");
    refused.program.run(&["hub", "import", &other]).is_refused(1, "no database of the original");
}

#[test]
fn a_copy_that_was_made_while_the_hub_runs_serves_as_its_database() {
    let hub = Hub::start(&[]);
    for number in 0..50 {
        hub.beat(&format!("node-{number:02}"), "UP");
    }
    let copy = hub.program.path("copy.db");
    hub.program.run(&["hub", "backup", &copy]).succeeds();
    hub.beat("later", "UP");
    hub.program.run(&["hub", "backup", &copy]).is_refused(64, "exists already");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let restored = Hub::start(&[("DB_PATH", &copy)]);
    assert_eq!(restored.names().len(), 50, "as of the moment of the copy");
    restored.beat("node-00", "DOWN");
    let nothing = Hub::with(&[]);
    let refused = nothing.program.run(&["hub", "backup", &nothing.program.path("x.db")]);
    refused.is_refused(1, "hub.db can't be used");
}

#[test]
fn a_second_hub_on_the_same_file_or_the_same_port_says_so_and_ends() {
    let hub = Hub::start(&[]);
    let file = hub.program.path("data/hub.db");
    let same_file = Hub::with(&[("DB_PATH", &file)]);
    same_file.program.run(&["hub"]).is_refused(69, &format!("another hub uses {file}"));
    let same_port = Hub::with(&[("HUB_LISTEN", &hub.at)]);
    let ended = same_port.program.run(&["hub"]);
    ended.is_refused(69, &format!("HUB_LISTEN={} can't be listened on", hub.at));
    let unset = Hub::with(&[("SHARED_SECRET", ""), ("HUB_PUBLIC", "some")]);
    let ended = unset.program.run(&["hub"]);
    ended.is_refused(64, "SHARED_SECRET: it is not set");
    assert!(ended.stderr().contains("HUB_PUBLIC: \"some\""), "{}", ended.stderr());
}

#[test]
fn a_hub_that_is_told_to_end_does_so_with_0_and_knows_its_nodes_afterwards() {
    let mut hub = Hub::start(&[]);
    hub.beat("a", "UP");
    let pid = rustix::process::Pid::from_child(hub.child());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = eventually("it ends", PATIENCE, || hub.child().try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", hub.log());
    hub.begin();
    assert_eq!(hub.names(), ["a"]);
    assert!(hub.log().contains("knows 1 node") && hub.log().contains("nobody watched for"));
}

#[test]
fn rules_are_checked_and_a_mistake_is_named_with_its_line() {
    let hub = Hub::with(&[]);
    let good =
        "[[rule]]\nname = \"down\"\nwhen = { standing = [\"down\"] }\nseverity = \"critical\"\n";
    let file = hub.program.write("hub.toml", good);
    let listed = hub.program.run(&["hub", "rules", "check", &file]).succeeds().stdout();
    assert_eq!(listed, "down: critical, to all channels\n");
    let file = hub.program.write("hub.toml", &format!("{good}hold = 5\n"));
    let told = "line 5, rule \"down\", hold: unknown field `hold`";
    hub.program.run(&["hub", "rules", "check", &file]).is_refused(64, told);
    let with_rules = Hub::with(&[("HUB_RULES", &file)]);
    with_rules.program.run(&["hub"]).is_refused(64, told);
}
