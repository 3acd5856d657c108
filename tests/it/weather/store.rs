//! The store and its gateway fail, throttle, crawl, break off and lie.

use serde_json::json;

use super::{end, last, shell_with, stages};
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

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
    // The only slot is free: what can't be uploaded holds up nothing but itself.
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
