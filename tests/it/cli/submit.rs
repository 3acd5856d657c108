//! A job from `submit` to its end, with `watch`, `logs` and `cancel`.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::network::{Network, events};
use crate::support::program::{ACCOUNT, Program};
use crate::support::tools::eventually;

#[test]
fn a_job_goes_from_submit_to_a_verified_output_and_everybody_can_read_about_it() {
    let mut network = Network::start();
    let program = &network.program;
    let file = program.write("input.txt", "hello\n");
    // A symbolic link as the input stands for its target.
    let input = program.path("latest.txt");
    std::os::unix::fs::symlink(&file, &input).expect("a link");
    let out = program.path("out");
    let submitted = program
        .run(&[
            "submit",
            "--image",
            "img",
            "--input",
            &input,
            "--job-id",
            "job-1",
            "--fetch",
            &out,
            "--output-path",
            "/output/result.txt",
            "--json",
        ])
        .succeeds();
    let told = submitted.objects();
    let stages: Vec<&str> = events(&told, "status")
        .into_iter()
        .filter_map(|event| event["status"]["stage"].as_str())
        .collect();
    assert_eq!(stages, ["accepted", "pulling", "fetching", "running", "uploading", "completed"]);
    assert_eq!(events(&told, "submitted")[0]["signed_by"], ACCOUNT);
    assert_eq!(events(&told, "receipt")[0]["valid"], true, "{told:?}");
    let fetched = events(&told, "fetched")[0];
    let path = fetched["path"].as_str().expect("the output's path");
    assert_eq!(path, Path::new(&out).join("result.txt").to_str().expect("UTF-8"));
    let output = std::fs::read_to_string(path).expect("the output is there");
    assert!(output.ends_with("hello\n"), "the simulated job copies its input: {output}");
    assert!(!events(&told, "log").is_empty());
    let result = events(&told, "result")[0];
    assert_eq!(result["output_cid"], fetched["cid"]);

    let watched = program.run(&["watch", "job-1", "--json"]).succeeds().objects();
    assert_eq!(watched.len(), stages.len());
    assert!(watched.iter().enumerate().all(|(i, status)| status["seq"] == i + 1), "{watched:?}");
    let logs = program.run(&["logs", "job-1"]).succeeds().stdout();
    let live: Vec<&str> =
        events(&told, "log").into_iter().filter_map(|event| event["line"].as_str()).collect();
    assert_eq!(logs.lines().collect::<Vec<_>>(), live, "the kept log is the live one");

    let late = program.run(&["cancel", "job-1"]);
    assert_eq!(late.code(), 1);
    assert!(late.stderr().contains("not cancelled: too_late"), "{}", late.stderr());

    eventually("the node is registered", Duration::from_secs(20), || {
        let shown = program.run(&["contract", "show", "--json"]).objects();
        (shown.first()?["node"]["registered"] == true).then_some(())
    });
    terminate(&network.node);
    let ended = eventually("the node ends", Duration::from_secs(20), || {
        network.node.try_wait().expect("the node can be waited for")
    });
    assert_eq!(ended.code(), Some(0), "{}", network.node_log());
    let digits = Anvil::key_hex(0).trim_start_matches("0x");
    assert!(!network.node_log().contains(digits), "the key is in the log");
}

/// Sends SIGTERM, as a service manager does.
fn terminate(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn a_job_that_the_node_refuses_ends_submit_with_1_and_says_why() {
    let network = Network::start();
    let program = &network.program;
    let ended =
        program.run(&["submit", "--image", "img", "--gpus", "9", "--job-id", "big", "--follow"]);
    assert_eq!(ended.code(), 1, "{}", ended.both());
    let text = ended.stdout();
    assert!(text.contains("no_node_fits") && text.contains("job big ended: rejected"), "{text}");
    let seen = program.run(&["watch", "big"]);
    assert_eq!(seen.code(), 1);
    // nats-py reads the same.
    let body = "sub = await js.subscribe('jobs.status.*.big')\n\
                msg = await sub.next_msg(timeout=10)\n\
                print(json.loads(msg.data)['status'])";
    assert_eq!(network.nats.python(body, &[]), "rejected");
}

#[test]
fn submitting_without_following_ends_once_the_queue_has_the_job() {
    let nats = Nats::start();
    let program = Program::with(&[("NATS_URL", &nats.url()), ("AGENT_ADDRESS", ACCOUNT)]);
    let told = program.run(&["submit", "--image", "img", "--json", "--", "sh", "-c", "true"]);
    let told = told.succeeds().objects();
    assert_eq!(told[0]["event"], "submitted");
    assert_eq!(told[0]["target"], format!("dispatch.{ACCOUNT}"));
    let body = "sub = await js.pull_subscribe('jobs.dispatch.*', 'x')\n\
                msg = (await sub.fetch(1, timeout=10))[0]\n\
                print(msg.subject, msg.data.decode())";
    let line = nats.python(body, &[]);
    let (subject, body) = line.split_once(' ').expect("a subject and a body");
    assert_eq!(subject, format!("jobs.dispatch.{ACCOUNT}"));
    let body: Value = serde_json::from_str(body).expect("a body of JSON");
    assert_eq!(body["job_id"], told[0]["job_id"]);
    assert_eq!(body["image_name"], "img");
    assert_eq!(body["command"], serde_json::json!(["sh", "-c", "true"]));
    assert!(body.get("signature").is_none());
}
