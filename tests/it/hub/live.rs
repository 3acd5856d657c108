//! The hub beside a real node: what the node says on NATS and on the chain is what the hub shows.

use std::time::Duration;

use serde_json::{Value, json};

use super::process::Hub;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell, shell_with};

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
    let beat = ["send", "--gas-limit", "500000", &to, "sendHeartbeat()", "--private-key", key];
    world.anvil.cast(&beat);
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

/// What a stream of the hub says until `holds`, without asking again.
fn streamed(hub: &Hub, query: &str, holds: impl Fn(&str) -> bool) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(&hub.at).expect("the hub listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let head = format!("GET /api/stream?{query} HTTP/1.1\r\nhost: {}\r\n\r\n", hub.at);
    stream.write_all(head.as_bytes()).expect("it reads");
    let (mut said, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut part).expect("it goes on");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&said);
        if holds(&text) {
            return text.into_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_writes_uses_and_earns_reaches_the_hub() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let hub = hub_beside(&world);
    let name = World::agent_address().lower_hex();
    eventually("the node is known", PATIENCE, || {
        let fleet = get(&hub, "/api/fleet");
        fleet["rows"].as_array()?.iter().find(|row| row["name"] == name.as_str()).map(drop)
    });
    // Each of its lines comes after somebody may have begun to look.
    let script = "i=0; while [ ! -e /output/stop ] && [ $i -lt 100 ]; do i=$((i+1)); \
        printf 'step %s \\033[31mred\\033[0m\\n' $i; sleep 0.2; done; echo done > /output/output";
    let profile = json!({"monitoring_profile": {"interval_ms": 200, "profile": "intensive"}});
    world.publish("watched", &shell_with(script, &profile));
    eventually("the job is known", PATIENCE, || {
        let jobs = get(&hub, &format!("/api/jobs?node={name}")).to_string();
        jobs.contains("\"watched\"").then_some(())
    });
    let query = format!("topics=fleet&log_node={name}&log_job=watched");
    let said = streamed(&hub, &query, |text| text.contains(" red\""));
    assert!(said.contains(r#"{"log":{"is_heard":true}}"#), "{said}");
    let line = said.lines().find(|line| line.contains("step ")).expect("a line");
    assert!(line.contains(" red\"") && !line.contains("033") && !line.contains("u001b"), "{line}");
    world.outcome("watched");
    let used = eventually("what it used is known", PATIENCE, || {
        let used = get(&hub, &format!("/api/jobs/{name}/watched/usage"));
        // How often the node looks is its budget's; what its looks cover is the job's life.
        let points = used["points"].as_array()?;
        let covers: u64 = points.iter().filter_map(|it| it["ms"].as_u64()).sum();
        (covers > 10_000).then_some(used)
    });
    assert!(used["points"][0]["job"][0].as_u64() > Some(0), "it used the CPU: {used}");
    assert_eq!(used["missed"], 0, "{used}");
    let day = get(&hub, &format!("/api/usage?node={name}"));
    let memory = day["series"]["memory_bytes"].as_array().expect("a series");
    assert!(memory.iter().any(|it| it.as_u64() > Some(0)), "{day}");
    let earned = eventually("what it came to is known", PATIENCE, || {
        let earned = get(&hub, &format!("/api/earnings?days=2&node={name}"));
        (earned["total"]["completed"] == 1).then_some(earned)
    });
    let total = &earned["total"];
    assert!(
        total["run_ms"].as_u64() > Some(10_000) && total["up_ms"].as_u64() > Some(0),
        "{earned}"
    );
    assert_eq!((&total["receipts"], &total["card_ms"]), (&json!(1), &json!(0)), "{earned}");
    let scored = eventually("the contract is asked about it", PATIENCE, || {
        let node = get(&hub, &format!("/api/fleet/node?name={name}"));
        node["scored"]["score"].is_u64().then(|| node["scored"].clone())
    });
    assert!(scored["since_s"].as_u64() > Some(0), "{scored}");
    drop(agent);
}
