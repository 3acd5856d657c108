//! The agent in shell, as a timer calls it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::process::{Hub, PATIENCE, SECRET};
use crate::support::program::Ended;
use crate::support::tools::{Running, eventually, run_with_input, tool};

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agents/linux/lamda-heartbeat.sh");

/// Runs the agent with a file of settings and a folder whose programs go before the system's.
fn beat(env_file: &str, programs: &str) -> Ended {
    let mut command = Command::new("sh");
    command.arg(AGENT).env_clear().env("ENV_FILE", env_file);
    command.env("PATH", format!("{programs}:/usr/bin:/bin"));
    Ended(run_with_input(&mut command, ""))
}

/// Writes a program of shell.
fn script(path: &str, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("its mode");
}

/// A file of settings without anything that asks the internet.
fn settings(hub: &Hub, more: &str) -> String {
    let text = format!(
        "# the original's names\r\nSERVER_URL=http://{}/\nexport SHARED_SECRET='{SECRET}'\n\
         NODE_ID=\"node 1\"\nMETA=fsn1\nCHECK_PORT=false\nIP_CMD=\nIP_CMD_V4=\n\
         ALLOW_REGEX={}/bin/rl-swarm\n{more}",
        hub.at,
        hub.program.path("")
    );
    hub.program.write("agent.env", &text.replace("//bin", "/bin"))
}

/// A folder for programs, and the program that the agent looks for.
fn programs(hub: &Hub) -> String {
    let bin = hub.program.path("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::fs::copy(tool("sleep"), format!("{bin}/rl-swarm")).expect("a program");
    bin
}

#[test]
fn the_agent_tells_that_nothing_runs_and_then_that_it_does() {
    let hub = Hub::start(&[]);
    let (env_file, bin) = (settings(&hub, ""), programs(&hub));
    beat(&env_file, &bin).succeeds();
    let node = &hub.nodes()[0];
    assert_eq!((&node["node_id"], &node["computed"]), (&json!("node 1"), &json!("DOWN")));
    assert_eq!(node["meta"], json!("fsn1,reason=no_screen_no_proc"));
    let _program = Running::start(Command::new(format!("{bin}/rl-swarm")).arg("600"));
    beat(&env_file, &bin).succeeds();
    let node = &hub.nodes()[0];
    assert_eq!((&node["computed"], &node["meta"]), (&json!("UP"), &json!("fsn1")));
    let env_file = settings(&hub, "CHECK_PORT=true\nPORT=1\n");
    beat(&env_file, &bin).succeeds();
    let reason = json!("fsn1,reason=port_closed_1");
    assert_eq!(hub.nodes()[0]["meta"], reason, "the last of two lines counts");
}

#[test]
fn the_agent_looks_into_the_session_at_the_port_and_at_the_log() {
    let hub = Hub::start(&[]);
    let bin = programs(&hub);
    script(&format!("{bin}/screen"), "printf '\\t4242.gensyn\\t(Detached)\\n'");
    let reason = |more: &str| {
        let env_file = settings(&hub, "").clone();
        let text = std::fs::read_to_string(&env_file).unwrap().replace("CHECK_PORT=false\n", more);
        beat(&hub.program.write("agent.env", &text), &bin).succeeds();
        hub.nodes()[0]["meta"].as_str().unwrap().to_owned()
    };
    let mut command = Command::new(format!("{bin}/rl-swarm"));
    let outside = Running::start(command.arg("600"));
    assert_eq!(reason("CHECK_PORT=false\n"), "fsn1,reason=empty_screen_no_runtime");
    let _inside = Running::start(command.env("STY", "4242.gensyn"));
    drop(outside);
    assert_eq!(reason("CHECK_PORT=false\n"), "fsn1");
    let closed = crate::support::tools::free_port();
    let port = |port: &str| format!("CHECK_PORT=true\nPORT={port}\n");
    assert_eq!(reason(&port(&closed.to_string())), format!("fsn1,reason=port_closed_{closed}"));
    assert_eq!(reason(&port(hub.at.split_once(':').unwrap().1)), "fsn1");
    let log = |age: &str| {
        format!("CHECK_PORT=false\nLOG_FILE={}\nLOG_MAX_AGE={age}\n", hub.program.path("log"))
    };
    assert_eq!(reason(&log("3600")), "fsn1");
    assert_eq!(reason("CHECK_PORT=false\nLOG_FILE=/nonexistent\n"), "fsn1,reason=stale_log");
}

#[test]
fn a_file_of_settings_is_read_and_not_run_and_the_secret_stands_in_no_command_line() {
    let hub = Hub::start(&[]);
    let bin = programs(&hub);
    let ran = hub.program.path("ran");
    let hostile = format!(
        "GSWARM_EOA=$(touch {ran})\nGSWARM_TGID=`touch {ran}`\nPATH=/nonexistent\ntouch {ran}\n\
         GSWARM_PEER_IDS=a\"b\\c,d; touch {ran}\n"
    );
    let seen = hub.program.path("seen");
    let real = tool("curl");
    script(
        &format!("{bin}/curl"),
        &format!("printf '%s\\n' \"$@\" >>{seen}; exec {} \"$@\"", real.display()),
    );
    beat(&settings(&hub, &hostile), &bin).succeeds();
    assert!(!Path::new(&ran).exists(), "nothing of the file is run");
    let node = &hub.nodes()[0];
    assert_eq!(node["gswarm"]["eoa"], json!(format!("$(touch {ran})")));
    assert_eq!(node["gswarm"]["peer_ids"][0], json!("a\"b\\c"));
    let seen = std::fs::read_to_string(&seen).expect("curl was called");
    assert!(seen.contains("/api/heartbeat") && !seen.contains(SECRET), "{seen}");
}

#[test]
fn an_agent_whose_beat_is_not_taken_says_so_and_tries_again_while_the_hub_starts() {
    let mut hub = Hub::with(&[]);
    let bin = programs(&hub);
    let env_file = settings(&hub, "");
    let wrong =
        hub.program.write("wrong.env", "SERVER_URL=http://127.0.0.1:1\nSHARED_SECRET=x y\n");
    beat(&wrong, &bin).is_refused(1, "SHARED_SECRET has a space");
    let late = std::thread::spawn(move || beat(&env_file, &bin));
    hub.begin();
    late.join().expect("it ends").succeeds();
    eventually("the beat is there", PATIENCE, || (hub.names() == ["node 1"]).then_some(()));
    let env_file = settings(&hub, "");
    let text = std::fs::read_to_string(&env_file).unwrap().replace(SECRET, "wrong-secret");
    let ended = beat(&hub.program.write("agent.env", &text), &hub.program.path("bin"));
    ended.is_refused(1, "did not take the beat of node 1");
    assert!(ended.stderr().contains("401"), "{}", ended.stderr());
}
