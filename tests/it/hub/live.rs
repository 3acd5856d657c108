//! The hub beside a real node: what the node says on NATS and on the chain is what the hub shows.

use std::time::Duration;

use serde_json::Value;

use super::process::Hub;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

fn hub_beside(world: &World) -> Hub {
    Hub::start(&[
        ("NATS_URL", &world.nats.url()),
        ("OPBNB_RPC_URL", &world.anvil.rpc_url),
        ("REPUTATION_CONTRACT_ADDRESS", &world.contract.to_string()),
        ("HEARTBEAT_INTERVAL", "60"),
    ])
}

fn get(hub: &Hub, path: &str) -> Value {
    let answer = hub.ask(&format!("GET {path}"), &[], "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_its_job_and_its_events_are_shown_also_those_of_before_the_hub() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    // Nobody listens yet: the streams keep it.
    world.publish("before", &shell("echo one > /output/output"));
    world.outcome("before");
    let mut hub = hub_beside(&world);
    let name = World::agent_address().lower_hex();
    let node = eventually("the node is up by NATS and by the chain", PATIENCE, || {
        let fleet = get(&hub, "/api/fleet");
        let row =
            fleet["rows"].as_array()?.iter().find(|row| row["name"] == name.as_str())?.clone();
        (row["standing"] == "up" && row["chain"].is_u64()).then_some(row)
    });
    assert!(node["nats"].is_u64() && node["chain_block"].is_u64(), "{node}");
    let ended = |hub: &Hub, job: &str| {
        let path = format!("/api/jobs?node={name}");
        let jobs = get(hub, &path);
        let jobs = jobs.as_array().or_else(|| jobs["rows"].as_array())?.clone();
        jobs.into_iter().find(|it| it["job"] == job && it["status"] == "completed")
    };
    eventually("the job of before is shown", PATIENCE, || ended(&hub, "before"));

    // The hub is away while another job runs, and is killed without a word.
    hub.kill();
    world.publish("meanwhile", &shell("echo two > /output/output"));
    world.outcome("meanwhile");
    hub.begin();
    eventually("the job of meanwhile is shown", PATIENCE, || ended(&hub, "meanwhile"));
    let events = eventually("its events are shown", PATIENCE, || {
        let events = get(&hub, "/api/events");
        let rows = events["rows"].as_array()?.clone();
        let is_end =
            |row: &&Value| row["job"] == "meanwhile" && row["body"]["event_type"] == "completed";
        (rows.iter().filter(is_end).count() > 0).then_some(rows)
    });
    let ends = events.iter().filter(|row| row["body"]["event_type"] == "completed").count();
    assert_eq!(ends, 2, "each event is kept once: {events:?}");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_down_and_without_nats_nobody_is_called_silent() {
    let mut world = World::start().await;
    let mut agent = world.agent(&[]);
    let hub = hub_beside(&world);
    let name = World::agent_address().lower_hex();
    let standing = |hub: &Hub| {
        let fleet = get(hub, "/api/fleet");
        let row =
            fleet["rows"].as_array()?.iter().find(|row| row["name"] == name.as_str())?.clone();
        row["chain"].is_u64().then(|| row["standing"].as_str().unwrap_or_default().to_owned())
    };
    eventually("it is up", PATIENCE, || standing(&hub).filter(|it| it == "up"));
    agent.kill();
    let silent = PATIENCE + Duration::from_secs(90);
    eventually("it is down, though its last heartbeat is fresh", silent, || {
        standing(&hub).filter(|it| it == "down")
    });
    eventually("it is an incident", PATIENCE, || {
        let alerts = get(&hub, "/api/alerts");
        (alerts["open"][0]["rule"] == "node-down").then_some(())
    });
    world.nats.kill();
    eventually("nobody can say", PATIENCE, || standing(&hub).filter(|it| it == "not_watched"));
    let alerts = get(&hub, "/api/alerts");
    assert_eq!(alerts["open"][0]["rule"], "node-down", "it is neither over nor another: {alerts}");
    assert_eq!(alerts["open_total"], 1, "{alerts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_recomputes_what_the_contract_says_of_each_node() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("one", &shell("echo one > /output/output"));
    world.outcome("one");
    let rebuilt = || {
        let mut command = world.command(&["hub", "rebuild", "--from-chain", "--check"]);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let line = eventually("the node is on the chain", PATIENCE, || {
        let (code, lines) = rebuilt();
        (code == Some(0) && !lines.is_empty()).then_some(lines)
    });
    let row: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    assert_eq!(row["node"], World::agent_address().to_string(), "{row}");
    assert!(row["since_s"].as_u64() > Some(0) && row["score"].is_u64(), "{row}");
    let block = row["block"].to_string();
    let of_block = || {
        let mut command = world.command(&["hub", "rebuild", "--from-chain", "--block", &block]);
        command.output().expect("it runs").stdout
    };
    assert_eq!(of_block(), of_block(), "the same bytes");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_the_chain_hears_is_a_zombie_and_none_once_nats_hears_it_again() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    agent.wait_for("heartbeat sent");
    let hub = hub_beside(&world);
    let name = World::agent_address().lower_hex();
    let row = |hub: &Hub| {
        let fleet = get(hub, "/api/fleet");
        fleet["rows"].as_array()?.iter().find(|row| row["name"] == name.as_str()).cloned()
    };
    let stands = |standing: &'static str| {
        let hub = &hub;
        move || row(hub).filter(|row| row["standing"] == standing)
    };
    eventually("it is up", PATIENCE, stands("up"));
    agent.kill();
    let silent = PATIENCE + Duration::from_secs(90);
    eventually("it is down, though its last heartbeat is fresh", silent, stands("down"));
    // Its key goes on earning uptime.
    let to = world.contract.to_string();
    let key = crate::support::anvil::Anvil::key_hex(1);
    world.anvil.cast(&["send", &to, "sendHeartbeat()", "--private-key", key]);
    let row = eventually("it is a zombie", PATIENCE, stands("zombie"));
    assert!(row["why"].as_str().is_some_and(|why| why.contains("reach the chain")), "{row}");
    eventually("somebody is told", PATIENCE, || {
        let alerts = get(&hub, "/api/alerts");
        let rules = alerts["open"].as_array()?.iter().map(|it| it["rule"].clone());
        rules.collect::<Vec<_>>().contains(&"zombie".into()).then_some(())
    });
    let _again = world.agent(&[]);
    eventually("it is back", PATIENCE, stands("up"));
}
