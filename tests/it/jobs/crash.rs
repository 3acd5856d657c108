//! The node is killed, shut down, or loses a part that it needs, and goes on where it was.

use std::time::Duration;

use lamda_node::clock::{Clock as _, SystemClock};

use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell, stages};

/// Prints a line for each start of the container, and ends once it is let go.
const COUNTED: &str = "echo started; until [ -e /output/go ]; do sleep 0.1; done; rm /output/go; echo x > /output/output";

/// Has such a job end.
fn let_go(world: &World, id: &str) {
    let folder = world.output_file(id, "").expect("it runs");
    std::fs::write(folder.join("go"), "").expect("it runs");
}

#[tokio::test]
async fn a_node_that_is_killed_takes_its_container_back() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    world.publish("kept", &shell(COUNTED));
    agent.wait_for("job kept: running");
    let before = world.containers().await;
    agent.kill();
    let agent = world.agent(&[]);
    agent.wait_for("took job kept back");
    assert_eq!(world.containers().await, before);
    let_go(&world, "kept");
    let statuses = world.outcome("kept");
    assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
    let log = world.content(last(&statuses)["log_cid"].as_str().expect("a log")).await;
    assert_eq!(String::from_utf8_lossy(&log), "started\n");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_ends_while_the_node_is_away_keeps_its_result() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    world.publish("away", &shell("sleep 0.5; echo result > /output/output"));
    agent.wait_for("job away: running");
    agent.kill();
    wait_for_exit(&world).await;
    let _agent = world.agent(&[]);
    let statuses = world.outcome("away");
    let cid = last(&statuses)["output_cid"].as_str().expect("an output").to_owned();
    assert_eq!(world.content(&cid).await, b"result\n");
    world.wait_until_clean().await;
}

/// Waits until the only container has ended.
async fn wait_for_exit(world: &World) {
    use futures_util::StreamExt as _;
    let name = world.containers().await.remove(0);
    let engine = world.engine.client();
    let mut exit = engine.wait_container(name.trim_start_matches('/'), None);
    tokio::time::timeout(PATIENCE, exit.next()).await.expect("the container ends");
}

#[tokio::test]
async fn a_result_that_came_in_time_is_kept_though_the_node_comes_back_late() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    let mut job = shell("echo result > /output/output");
    job["timeout_s"] = 1.into();
    world.publish("in-time", &job);
    agent.wait_for("job in-time: running");
    agent.kill();
    wait_for_exit(&world).await;
    let over = SystemClock.now().plus(Duration::from_secs(2));
    eventually("the job's time is over", PATIENCE, || (SystemClock.now() > over).then_some(()));
    let _agent = world.agent(&[]);
    assert_eq!(last(&world.outcome("in-time"))["status"], "completed");
}

#[tokio::test]
async fn a_job_that_comes_while_the_node_ends_stays_in_the_queue() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    world.publish("last", &shell("sleep 3; echo x > /output/output"));
    agent.wait_for("job last: running");
    agent.ask_to_end();
    agent.wait_for("waiting up to 30 s for 1 jobs");
    world.publish("next", &shell("echo x > /output/output"));
    assert!(agent.wait_for_end().success());
    assert_eq!(last(&world.outcome("last"))["status"], "completed");
    assert_eq!(world.statuses("next"), Vec::<serde_json::Value>::new());
    assert_eq!(world.queued(), 1);
    let _agent = world.agent(&[]);
    assert_eq!(last(&world.outcome("next"))["status"], "completed");
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_hands_its_job_back_and_runs_it_again() {
    let world = World::start().await;
    let mut agent = world.agent(&[("SHUTDOWN_GRACE_S", "0"), ("JOB_STOP_GRACE_S", "1")]);
    world.publish(
        "again",
        &shell("[ -e /tmp ] || true; echo run; sleep 5; echo x > /output/output"),
    );
    agent.wait_for("job again: running");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    assert_eq!(world.containers().await, Vec::<String>::new());
    assert_eq!(stages(&world.statuses("again")), "accepted pulling running interrupted");
    let _agent = world.agent(&[]);
    let statuses = world.outcome("again");
    assert_eq!(
        stages(&statuses),
        "accepted pulling running interrupted pulling running uploading completed"
    );
    assert_eq!(last(&statuses)["attempt"], 2);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_still_loses_nothing() {
    let world = World::start().await;
    let mut agent = world.agent(&[("SHUTDOWN_GRACE_S", "600")]);
    world.publish("held", &shell(COUNTED));
    agent.wait_for("job held: running");
    let before = world.containers().await;
    agent.ask_to_end();
    agent.wait_for("waiting up to 600 s for 1 jobs");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success(), "{}", agent.log());
    assert_eq!(world.containers().await, before, "the container goes on");
    // The next start publishes the statuses that are missing; none says that the job was interrupted.
    let told = stages(&world.statuses("held"));
    assert!("accepted pulling running".starts_with(&told), "{told}");
    assert_eq!(world.queued(), 1);
    let agent = world.agent(&[]);
    agent.wait_for("took job held back");
    let_go(&world, "held");
    let statuses = world.outcome("held");
    assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
    let log = world.content(last(&statuses)["log_cid"].as_str().expect("a log")).await;
    assert_eq!(String::from_utf8_lossy(&log), "started\n", "it was started once");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn containers_stay_where_the_owner_wants_it_so() {
    let world = World::start().await;
    let mut agent = world.agent(&[("SHUTDOWN_JOBS", "keep")]);
    world.publish("stays", &shell(COUNTED));
    agent.wait_for("job stays: running");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    assert_eq!(world.containers().await.len(), 1);
    let _agent = world.agent(&[]);
    let_go(&world, "stays");
    assert_eq!(stages(&world.outcome("stays")), "accepted pulling running uploading completed");
}

#[tokio::test]
async fn a_nats_server_that_is_killed_loses_no_job() {
    let mut world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("cut-off", &shell("sleep 2; echo x > /output/output"));
    agent.wait_for("job cut-off: running");
    world.nats.kill();
    agent.wait_for("event=\"exited\"");
    world.nats.restart();
    assert_eq!(last(&world.outcome("cut-off"))["status"], "completed");
    world.publish("after", &shell("echo x > /output/output"));
    assert_eq!(last(&world.outcome("after"))["status"], "completed");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn two_nodes_do_not_share_one_data_folder() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let output = world.command(&["run"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("another lamda-node uses the data folder"), "{said}");
}
