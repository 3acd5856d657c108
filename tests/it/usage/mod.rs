//! What jobs use: read off real containers, published in batches and live, signed beside the receipt.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use lamda_node::chain::key::recover;
use lamda_node::ids::Hash;
use lamda_node::usage::{Chain, SignedUsage};
use serde_json::{Value, json};

use crate::support::nats::Beside;
use crate::support::tools::{Running, eventually, free_port, tool};
use crate::support::world::{World, last, shell, shell_with, stages};

/// How long a test waits for something that will come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Burns CPU for a while, holds 24 MiB, and tells what the shell and its children used.
const WORK: &str = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; \
    i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done; \
    (i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done); \
    sleep 2; times > /output/output";

/// Ends at once.
const INSTANT: &str = "echo x > /output/output";

/// The record of a terminal status, checked as a stranger would.
fn record(end: &Value) -> SignedUsage {
    let signed = SignedUsage::from_json(&end["usage"]).expect("a record");
    let digest = signed.record.digest(&signed.domain);
    let by = recover(&digest.0, &signed.signature.0).expect("a signature");
    assert_eq!(by, World::agent_address());
    assert_eq!(signed.record.node, by);
    let receipt = lamda_node::job::receipt::Signed::from_json(&end["receipt"]).expect("a receipt");
    assert_eq!(signed.record.receipt_digest, receipt.receipt.digest(&receipt.domain));
    assert_eq!(signed.domain, receipt.domain);
    signed
}

fn figure(signed: &SignedUsage, name: &str) -> Option<u64> {
    let figures = signed.record.figures();
    figures.into_iter().find(|(member, _)| *member == name).expect("a member").1
}

/// The batches of a job on the stream, as any client reads them; none before there is a stream.
fn batches(world: &World, id: &str) -> Vec<Vec<u8>> {
    let script = "
from nats.js.errors import NotFoundError
try:
    sub = await js.subscribe(f'usage.*.{args[0]}', stream='USAGE', ordered_consumer=True)
except NotFoundError:
    return
info = await sub.consumer_info()
for _ in range(info.num_pending + info.delivered.consumer_seq):
    print((await sub.next_msg(timeout=10)).data.hex())";
    let lines = world.nats.python(script, &[id]);
    lines
        .lines()
        .map(|line| data_encoding::HEXLOWER.decode(line.as_bytes()).expect("hex"))
        .collect()
}

/// Milliseconds of user and system time, as the shell's `times` tells them: `0m0.42s` four times.
fn shells_times(text: &str) -> u64 {
    let words = text.split_whitespace().map(|word| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("a time");
        let seconds: f64 = seconds.parse().expect("seconds");
        minutes.parse::<f64>().expect("minutes").mul_add(60.0, seconds) * 1000.0
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    let ms = words.sum::<f64>() as u64;
    ms
}

/// A requester fetches the samples and checks them against the end that the node signed; an edit is seen.
fn checks_offline(world: &World, end: &Value) {
    let at = |name: &str| world.dir.path().join(name).display().to_string();
    let (status, series, owners) = (at("end.json"), at("series"), at("edited"));
    std::fs::write(&status, end.to_string()).expect("a file");
    let agent = World::agent_address().to_string();
    let job = end["job_id"].as_str().expect("an id");
    let fetched = say(world, &["usage", job, "--agent", &agent, "--series", &series]);
    assert!(fetched.contains("none missing"), "{fetched}");
    let valid = say(world, &["verify", &status, "--series", &series]);
    assert!(valid.contains("its samples are all there") && valid.contains("of CPU"), "{valid}");

    let whole = std::fs::read_to_string(&series).expect("the series");
    let mut batch = data_encoding::BASE64
        .decode(whole.lines().next().expect("a batch").as_bytes())
        .expect("base64");
    let middle = batch.len() / 2;
    batch[middle] ^= 1;
    std::fs::write(&owners, data_encoding::BASE64.encode(&batch)).expect("a file");
    let edited = say(world, &["verify", &status, "--series", &owners]);
    assert!(edited.contains("NOT VALID"), "{edited}");
    let mut forged = end.clone();
    forged["usage"]["message"]["cpuUs"] = json!(1);
    // As a node of an earlier version: unsigned, so that only its parts are checked.
    let fields = forged.as_object_mut().expect("an object");
    fields.remove("signature");
    std::fs::write(&status, forged.to_string()).expect("a file");
    let forged = say(world, &["verify", &status]);
    assert!(forged.contains("usage record is not signed"), "{forged}");

    let report = say(world, &["jobs", job, "--usage"]);
    for text in ["memory", "CPU time", "memory's peak", "written", "of 64 MiB"] {
        assert!(report.contains(text), "{text} in {report}");
    }
    let object: Value =
        serde_json::from_str(&say(world, &["jobs", job, "--usage", "--json"])).expect("JSON");
    assert!(object["samples"].as_array().is_some_and(|all| all.len() >= 3), "{object}");
    assert!(object["final"]["cpu_us"].is_u64(), "{object}");
}

/// What the program prints.
fn say(world: &World, arguments: &[&str]) -> String {
    let said = world.command(arguments).output().expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

/// What the node tells live of its jobs, from now on.
fn listen(world: &World) -> Beside {
    let mut live = world.nats.python_beside(
        "
sub = await nc.subscribe('m.*.c.*.control.proplet.task_metrics')
print('ready')
while True:
    message = await sub.next_msg(timeout=60)
    print(message.data.decode())",
        &[],
    );
    assert_eq!(live.line(), "ready");
    live
}

#[tokio::test]
async fn what_a_job_used_is_signed_published_and_told_by_the_node() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let mut live = listen(&world);
    let profile = json!({"interval_ms": 100, "history_size": 500});
    let work = shell_with(WORK, &json!({"monitoring_profile": profile, "memory_mib": 64}));
    world.publish("used-1", &work);
    let statuses = world.outcome("used-1");
    let end = last(&statuses);
    assert_eq!(end["status"], "completed", "{end}");

    // The kernel's sums against the job's own.
    let signed = record(end);
    let told = world.content(end["output_cid"].as_str().expect("a CID")).await;
    let own_us = shells_times(&String::from_utf8(told).expect("text")) * 1000;
    let cpu_us = figure(&signed, "cpuUs").expect("CPU is known");
    assert!(cpu_us >= own_us, "{cpu_us} < {own_us}");
    // The container's start belongs to it as well.
    assert!(cpu_us <= own_us + 1_500_000, "{cpu_us} > {own_us}");
    let peak = figure(&signed, "memoryPeakBytes").expect("the peak is known");
    assert!((24 << 20..=64 << 20).contains(&peak), "{peak}");
    assert_eq!(figure(&signed, "netRxBytes"), Some(0), "it has no network");
    assert_eq!(figure(&signed, "energyMj"), None, "it has no card");
    // An unoptimised look on a busy machine costs so much that the next ones are put off.
    assert!(signed.record.samples >= 3, "{:?}", signed.record);

    // The chain of its batches ends in what was signed, and holds as many samples.
    let chained = batches(&world, "used-1");
    let head = Chain::verify(chained.iter().map(Vec::as_slice)).expect("an unbroken chain");
    assert_eq!(head.hash, signed.record.series_head);
    assert_ne!(head.hash, Hash([0; 32]));
    assert_eq!(head.samples, signed.record.samples);

    checks_offline(&world, end);

    // The keys that readers of other systems wait for.
    let first: Value = serde_json::from_str(&live.line()).expect("JSON");
    assert_eq!(first["task_id"], "used-1");
    let mut seen = first;
    while seen["metrics"]["cpu_percent"].as_f64().unwrap_or(0.0) <= 1.0 {
        seen = serde_json::from_str(&live.line()).expect("JSON");
    }
    for key in ["memory_bytes", "memory_percent", "uptime_seconds", "thread_count", "timestamp"] {
        assert!(!seen["metrics"][key].is_null(), "{key} in {seen}");
    }
    for key in ["avg_cpu_usage", "max_cpu_usage", "max_memory_usage", "sample_count"] {
        assert!(seen["aggregated"][key].is_number(), "{key} in {seen}");
    }

    // And nothing of it is left on the host.
    world.wait_until_clean().await;
    let left = world.engine.groups_of_jobs();
    assert!(left.is_empty(), "control groups are left: {left:?}");
}

#[tokio::test]
async fn a_job_of_an_instant_has_true_figures_too() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    for id in ["instant-1", "instant-2", "instant-3"] {
        world.publish(id, &shell(INSTANT));
        let statuses = world.outcome(id);
        let signed = record(last(&statuses));
        assert!(figure(&signed, "cpuUs").is_some_and(|us| us > 0), "{:?}", signed.record);
        assert!(figure(&signed, "memoryPeakBytes").is_some_and(|peak| peak > 0));
    }
}

#[tokio::test]
async fn a_job_that_outlives_its_node_is_watched_to_its_end() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; times > /output/output; echo burnt; \
        until [ -e /output/go ]; do sleep 0.1; done";
    let profile = json!({"monitoring_profile": {"interval_ms": 100}});
    world.publish("outlives", &shell_with(work, &profile));
    agent.wait_for("running");
    let burnt = || world.output_file("outlives", "output");
    let output = eventually("the job has burnt its CPU", PATIENCE, burnt);
    let own_us = shells_times(&std::fs::read_to_string(&output).expect("its times")) * 1000;
    agent.kill();
    let _again = world.agent(&[]);
    std::fs::write(output.with_file_name("go"), "").expect("the job's folder");
    let statuses = world.outcome("outlives");
    let end = last(&statuses);
    assert_eq!(end["status"], "completed", "{end}");
    let signed = record(end);
    let cpu_us = figure(&signed, "cpuUs").expect("CPU is known");
    assert!(cpu_us >= own_us, "{cpu_us} < {own_us}: what ran before the node died counts");
}

#[tokio::test]
async fn the_chain_of_a_job_whose_node_is_restarted_in_order_lacks_no_sample() {
    let world = World::start().await;
    let mut agent = world.agent(&[("SHUTDOWN_JOBS", "keep")]);
    let work = "echo begun > /output/begun; until [ -e /output/go ]; do sleep 0.1; done; \
        echo done > /output/output";
    let profile = json!({"monitoring_profile": "Intensive"});
    let mut live = listen(&world);
    world.publish("rests", &shell_with(work, &profile));
    assert!(live.line().contains("rests"), "it was looked at");
    let begun = || world.output_file("rests", "begun");
    let begun = eventually("the job has begun", PATIENCE, begun);
    agent.ask_to_end();
    assert!(agent.wait_for_end().success(), "it stops in order, and leaves its job");
    let _again = world.agent(&[]);
    // None of the second process is full before a minute.
    let told = eventually("what was seen before the stop is told", PATIENCE, || {
        Some(batches(&world, "rests")).filter(|told| !told.is_empty())
    });
    let before = Chain::verify(told.iter().map(Vec::as_slice)).expect("a chain");
    std::fs::write(begun.with_file_name("go"), "").expect("the job's folder");
    let statuses = world.outcome("rests");
    let signed = record(last(&statuses));
    let chained = batches(&world, "rests");
    let head = Chain::verify(chained.iter().map(Vec::as_slice)).expect("an unbroken chain");
    assert_eq!((head.hash, head.samples), (signed.record.series_head, signed.record.samples));
    assert!(head.samples > before.samples, "{head:?} after {before:?}");
}

#[tokio::test]
async fn a_job_is_watched_as_it_asks_and_runs_also_if_what_it_asks_is_nonsense() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    world.publish("off", &shell_with(INSTANT, &json!({"monitoring_profile": "Disabled"})));
    let off = world.outcome("off");
    assert_eq!(last(&off)["status"], "completed");
    assert!(last(&off)["usage"].is_null());
    for (id, profile, names) in [
        ("bad-1", json!("thorough"), "thorough"),
        ("bad-2", json!({"interval": 0}), "interval"),
        ("bad-3", json!({"history_size": 1_000_000_000}), "history_size"),
        ("bad-4", json!({"interval_ms": 9_460_800_000_000_u64}), "interval_ms"),
    ] {
        world.publish(id, &shell_with(INSTANT, &json!({"monitoring_profile": profile})));
        let statuses = world.outcome(id);
        assert_eq!(stages(&statuses), "accepted pulling running uploading completed", "{id}");
        let said = statuses[0]["error"].as_str().expect("a sentence");
        assert!(said.contains("monitoring_profile") && said.contains(names), "{said}");
        assert!(last(&statuses)["usage"].is_object(), "it is watched as usual");
    }
}

/// An unchanged client of the systems that had these figures first reads them through nats-server's MQTT listener.
#[tokio::test]
async fn a_plain_mqtt_client_reads_what_a_job_uses() {
    let mut world = World::start().await;
    let port = free_port();
    let listener = format!("mqtt {{ listen: \"127.0.0.1:{port}\" }}");
    world.nats.restart_with(&listener);
    let port = port.to_string();
    // Into a pipe it would write by the block.
    let mut subscriber = Command::new(tool("stdbuf"));
    subscriber.arg("-oL").arg(tool("mosquitto_sub"));
    subscriber.args(["-h", "127.0.0.1", "-p", &port, "-t", "m/+/c/+/#", "-v", "-d", "-W", "60"]);
    let mut subscriber = Running::start(subscriber.stdout(Stdio::piped()));
    let lines = subscriber.0.stdout.take().expect("its output is piped");
    let mut lines = std::io::BufReader::new(lines).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Subscribed")), "nats-server takes MQTT clients");
    let settings = [
        ("METRICS_DOMAIN", "home"),
        ("METRICS_CHANNEL", "rack-1"),
        ("PROPLET_METRICS_INTERVAL", "1"),
    ];
    let _agent = world.agent(&settings);
    let profile = json!({"monitoring_profile": {"interval_ms": 200}});
    world.publish("by-mqtt", &shell_with("sleep 1; echo x > /output/output", &profile));
    let mut awaited = vec![
        "control/proplet/alive",
        "control/proplet/metrics",
        "control/proplet/task_metrics",
        "metrics/proplet",
    ];
    while !awaited.is_empty() {
        let line = lines.next();
        let line = line.unwrap_or_else(|| panic!("within a minute nothing came on {awaited:?}"));
        let Some((topic, body)) = line.split_once(' ') else { continue };
        let Some(end) = topic.strip_prefix("m/home/c/rack-1/") else { continue };
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["proplet_id"], World::agent_address().to_string(), "{topic}");
        awaited.retain(|one| *one != end);
    }
    world.outcome("by-mqtt");
    drop(subscriber);
}
