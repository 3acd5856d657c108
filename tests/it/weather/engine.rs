//! The engine is ended, killed, or loses its power, under the jobs in it.

use serde_json::{Value, json};

use super::end;
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, last, shell, shell_with, stages};

/// Runs until it is killed in its first attempt, and to its end in the second: the mount table names the
/// attempt's folder.
const TWICE: &str = "grep -q /2/output /proc/self/mountinfo || \
    { sleep 1000; }; echo x > /output/output";

/// The stages of a job that runs again because its first attempt was lost.
const AGAIN: &str = "accepted pulling running pulling running uploading completed";

/// Publishes these jobs and waits until all of them run.
fn run_all(world: &World, agent: &Agent, jobs: &[(&str, Value)]) {
    for (id, job) in jobs {
        world.publish(id, job);
    }
    for (id, _) in jobs {
        agent.wait_for(&format!("job {id}: running"));
    }
}

#[tokio::test]
async fn an_engine_that_is_restarted_in_order_fails_no_job() {
    let mut world = World::start().await;
    let agent = world.agent(&[("JOB_SLOTS", "5")]);
    let obeys = "grep -q /2/output /proc/self/mountinfo || \
        { trap 'echo half > /output/output; exit 0' TERM; sleep 1000 & wait $!; }; \
        echo whole > /output/output";
    let complains = format!("trap 'exit 1' TERM; {}", TWICE.replace("1000;", "1000 & wait $!;"));
    run_all(
        &world,
        &agent,
        &[
            ("dies", shell(TWICE)),
            ("complains", shell(&complains)),
            ("obeys", shell(obeys)),
            ("stopped-by-owner", shell(TWICE)),
        ],
    );
    let names = world.containers().await;
    let owned = names.iter().find(|name| name.contains("stopped-by-owner")).expect("it runs");
    let client = world.engine.client();
    client.stop_container(owned.trim_start_matches('/'), None).await.expect("it is stopped");
    assert_eq!(stages(&world.outcome("stopped-by-owner")), AGAIN);
    world.engine.stop_daemon();
    world.engine.start_daemon();
    for id in ["dies", "complains", "obeys"] {
        let statuses = world.outcome(id);
        assert_eq!(stages(&statuses), AGAIN, "{id}");
        assert_eq!(end(&statuses), json!(["completed", null, 2, 0]), "{id}");
    }
    let obeyed = world.statuses("obeys");
    assert_eq!(world.output(&obeyed).await, "whole\n", "half a result does not count");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_engine_that_is_killed_fails_no_job_and_hides_no_failure() {
    let mut world = World::start().await;
    let agent = world.agent(&[("JOB_SLOTS", "5"), ("JOB_WARM_NETWORKS", "0")]);
    run_all(
        &world,
        &agent,
        &[
            ("goes-on", shell(TWICE)),
            ("fails-meanwhile", shell("sleep 2; exit 3")),
            ("ends-meanwhile", shell("sleep 2; echo x > /output/output")),
        ],
    );
    world.engine.kill_daemon();
    agent.wait_for("job goes-on: the container engine at");
    // Containers go on without the engine: both end while it is away.
    eventually("two of three containers end", PATIENCE, || {
        (world.engine.living() == 1).then_some(())
    });
    world.engine.start_daemon();
    let statuses = world.outcome("goes-on");
    assert_eq!(stages(&statuses), AGAIN);
    assert_eq!(end(&statuses), json!(["completed", null, 2, 0]));
    assert_eq!(end(&world.outcome("fails-meanwhile")), json!(["failed", "nonzero_exit", 1, 3]));
    assert_eq!(end(&world.outcome("ends-meanwhile")), json!(["completed", null, 1, 0]));
    // While the engine runs, every exit code is believed.
    for (id, code) in [("by-itself-255", 255), ("by-itself-143", 143), ("by-itself-137", 137)] {
        world.publish(id, &shell(&format!("exit {code}")));
        assert_eq!(end(&world.outcome(id)), json!(["failed", "nonzero_exit", 1, code]));
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_whose_host_went_down_runs_again_and_is_blamed_for_nothing() {
    let mut world = World::start().await;
    // An orderly shutdown of node and engine: nobody saw the job end.
    let mut agent = world.agent(&[]);
    run_all(&world, &agent, &[("in-order", shell(TWICE))]);
    agent.kill();
    world.engine.stop_daemon();
    world.engine.start_daemon();
    let mut agent = world.agent(&[]);
    assert_eq!(stages(&world.outcome("in-order")), AGAIN);
    // A power cut.
    run_all(&world, &agent, &[("by-power", shell(TWICE))]);
    agent.kill();
    world.engine.cut_power();
    world.engine.start_daemon();
    let agent = world.agent(&[]);
    assert_eq!(stages(&world.outcome("by-power")), AGAIN);
    // A power cut of the engine's host only, while the node runs.
    run_all(&world, &agent, &[("watched", shell(TWICE))]);
    world.engine.cut_power();
    world.engine.start_daemon();
    assert_eq!(stages(&world.outcome("watched")), AGAIN);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_engine_that_is_away_between_pull_and_start_is_waited_for() {
    let mut world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[("IPFS_GATEWAYS", &proxy.url()), ("FETCH_GIVE_UP_S", "1")]);
    let input = world.pin(b"input").await;
    proxy.set_fetches(Weather::Status(503, None));
    world.publish(
        "between",
        &shell_with("cp /input/input /output/output", &json!({"input_file_cid": input})),
    );
    agent.wait_for("job between: pulled");
    world.engine.kill_daemon();
    proxy.set_fetches(Weather::Clear);
    agent.wait_for("job between: starting");
    agent.wait_for("job between: the container engine at");
    // More tries than the job's own fault would get.
    let tries = |log: &str| log.matches("job between: the container engine at").count();
    eventually("several tries", PATIENCE, || (tries(&agent.log()) >= 4).then_some(()));
    world.engine.start_daemon();
    let statuses = world.outcome("between");
    assert_eq!(stages(&statuses), "accepted pulling fetching running uploading completed");
    assert_eq!(end(&statuses), json!(["completed", null, 1, 0]));
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_result_is_published_while_the_engine_is_away() {
    let mut world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[("PINATA_API_URL", &proxy.url())]);
    proxy.set_pins(Weather::Status(500, None));
    world.publish("result", &shell("echo result > /output/output"));
    let copied = json!({"output_path": "/elsewhere"});
    world.publish("copied", &shell_with("sleep 1; echo copied > /elsewhere", &copied));
    for id in ["result", "copied"] {
        agent.wait_for(&format!("job {id}: the output:"));
    }
    world.engine.stop_daemon();
    proxy.set_pins(Weather::Clear);
    for (id, output) in [("result", "result\n"), ("copied", "copied\n")] {
        let statuses = world.outcome(id);
        assert_eq!(world.output(&statuses).await, output);
    }
    world.engine.start_daemon();
    world.wait_until_clean().await;
    assert_eq!(last(&world.statuses("result"))["attempt"], 1);
}
