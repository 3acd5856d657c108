//! Codes with which nodes get a secret of their own.

use std::process::Command;

use serde_json::{Value, json};

use super::process::{ADMIN, Hub, PATIENCE, SECRET, bearer};
use crate::support::program::Ended;
use crate::support::tools::{eventually, run_with_input};

/// A code of `hub enroll`, for this node or for any.
fn code(hub: &Hub, node: Option<&str>) -> String {
    let mut args = vec!["hub", "enroll"];
    args.extend(node);
    let ended = hub.program.run(&args).succeeds();
    assert!(ended.stderr().contains("good once within 10 min"), "{}", ended.stderr());
    ended.stdout().trim().to_owned()
}

fn enroll(hub: &Hub, code: &str, node: &str) -> (u16, Value) {
    let body = json!({"code": code, "node_id": node}).to_string();
    let answer = hub.ask("POST /api/enroll", &[], &body);
    (answer.status, answer.json())
}

fn beat(hub: &Hub, secret: &str, node: &str) -> u16 {
    hub.post(secret, &json!({"node_id": node}).to_string()).status
}

#[test]
fn a_code_gets_a_secret_once_and_from_then_on_nothing_else_speaks_for_the_node() {
    let hub = Hub::start(&[]);
    let code = code(&hub, None);
    let written = code.to_lowercase().replace('-', " ");
    // As anybody without our agent would.
    let url = format!("http://{}/api/enroll", hub.at);
    let body = json!({"code": written, "node_id": "rack-1"}).to_string();
    let curl = Ended(run_with_input(Command::new("curl").args(["-sS", "-d", &body, &url]), ""));
    let answer: Value = serde_json::from_str(&curl.succeeds().stdout()).expect("JSON");
    let secret = answer["secret"].as_str().expect("a secret");
    assert!(answer["node_id"] == "rack-1" && secret.len() >= 32, "{answer}");
    assert_eq!(beat(&hub, secret, "rack-1"), 200);
    assert_eq!(beat(&hub, SECRET, "rack-1"), 401, "the shared one is not taken any more");
    assert_eq!(beat(&hub, secret, "rack-2"), 401, "and this one for nobody else");
    let (status, refused) = enroll(&hub, &code, "rack-3");
    assert_eq!(status, 401);
    assert!(refused["detail"].as_str().unwrap().contains("good once"), "{refused}");
    for name in ["data/hub.db", "data/hub.db-wal", "log"] {
        let bytes = std::fs::read(hub.program.path(name)).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        let plain = code.replace('-', "");
        assert!(!holds(secret) && !holds(&plain) && !holds(&code), "{name}");
    }
}

#[test]
fn a_code_for_a_node_is_for_that_one_and_replaces_its_secret() {
    let hub = Hub::start(&[]);
    let first = enroll(&hub, &code(&hub, None), "rack-1").1;
    let anybodys = code(&hub, None);
    let (status, refused) = enroll(&hub, &anybodys, "rack-1");
    assert_eq!(status, 409, "who has a code doesn't get another's name: {refused}");
    let own = code(&hub, Some("rack-1"));
    assert_eq!(enroll(&hub, &own, "rack-2").0, 403);
    let (status, second) = enroll(&hub, &own, "rack-1");
    assert_eq!(status, 200);
    assert_eq!(beat(&hub, first["secret"].as_str().unwrap(), "rack-1"), 401);
    assert_eq!(beat(&hub, second["secret"].as_str().unwrap(), "rack-1"), 200);
    hub.beat("rack-3", "UP");
    assert_eq!(
        enroll(&hub, &anybodys, "rack-3").0,
        409,
        "nor that of one that beats by the shared secret"
    );
    assert_eq!(enroll(&hub, &anybodys, "rack-2").0, 200, "what was refused used no code up");
    for (body, status) in [("{", 422), ("{}", 422), (r#"{"code":"x","node_id":" "}"#, 400)] {
        assert_eq!(hub.ask("POST /api/enroll", &[], body).status, status, "{body}");
    }
}

#[test]
fn who_guesses_codes_waits_and_a_right_one_from_there_is_taken() {
    let hub = Hub::start(&[]);
    let statuses: Vec<u16> =
        (0..25).map(|number| enroll(&hub, &format!("AAAA-{number}"), "x").0).collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses[20..].iter().all(|status| *status == 429), "{statuses:?}");
    assert_eq!(enroll(&hub, &code(&hub, None), "x").0, 200);
}

#[test]
fn the_agent_changes_a_code_for_a_secret_and_keeps_it_where_nobody_else_reads_it() {
    let hub = Hub::start(&[]);
    let agent = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agents/linux/lamda-heartbeat.sh");
    let text = format!(
        "# mine\nSERVER_URL=http://{}/\nexport SHARED_SECRET='{SECRET}'\nMETA='a b'\nIP_CMD=\n\
         IP_CMD_V4=\nCHECK_PORT=false",
        hub.at
    );
    let file = hub.program.write("agent.env", &text);
    let run = |args: &[&str], input: &str| {
        let mut command = Command::new("sh");
        command.arg(agent).args(args).env_clear().env("ENV_FILE", &file);
        command.env("PATH", "/usr/bin:/bin").env("NODE_ID", "rack 1");
        Ended(run_with_input(&mut command, input))
    };
    run(&["--enroll", "AAAA-AAAA"], "").is_refused(1, "good once");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "what failed changes nothing");
    run(&["--enroll", "x\"}"], "").is_refused(1, "that is no code");
    run(&["--enroll"], "").is_refused(1, "it is: ");
    run(&["--enroll", "-"], &format!("{}\n", code(&hub, None))).succeeds();
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("# mine\nSERVER_URL=") && kept.contains("META='a b'\n"), "{kept}");
    assert!(!kept.contains(SECRET) && kept.contains("\nNODE_ID='rack 1'\n"), "{kept}");
    assert_eq!(kept.matches("SHARED_SECRET=").count(), 1, "{kept}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    run(&[], "").succeeds();
    assert_eq!(hub.names(), ["rack 1"]);
    assert_eq!(beat(&hub, SECRET, "rack 1"), 401);
}

#[test]
fn a_deleted_node_has_no_secret_left_and_may_enroll_again() {
    let hub = Hub::start(&[]);
    let secret = enroll(&hub, &code(&hub, None), "rack-1").1["secret"].clone();
    assert_eq!(beat(&hub, secret.as_str().unwrap(), "rack-1"), 200);
    let body = json!({"node_id": "rack-1"}).to_string();
    assert_eq!(hub.ask("POST /api/admin/delete", &[&bearer(ADMIN)], &body).status, 200);
    assert_eq!(beat(&hub, secret.as_str().unwrap(), "rack-1"), 401);
    eventually("it enrolls", PATIENCE, || {
        (enroll(&hub, &code(&hub, None), "rack-1").0 == 200).then_some(())
    });
}
