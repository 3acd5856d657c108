//! Redis or NATS goes away and comes back: nothing waits, and every event is accounted for.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::{all, names};
use crate::support::nats::Nats;
use crate::support::redis::Redis;
use crate::support::tools::{Running, eventually};
use crate::support::world::{PATIENCE, World, shell};

/// More rejections than the ring holds.
const REFUSED: usize = 400;

/// The entries that SOLLOL's log stream has, and the sum that the last event about drops names.
fn on_redis(redis: &Redis) -> (u64, u64) {
    let script = "
entries = [json.loads(e['log']) for _, e in r.xrange('sollol:dashboard:log_stream')]
dropped = [e['details'].get('dropped_in_all') for e in entries if 'dropped_in_all' in e['details']]
print(json.dumps([len(entries), max(dropped, default=0)]))";
    serde_json::from_str(&redis.python(script)).expect("two numbers")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_jobs_go_on_and_afterwards_every_event_is_sent_or_counted() {
    let (world, mut redis) = (World::start().await, Redis::start());
    let agent = world.agent(&[
        ("EVENTS_REDIS_URL", &redis.url()),
        ("EVENTS_REDIS_SAMPLING", "false"),
        ("EVENTS_REDIS_MAX_EVENTS", "100"),
        ("EVENTS_REDIS_BATCH_TIMEOUT", "0.05"),
        ("EVENTS_HEARTBEAT", "false"),
    ]);
    agent.wait_for("connected to the Redis");
    let settled = |what: &str| {
        eventually(what, PATIENCE, || {
            let (sent, dropped) = on_redis(&redis);
            let all = all(&world, &[]);
            (sent + dropped == all.len() as u64).then_some((sent, dropped))
        })
    };
    settled("Redis has what NATS has");
    redis.kill();
    let script = "
for n in range(int(args[1])):
    await js.publish('jobs.dispatch.' + args[0], b'{\"job_id\": \"bad-%d\"}' % n)";
    world.nats.python(script, &[&World::agent_address().to_string(), &REFUSED.to_string()]);
    world.publish("meanwhile", &shell("echo done > /output/output"));
    assert_eq!(world.outcome("meanwhile").last().expect("an end")["status"], "completed");
    agent.wait_for("does not answer");
    eventually("all refusals are on NATS", PATIENCE, || {
        let refused =
            names(&all(&world, &[])).iter().filter(|name| *name == "job/rejected").count();
        (refused == REFUSED).then_some(())
    });
    redis.restart();
    agent.wait_for("events were dropped while Redis was away");
    // The event about the drops goes to Redis alone: NATS has missed nothing.
    let (sent, dropped) = eventually("every event is accounted for", PATIENCE, || {
        let (sent, dropped) = on_redis(&redis);
        (sent + dropped == all(&world, &[]).len() as u64 + 1).then_some((sent, dropped))
    });
    assert!(dropped >= (REFUSED - 100) as u64, "{sent} sent, {dropped} dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_nats_is_away_is_told_when_it_is_back() {
    let mut world = World::start().await;
    let agent = world.agent(&[("EVENTS_HEARTBEAT", "false")]);
    eventually("the start is told", PATIENCE, || {
        names(&all(&world, &[])).contains(&"link/connected".to_owned()).then_some(())
    });
    world.nats.kill();
    agent.wait_for("the connection to NATS is gone");
    world.nats.restart();
    let told: Vec<Value> = eventually("the loss is told", PATIENCE, || {
        let told = all(&world, &["--level", "info"]);
        let links = names(&told).iter().filter(|name| *name == "link/connected").count();
        (links == 2).then_some(told)
    });
    let names = names(&told);
    let lost = names.iter().filter(|name| *name == "link/lost").count();
    assert_eq!(lost, 1, "{names:?}");
    let times: Vec<_> = told.iter().map(|it| it["timestamp"].as_str().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_jetstream_events_can_be_followed_and_nothing_is_kept() {
    let mut world = World::start().await;
    world.nats.restart_without_jetstream();
    let refused = {
        let mut command = world.command(&["events"]);
        command.env("NATS_MODE", "core");
        crate::support::program::Ended(crate::support::tools::run_with_input(&mut command, ""))
    };
    refused.is_refused(64, "no events are kept");
    let script = "
heard = await nc.subscribe('events.>')
await nc.flush()
print('ready')
while True:
    print((await heard.next_msg(timeout=300)).subject)";
    let mut beside = world.nats.python_beside(script, &[]);
    assert_eq!(beside.line(), "ready");
    let _agent = world.agent(&[("NATS_MODE", "core")]);
    let wanted = format!("events.{}.node.started", World::agent_address());
    let begun = std::time::Instant::now();
    while beside.line() != wanted {
        assert!(begun.elapsed() < Duration::from_mins(1), "the start is told");
    }
}

/// A server on which the account of a node may not publish these subjects; everybody else may do all.
fn denying(subjects: &str) -> Nats {
    Nats::with(&format!(
        "no_auth_user: all
authorization {{ users: [
  {{ user: all, password: all }}
  {{ user: node, password: node, permissions: {{ publish: {{ deny: [\"{subjects}\"] }} }} }}
] }}"
    ))
}

fn as_node(nats: &Nats) -> String {
    nats.url().replace("nats://", "nats://node:node@")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_server_refuses_keeps_no_other_back() {
    let mut world = World::start().await;
    world.nats = denying("events.*.job.running");
    let url = as_node(&world.nats);
    let _agent = world.agent(&[("NATS_URL", &url), ("EVENTS_HEARTBEAT", "false")]);
    world.publish("j", &shell("echo done > /output/output"));
    assert_eq!(world.outcome("j").last().expect("an end")["status"], "completed");
    let told = eventually("the end is told", PATIENCE, || {
        let told = names(&all(&world, &["--job", "j"]));
        told.contains(&"job/performance".to_owned()).then_some(told)
    });
    assert!(!told.contains(&"job/running".to_owned()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_send_no_event_says_so_once_and_does_its_work() {
    let mut world = World::start().await;
    world.nats = denying("events.>");
    let url = as_node(&world.nats);
    let agent = world.agent(&[("NATS_URL", &url), ("EVENTS_HEARTBEAT", "false")]);
    world.publish("j", &shell("echo done > /output/output"));
    assert_eq!(world.outcome("j").last().expect("an end")["status"], "completed");
    let wanted = format!("may this account publish events.{}.*.*?", World::agent_address());
    agent.wait_for(&wanted);
    assert_eq!(agent.log().matches(&wanted).count(), 1, "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_without_a_replay_is_told_only_what_is_new() {
    let world = World::start().await;
    let _agent = world.agent(&[("EVENTS_HEARTBEAT", "false")]);
    eventually("the start is told", PATIENCE, || {
        names(&all(&world, &[])).contains(&"link/connected".to_owned()).then_some(())
    });
    let mut command = world.command(&["events", "--no-replay"]);
    let refused = crate::support::tools::run_with_input(&mut command, "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--follow"), "{said}");
    let mut command = world.command(&["events", "--follow", "--no-replay", "--json"]);
    let mut running = Running::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(running.0.stdout.take().expect("it is piped")).lines();
    // It says nothing before it hears something: what is published until then is lost to it.
    let (tells, hears) = std::sync::mpsc::channel();
    let reads = std::thread::spawn(move || {
        let line = lines.next().expect("a line").expect("UTF-8");
        tells.send(serde_json::from_str::<Value>(&line).expect("JSON")).ok();
    });
    let mut number = 0;
    let first = eventually("something new is told", PATIENCE, || {
        number += 1;
        world.publish(&format!("new-{number}"), &shell("true"));
        hears.try_recv().ok()
    });
    reads.join().expect("it ends");
    assert!(
        ["job", "pull", "chain"].iter().any(|it| first["component"] == *it),
        "and not the node's start: {first}"
    );
}
