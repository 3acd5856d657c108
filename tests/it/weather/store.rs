//! The store and its gateway fail, throttle, are slow, break off and lie.

use serde_json::{Value, json};

use super::end;
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell, shell_with, stages};

#[tokio::test]
async fn an_input_comes_whole_or_not_at_all() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[("IPFS_GATEWAYS", &proxy.url()), ("FETCH_GIVE_UP_S", "30")]);
    let bytes = |id: &str| id.repeat(100_000);
    for (id, weather) in [
        ("fails", Weather::Status(500, None)),
        ("throttled", Weather::Status(429, Some(1))),
        ("cut-short", Weather::Truncates),
        // With only one gateway, wrong bytes are fetched again.
        ("lied-to-once", Weather::Lies),
        ("slow", Weather::Dribbles(10)),
    ] {
        let input = json!({"input_file_cid": world.pin(bytes(id).as_bytes()).await});
        proxy.set_fetches(weather);
        let before = proxy.fetches();
        world.publish(id, &shell_with("cp /input/input /output/output", &input));
        if !matches!(weather, Weather::Dribbles(_)) {
            let tried = || (proxy.fetches() > before + 1).then_some(());
            eventually(&format!("job {id} tries again"), PATIENCE, tried);
            assert_eq!(stages(&world.statuses(id)), "accepted pulling fetching");
            proxy.set_fetches(Weather::Clear);
        }
        let statuses = world.outcome(id);
        assert_eq!(stages(&statuses), "accepted pulling fetching running uploading completed");
        assert_eq!(world.output(&statuses).await, bytes(id));
    }
    let input = json!({"input_file_cid": world.pin(bytes("lied-to").as_bytes()).await});
    proxy.set_fetches(Weather::Lies);
    world.publish("lied-to", &shell_with("cp /input/input /output/output", &input));
    let statuses = world.outcome("lied-to");
    assert_eq!(end(&statuses), json!(["failed", "input_unverified", 1, null]));
    assert_eq!(stages(&statuses), "accepted pulling fetching failed", "no container saw it");
    assert!(!agent.log().contains("job lied-to: running"));
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_upload_goes_on_until_it_succeeds_while_the_next_job_runs() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[("PINATA_API_URL", &proxy.url()), ("JOB_SLOTS", "1")]);
    proxy.set_pins(Weather::Status(500, None));
    world.publish("first", &shell("echo first > /output/output"));
    agent.wait_for("job first: the output:");
    // The only slot is free: an output that can't be uploaded holds up no other job.
    world.publish("second", &shell("echo second > /output/output; sleep 1"));
    agent.wait_for("job second: exited");
    assert_eq!(stages(&world.statuses("first")), "accepted pulling running uploading");
    for weather in [Weather::Lies, Weather::Truncates, Weather::Status(429, Some(1))] {
        let before = proxy.pins();
        proxy.set_pins(weather);
        let tried = || (proxy.pins() > before).then_some(());
        eventually(&format!("an upload meets {weather:?}"), PATIENCE, tried);
    }
    proxy.set_pins(Weather::Dribbles(5));
    for id in ["first", "second"] {
        let statuses = world.outcome(id);
        assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
        assert_eq!(world.output(&statuses).await, format!("{id}\n"));
        assert_eq!(
            last(&statuses)["receipt"]["message"]["outputCid"],
            last(&statuses)["output_cid"]
        );
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_upload_that_fails_once_does_not_cost_a_failed_job_its_log() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[("PINATA_API_URL", &proxy.url())]);
    proxy.set_pins(Weather::Status(500, None));
    world.publish("broken", &shell("echo why it broke; exit 3"));
    agent.wait_for("job broken: the log:");
    proxy.set_pins(Weather::Clear);
    let statuses = world.outcome("broken");
    assert_eq!(end(&statuses), json!(["failed", "nonzero_exit", 1, 3]));
    let log = last(&statuses)["log_cid"].as_str().expect("its log is published").to_owned();
    assert_eq!(world.content(&log).await, b"why it broke\n");
    world.wait_until_clean().await;
}

/// The late results of all jobs so far.
fn late_results(world: &World) -> Vec<Value> {
    let script = "
try:
    sub = await js.subscribe('jobs.results.>', stream='RESULTS', ordered_consumer=True)
    info = await sub.consumer_info()
    for _ in range(info.num_pending + info.delivered.consumer_seq):
        print((await sub.next_msg(timeout=10)).data.decode())
except nats.js.errors.NotFoundError:
    pass";
    let lines = world.nats.python(script, &[]);
    lines.lines().map(|line| serde_json::from_str(line).expect("a result is JSON")).collect()
}

/// What `jobs ID --json` prints.
fn told(world: &World, id: &str) -> Value {
    let output = world.command(&["jobs", id, "--json"]).output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("an object")
}

#[tokio::test]
async fn an_output_that_could_not_be_published_is_kept_and_published_when_its_owner_asks() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let url = proxy.url();
    let settings = [("PINATA_API_URL", &*url), ("UPLOAD_GIVE_UP_S", "1")];
    let mut agent = world.agent(&settings);
    proxy.set_pins(Weather::Status(500, None));
    let more = json!({"input_file_cid": world.pin(b"input").await, "output_path": "/elsewhere"});
    world.publish("late", &shell_with("echo result > /elsewhere", &more));
    let statuses = world.outcome("late");
    assert_eq!(end(&statuses), json!(["failed", "upload_failed", 1, 0]));
    assert!(proxy.pins() >= 20, "{}", proxy.pins());
    eventually("the job is done with", PATIENCE, || {
        (told(&world, "late")["phase"] == "settled").then_some(())
    });
    assert!(told(&world, "late")["kept"]["until"].is_string(), "{}", told(&world, "late"));

    // A restart keeps the output, and does not publish it by itself.
    agent.kill();
    proxy.set_pins(Weather::Clear);
    let agent = world.agent(&settings);
    let retry = world.command(&["jobs", "retry", "late"]).output().expect("it runs");
    assert!(retry.status.success(), "{}", String::from_utf8_lossy(&retry.stderr));
    let result =
        eventually("the late result is published", PATIENCE, || late_results(&world).pop());
    let cid = result["output_cid"].as_str().expect("a CID");
    assert_eq!(world.content(cid).await, b"result\n");
    assert_eq!(result["receipt"]["message"]["outputCid"], cid);
    assert_eq!(last(&statuses)["receipt"]["message"]["outputCid"], "", "the first one claims none");
    agent.wait_for("the output of job late is published after all");
    assert_eq!(world.outcome("late"), statuses, "there is no second end");
    world.wait_until_clean().await;
    assert_eq!(told(&world, "late")["kept"]["late_output_cid"], cid);
    let again = world.command(&["jobs", "retry", "late"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&again.stdout).contains(cid));
    let again = world.command(&["jobs", "retry", "late", "--json"]).output().expect("it runs");
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again, json!({"ok": true, "output_cid": cid}));
}

/// Has a node run a job, which also leaves a log, and keep its output; returns the settings and the node.
fn keeps<'a>(
    world: &World,
    proxy: &'a str,
    days: &'a str,
    id: &str,
) -> ([(&'a str, &'a str); 3], crate::support::world::Agent) {
    let settings =
        [("PINATA_API_URL", proxy), ("UPLOAD_GIVE_UP_S", "1"), ("RESULT_KEEP_DAYS", days)];
    let agent = world.agent(&settings);
    world.publish(id, &shell("echo said; head -c 300000 /dev/zero > /output/output"));
    let statuses = world.outcome(id);
    assert_eq!(end(&statuses), json!(["failed", "upload_failed", 1, 0]));
    eventually("the job is done with", PATIENCE, || {
        (told(world, id)["phase"] == "settled").then_some(())
    });
    (settings, agent)
}

#[tokio::test]
async fn a_kept_output_whose_log_is_up_says_what_its_upload_fails_of() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    proxy.set_pins(Weather::FailsAbove(100_000));
    let url = proxy.url();
    let (settings, mut agent) = keeps(&world, &url, "14", "kept");
    agent.kill();
    let agent = world.agent(&settings);
    let retry = world.command(&["jobs", "retry", "kept"]).output().expect("it runs");
    assert!(retry.status.success(), "{}", String::from_utf8_lossy(&retry.stderr));
    agent.wait_for("the kept output of job kept: the output: ");
    proxy.set_pins(Weather::Clear);
    agent.wait_for("the output of job kept is published after all");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_output_that_was_kept_long_enough_is_removed() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    proxy.set_pins(Weather::Status(500, None));
    let url = proxy.url();
    let (settings, mut agent) = keeps(&world, &url, "0", "old");
    // Expired outputs are looked for at the start and every hour.
    agent.kill();
    let agent = world.agent(&settings);
    agent.wait_for("the output of job old was kept long enough: it goes");
    world.wait_until_clean().await;
    let retry = world.command(&["jobs", "retry", "old"]).output().expect("it runs");
    assert!(!retry.status.success(), "the content is gone");
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_upload_does_not_hold_up_an_end() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let url = proxy.url();
    // Far longer than these tests wait for a job's end.
    let settings = [("PINATA_API_URL", &*url), ("SHUTDOWN_GRACE_S", "600")];
    for (id, weather) in
        [("away", Weather::Status(503, Some(3600))), ("busy", Weather::Status(429, Some(3600)))]
    {
        let mut agent = world.agent(&settings);
        proxy.set_pins(weather);
        world.publish(id, &shell("echo result > /output/output"));
        agent.wait_for("; tried again");
        agent.ask_to_end();
        assert!(agent.wait_for_end().success(), "{id}: {}", agent.log());
        proxy.set_pins(Weather::Clear);
        let mut agent = world.agent(&settings);
        assert_eq!(end(&world.outcome(id)), json!(["completed", null, 1, 0]), "{id}");
        agent.kill();
    }
    let _agent = world.agent(&settings);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_store_that_refuses_the_key_loses_no_result_and_stops_the_intake() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let url = proxy.url();
    let settings = [("PINATA_API_URL", &*url), ("UPLOAD_GIVE_UP_S", "1")];
    let mut agent = world.agent(&settings);
    proxy.set_pins(Weather::Status(401, None));
    world.publish("first", &shell("echo first > /output/output"));
    eventually("the status is published", PATIENCE, || {
        let told = world.statuses("first").pop()?;
        (told["stage"] == "uploading" && told["reason_code"] == "store_refused").then_some(())
    });
    world.publish("second", &shell("echo second > /output/output"));
    let before = proxy.pins();
    // More tries than an upload gets for any other failure.
    eventually("the uploads go on", PATIENCE, || (proxy.pins() > before + 25).then_some(()));
    assert_eq!(world.statuses("second"), Vec::<Value>::new(), "no job is taken meanwhile");
    assert_eq!(last(&world.statuses("first"))["status"], "processing");
    // Jobs that only wait for the store do not delay a shutdown.
    agent.ask_to_end();
    assert!(agent.wait_for_end().success(), "{}", agent.log());
    proxy.set_pins(Weather::Clear);
    let _agent = world.agent(&settings);
    for id in ["first", "second"] {
        assert_eq!(end(&world.outcome(id)), json!(["completed", null, 1, 0]), "{id}");
    }
    world.wait_until_clean().await;
}
