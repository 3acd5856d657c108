//! What dashboards read: every channel of the table, sampling, a wrong password, on and off.

use std::collections::BTreeSet;

use lamda_node::fleet::seed_view::table::{Feed, Kept, ROWS, Row};
use lamda_node::fleet::{Event, Sampling, kinds};
use lamda_node::ids::{Address, JobId};
use serde_json::{Value, json};

use super::{all, events, names, occur};
use crate::support::anvil::Anvil;
use crate::support::redis::{Heard, Redis};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

const NOW: (&str, &str) = ("EVENTS_REDIS_BATCH_TIMEOUT", "0.05");
const LOGS: &str = "synapticllamas:llama_cpp:logs";

/// The messages about a job on a channel of `SynapticLlamas`.
fn of_job(heard: &Heard, channel: &str, job: &str) -> Vec<Value> {
    let mut messages = heard.on(channel);
    messages.retain(|message| message["details"]["job_id"] == job);
    messages
}

fn is_over(heard: &Heard, job: &str) -> bool {
    of_job(heard, LOGS, job).iter().any(|message| message["event_type"] == "performance")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_way_is_heard_on_nats_and_on_every_channel_by_readers_of_two_makes() {
    let (world, redis) = (World::start().await, Redis::start());
    let readers = [redis.heard_by_python(), redis.heard_by_ioredis()];
    let mut agent = world.agent(&[
        ("EVENTS_REDIS_URL", &redis.url()),
        ("EVENTS_REDIS_SAMPLING", "false"),
        ("EVENTS_HEARTBEAT_INTERVAL", "1"),
        NOW,
    ]);
    world.publish("j", &shell("echo done > /output/output"));
    world.outcome("j");
    let wanted = ["job/accepted", "pull/done", "job/running", "job/exited", "job/completed"];
    let told = eventually("the job's way is on NATS", PATIENCE, || {
        let told = all(&world, &["--job", "j"]);
        names(&told).contains(&"job/performance".to_owned()).then_some(told)
    });
    assert!(occur(&wanted, &names(&told)), "{:?}", names(&told));
    assert!(told.iter().all(|event| event["node"] == json!(World::agent_address())), "{told:?}");
    let texts_of_all = json!(told).to_string();
    assert!(!texts_of_all.contains("busybox"), "no event names an image: {texts_of_all}");
    let subject = format!("events.{}.job.completed", World::agent_address());
    let script = "print((await js.get_last_msg('EVENTS', args[0])).data.decode())";
    let last: Value = serde_json::from_str(&world.nats.python(script, &[&subject])).expect("JSON");
    assert_eq!((&last["job_id"], &last["level"]), (&json!("j"), &json!("info")));

    for row in fed().filter(|row| row.kept == Kept::Channel) {
        for reader in &readers {
            eventually(row.name, PATIENCE, || (!reader.on(row.name).is_empty()).then_some(()));
        }
    }
    for reader in &readers {
        eventually("its end", PATIENCE, || is_over(reader, "j").then_some(()));
    }
    let [python, ioredis] = readers.each_ref().map(|it| of_job(it, LOGS, "j"));
    assert_eq!(python, ioredis, "both hear the same");
    assert_eq!(texts(&python), texts(&told), "and what NATS has");
    registry_tells(&readers[0]);
    fed().for_each(|row| is_kept(&redis, row));
    agent.ask_to_end();
    agent.wait_for_end();
    eventually("the end is told", PATIENCE, || {
        names(&all(&world, &[])).contains(&"node/stopping".to_owned()).then_some(())
    });
}

/// The names that events feed.
fn fed() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| !matches!(row.feed, Feed::Nothing(_) | Feed::Gpus))
}

fn texts(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["message"].as_str().expect("a text")).collect()
}

fn registry_tells(reader: &Heard) {
    let told = eventually("the registry tells", PATIENCE, || {
        let mut told = reader.on("sollol:dashboard:rpc:activity");
        told.retain(|it| it["backend"] == "rpc_registry" && it["details"]["total_active"] != 0);
        told.pop()
    });
    assert_eq!(told["event_type"], "rpc_backend_connect");
    let count = |key: &str| told["details"][key].as_u64().expect("a number");
    assert!(count("total_configured") >= count("total_active"), "{told}");
    let named = told["details"]["rpc_addresses"].as_array().expect("a list");
    assert_eq!(named.len() as u64, count("total_active"), "{told}");
}

/// Asserts that what outlives its readers is there.
fn is_kept(redis: &Redis, row: &Row) {
    match row.kept {
        Kept::Stream { field, .. } => {
            let [entry] = &redis.last_entries(&[row.name])[..] else { panic!("{}", row.name) };
            let [name, body] = &entry[..] else { panic!("{}: {entry:?}", row.name) };
            assert_eq!(name, field);
            assert!(serde_json::from_str::<Value>(body).expect("JSON").is_object());
        }
        Kept::List { .. } => {
            let kept = redis.python(&format!("print(r.llen('{}'))", row.name));
            assert_ne!(kept, "0", "{}", row.name);
        }
        Kept::Channel | Kept::Key { .. } => {}
    }
}

/// Two job ids, of which sampling at one half takes the first alone.
fn taken_and_left() -> [String; 2] {
    let half = Sampling::of(0.5);
    let is_in = |job: &String| {
        let id: JobId = job.parse().expect("an id");
        let node = Address::new([1; 20]);
        half.takes(&Event::new(kinds::JOB_RUNNING, node, <_>::default(), "m").about(&id))
    };
    let mut ids = (0..).map(|number| format!("job-{number}"));
    let taken = ids.by_ref().find(is_in).expect("one is taken");
    [taken, ids.find(|job| !is_in(job)).expect("one is left out")]
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_gets_all_of_a_sampled_job_nothing_of_another_but_its_failure_and_only_while_it_is_on()
 {
    let (world, redis) = (World::start().await, Redis::with_password("hunter2"));
    let heard = redis.heard_by_python();
    // The names that SOLLOL's users know.
    let _agent = world.agent(&[
        ("SOLLOL_REDIS_URL", &redis.url_with("hunter2")),
        ("SOLLOL_OBSERVER_SAMPLE_RATE", "0.5"),
        ("SOLLOL_OBSERVER_BATCH_TIMEOUT", "0.05"),
    ]);
    let [taken, left] = taken_and_left();
    world.publish(&left, &shell("exit 3"));
    world.outcome(&left);
    world.publish(&taken, &shell("echo done > /output/output"));
    world.outcome(&taken);
    eventually("the sampled job ends", PATIENCE, || is_over(&heard, &taken).then_some(()));
    let on_nats = all(&world, &["--job", &taken]).len();
    assert_eq!(of_job(&heard, LOGS, &taken).len(), on_nats, "all of it");
    let of_left: BTreeSet<_> = of_job(&heard, LOGS, &left).iter().map(level).collect();
    assert_eq!(of_left, BTreeSet::from(["error".to_owned()]), "only the failure");
    assert!(all(&world, &["--job", &left]).len() > 4, "NATS has all of it");
    let failed = all(&world, &["--job", &left, "--level", "error"]);
    assert_eq!(names(&failed), ["job/failed"]);

    let node = World::agent_address().to_string();
    events(&world, &["redis", "off", "--node", &node]).succeeds();
    let mut stranger = world.command(&["events", "redis", "on", "--node", &node]);
    stranger.env("AGENT_PRIVATE_KEY", Anvil::key_hex(3));
    let said = crate::support::tools::run_with_input(&mut stranger, "");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("not_allowed"), "{said}");
    world.publish("while-off", &shell("exit 4"));
    world.outcome("while-off");
    events(&world, &["redis", "on", "--node", &node]).succeeds();
    world.publish("while-on", &shell("exit 5"));
    world.outcome("while-on");
    eventually("it is on again", PATIENCE, || {
        (!of_job(&heard, LOGS, "while-on").is_empty()).then_some(())
    });
    assert!(of_job(&heard, LOGS, "while-off").is_empty(), "nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_something_else_there_is_told_once_and_all_others_get_each_event_once() {
    let (world, redis) = (World::start().await, Redis::start());
    redis.python("r.set('sollol:dashboard:log_stream', 'x')");
    let heard = redis.heard_by_python();
    let agent = world.agent(&[
        ("EVENTS_REDIS_URL", &redis.url()),
        ("EVENTS_REDIS_SAMPLING", "false"),
        ("EVENTS_HEARTBEAT", "false"),
        NOW,
    ]);
    agent.wait_for("took a part only");
    for job in ["one", "two"] {
        world.publish(job, &shell("exit 3"));
        world.outcome(job);
        eventually("its end is heard", PATIENCE, || is_over(&heard, job).then_some(()));
    }
    let told = all(&world, &["--job", "one"]);
    let heard = of_job(&heard, LOGS, "one");
    assert_eq!(texts(&heard), texts(&told), "each once");
    let log = agent.log();
    assert_eq!(log.matches("took a part only").count(), 1, "{log}");
    assert!(!log.contains("were dropped while"), "{log}");
}

fn level(message: &Value) -> String {
    message["level"].as_str().unwrap_or("?").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_without_it_and_jobs_go_on() {
    let (world, redis) = (World::start().await, Redis::with_password("hunter2"));
    let agent = world.agent(&[("EVENTS_REDIS_URL", &redis.url_with("hunter3")), NOW]);
    agent.wait_for("refuses the password: see EVENTS_REDIS_URL");
    world.publish("j", &shell("echo done > /output/output"));
    let end = world.outcome("j");
    assert_eq!(end.last().expect("an end")["status"], "completed");
    let log = agent.log();
    let warned =
        log.lines().filter(|line| line.contains("WARN") && line.contains("refuses the password"));
    assert_eq!(warned.count(), 1, "{log}");
    assert!(!log.contains("hunter3"), "{log}");
}
