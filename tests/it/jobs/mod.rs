//! Jobs from end to end: published by nats-py, run by the real program in a real engine, read back from
//! the stream, the store and the chain.

mod bad_input;
mod control;
mod crash;
mod sandbox;
mod signed;
mod start;

use lamda_node::clock::{Clock as _, SystemClock};
use serde_json::json;

use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::world::{JWT, World, last, shell, stages};

#[tokio::test]
async fn the_seeds_message_becomes_a_cid_and_a_beat_on_the_chain() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let input = world.pin(b"hello, node").await;
    // The four keys of the smallest job, and a command in place of the image's own.
    let script = "tr a-z A-Z < /input/input > /path/to/output/data";
    world.publish_raw(
        &json!({
            "job_id": "seed-1", "image_name": "busybox:test", "input_file_cid": input,
            "output_path": "/path/to/output/data",
            "command": ["/bin/sh", "-c", format!("mkdir -p /path/to/output && {script}")],
        })
        .to_string(),
    );
    let statuses = world.outcome("seed-1");
    assert_eq!(stages(&statuses), "accepted pulling fetching running uploading completed");
    let end = last(&statuses);
    for key in ["agent_address", "job_id", "status", "output_cid", "timestamp"] {
        assert!(end[key].is_string(), "{key} in {end}");
    }
    assert_eq!(world.content(end["output_cid"].as_str().expect("a CID")).await, b"HELLO, NODE");
    assert_eq!(end["receipt"]["message"]["outputCid"], end["output_cid"]);
    assert_eq!(end["receipt"]["message"]["inputCid"], input);
    agent.wait_for("heartbeat sent");
    let (contract, address) = (world.contract.to_string(), World::agent_address().to_string());
    let call = "providers(address)(string,uint256,uint256,bool)";
    let said = world.anvil.cast(&["call", &contract, call, &address]);
    assert!(said.contains("\"CPU\"") && said.contains("true"), "{said}");
    world.wait_until_clean().await;
}

/// An image whose programs run as an unprivileged user.
async fn image_of_a_user(world: &World) {
    let client = world.engine.client();
    let body = bollard::models::ContainerCreateBody {
        image: Some("busybox:test".to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        ..Default::default()
    };
    let options = None::<bollard::query_parameters::CreateContainerOptions>;
    let id = client.create_container(options, body).await.expect("a container").id;
    let commit = bollard::query_parameters::CommitContainerOptionsBuilder::default()
        .container(&id)
        .repo("busybox")
        .tag("user")
        .changes("USER 1000:1000");
    let config = bollard::models::ContainerConfig::default();
    client.commit_container(commit.build(), config).await.expect("an image");
    let remove = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true);
    client.remove_container(&id, Some(remove.build())).await.expect("it goes");
}

#[tokio::test]
async fn a_job_of_any_user_reads_and_runs_its_inputs_whatever_mask_the_node_has() {
    let world = World::start().await;
    image_of_a_user(&world).await;
    let agent = world.start_agent_under_mask(&[("JOB_LOCAL_IMAGES", "busybox:*")]);
    agent.wait_for("waiting for jobs on jobs.dispatch");
    let run = world.pin(b"#!/bin/sh\ncat /input/more/data; id -u\n").await;
    let data = world.pin(b"data\n").await;
    let mut job = shell("/input/input > /output/output");
    job["image_name"] = json!("busybox:user");
    job["input_file_cid"] = json!(run);
    job["inputs"] = json!([{"cid": data, "path": "/input/more/data"}]);
    world.publish("masked", &job);
    let statuses = world.outcome("masked");
    let end = last(&statuses);
    assert_eq!(end["status"], "completed", "{end}");
    let output = world.content(end["output_cid"].as_str().expect("a CID")).await;
    assert_eq!(String::from_utf8_lossy(&output), "data\n1000\n");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn aliases_and_the_lower_case_subject_are_understood() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let id = format!("0x{}", "ab".repeat(32));
    let input = world.pin(b"x").await;
    let body = json!({"jobId": id, "dockerImage": "busybox:test", "inputFileCID": input,
        "command": ["/bin/sh", "-c", "cp /input/input /output/output"]});
    let subject = format!("jobs.dispatch.{}", World::agent_address().lower_hex());
    let script = "await js.publish(args[0], args[1].encode())";
    world.nats.python(script, &[&subject, &body.to_string()]);
    assert_eq!(last(&world.outcome(&id))["status"], "completed");
}

#[tokio::test]
async fn the_container_sees_what_the_protocol_promises() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let (first, second) = (world.pin(b"first").await, world.pin(b"second").await);
    let script = "
        cat $INPUT_PATH /input/deep/weights > /output/a
        env | sort > /output/env
        (echo x > /input/new) 2>/dev/null && echo writable >> /output/a
        mkdir /output/sub && id -u > /output/sub/id";
    world.publish(
        "view",
        &json!({
            "command": ["/bin/sh", "-ec", script], "input_file_cid": first,
            "inputs": [{"cid": second, "path": "/input/deep/weights"}],
            "env": {"MINE": "1", "JOB_ID": "forged", "NVIDIA_VISIBLE_DEVICES": "all"},
        }),
    );
    let statuses = world.outcome("view");
    let cid = last(&statuses)["output_cid"].as_str().expect("an output").to_owned();
    assert_eq!(world.content(&format!("{cid}/a")).await, b"firstsecond");
    let env = String::from_utf8(world.content(&format!("{cid}/env")).await).expect("text");
    let own = [
        "JOB_ID=view",
        "INPUT_DIR=/input",
        "INPUT_PATH=/input/input",
        "OUTPUT_DIR=/output",
        "OUTPUT_PATH=/output/output",
        "NVIDIA_VISIBLE_DEVICES=void",
        "MINE=1",
    ];
    for line in own.into_iter().chain([format!("INPUT_CID={first}").as_str()]) {
        assert!(env.lines().any(|found| found == line), "{line} is not in\n{env}");
    }
    assert!(!env.contains("forged") && !env.contains("VISIBLE_DEVICES=all"), "{env}");
}

#[tokio::test]
async fn a_second_delivery_is_answered_again_and_another_body_is_refused() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let mut heard = world.nats.python_beside(
        "sub = await nc.subscribe('agent.status')
print('ready')
async for m in sub.messages:
    s = json.loads(m.data)
    if s['status'] != 'processing':
        print(s['job_id'], s['seq'], s['status'], s.get('reason_code'))",
        &[],
    );
    assert_eq!(heard.line(), "ready");
    let job = shell("echo x > /output/output");
    world.publish("twice", &job);
    assert_eq!(heard.line(), "twice 5 completed None");
    world.publish("twice", &job);
    assert_eq!(heard.line(), "twice 5 completed None");
    world.publish("twice", &shell("echo y > /output/output"));
    let line = heard.line();
    assert!(
        line.starts_with("invalid-") && line.ends_with("1 rejected duplicate_job_id"),
        "{line}"
    );
    assert_eq!(world.outcome("twice").len(), 5);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_cancelled_job_stops_and_says_so() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("long", &shell("trap 'exit 0' TERM; sleep 1000 & wait"));
    agent.wait_for("job long: running");
    let control = format!("jobs.control.{}", World::agent_address());
    let script = "print((await nc.request(args[0], args[1].encode(), timeout=30)).data.decode())";
    let cancel = json!({"action": "cancel", "job_id": "long"}).to_string();
    assert_eq!(world.nats.python(script, &[&control, &cancel]), r#"{"ok":true}"#);
    let statuses = world.outcome("long");
    assert_eq!(last(&statuses)["status"], "cancelled");
    assert_eq!(last(&statuses)["reason_code"], "cancelled");
    let again = world.nats.python(script, &[&control, &cancel]);
    assert!(again.contains(r#""ok":false,"reason_code":"too_late""#), "{again}");
    let drain = world.nats.python(script, &[&control, r#"{"action":"drain"}"#]);
    assert!(drain.contains("not_allowed"), "{drain}");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_of_a_pool_is_run_by_an_agent_that_serves_it() {
    let world = World::start().await;
    let _agent = world.agent(&[("AGENT_POOLS", "cpu")]);
    let mut job = shell("echo x > /output/output");
    job["job_id"] = "pooled".into();
    job["image_name"] = "busybox:test".into();
    let script = "await js.publish('jobs.pool.cpu', args[0].encode())";
    world.nats.python(script, &[&job.to_string()]);
    assert_eq!(last(&world.outcome("pooled"))["status"], "completed");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_whose_deadline_comes_while_it_waits_is_never_started() {
    let world = World::start().await;
    let agent = world.agent(&[("JOB_SLOTS", "1")]);
    world.publish("first", &shell("sleep 600; echo x > /output/output"));
    agent.wait_for("job first: running");
    let mut job = shell("echo x > /output/output");
    let deadline = SystemClock.now().plus(std::time::Duration::from_secs(2));
    job["deadline"] = deadline.to_string().into();
    world.publish("second", &job);
    let statuses = world.outcome("second");
    assert_eq!(last(&statuses)["reason_code"], "deadline_passed");
    assert_eq!(last(&world.statuses("first"))["stage"], "running", "it was told at its deadline");
    assert!(!stages(&statuses).contains("running"));
}

#[tokio::test]
async fn a_gpu_job_gets_its_own_card_and_the_largest_is_registered() {
    let world = World::start().await;
    let [small, large] = GPUS;
    let nvml = FakeNvml::build(&format!(
        "driver 550.54.15\ncuda 12040\ngpu {small} 25769803776 0 NVIDIA RTX 3090\n\
         gpu {large} 85520809984 0 NVIDIA H100 80GB HBM3\n"
    ));
    let library = nvml.library().display().to_string();
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", &library)]);
    world.publish(
        "gpu",
        &shell("ls /dev | grep 'nvidia[0-9]' > /output/output; echo $NVIDIA_VISIBLE_DEVICES"),
    );
    let end = last(&world.outcome("gpu")).clone();
    assert_eq!(end["status"], "completed", "{end}");
    // The job gets the smallest card that fits, and sees nothing of the other one.
    assert_eq!(end["receipt"]["message"]["gpuUuids"], small);
    assert_eq!(world.content(end["output_cid"].as_str().expect("a CID")).await, b"nvidia0\n");
    let log = world.content(end["log_cid"].as_str().expect("a log")).await;
    assert_eq!(String::from_utf8_lossy(&log).trim(), small);
    agent.wait_for("heartbeat sent");
    let (contract, address) = (world.contract.to_string(), World::agent_address().to_string());
    let call = "providers(address)(string,uint256,uint256,bool)";
    let said = world.anvil.cast(&["call", &contract, call, &address]);
    assert!(said.contains("NVIDIA H100 80GB HBM3") && said.contains("81559"), "{said}");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn no_secret_is_ever_logged_or_shown_to_a_container() {
    let world = World::start().await;
    let agent = world.agent(&[("LOG_LEVEL", "trace")]);
    world.publish("spy", &shell("env; cat /proc/1/environ > /output/output; cat /proc/1/cmdline"));
    let end = last(&world.outcome("spy")).clone();
    agent.wait_for("heartbeat sent");
    let mut seen = agent.log().into_bytes();
    for key in ["output_cid", "log_cid"] {
        seen.extend(world.content(end[key].as_str().expect("a CID")).await);
    }
    let seen = String::from_utf8_lossy(&seen).to_lowercase();
    let key = crate::support::anvil::Anvil::key_hex(1).trim_start_matches("0x").to_lowercase();
    assert!(!seen.contains(&key), "the key was shown");
    assert!(!seen.contains(JWT), "the pinning key was shown");
}
