//! A job of a pool is run by one node and ends once.

use serde_json::json;

use super::{HELD, Pool, SHORT, address, by_node, dead_letters, is_end, last};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, job, shell};

#[tokio::test]
async fn each_job_of_a_pool_runs_once_on_a_node_with_a_free_slot() {
    let pool = Pool::start(120).await;
    let _agents = [pool.agent(1, &[]), pool.agent(2, &[])];
    for id in ["long-a", "long-b"] {
        pool.publish(id, &shell(HELD));
    }
    // Each node has one of the two, in either order.
    let has = |account, id| pool.held(account, id).exists();
    let (first, second) = eventually("both nodes have a job", PATIENCE, || {
        let either = [("long-a", "long-b"), ("long-b", "long-a")];
        either.into_iter().find(|(first, second)| has(1, first) && has(2, second))
    });
    let short: Vec<String> = (0..6).map(|number| format!("short-{number}")).collect();
    for id in &short {
        pool.publish(id, &shell(SHORT));
    }
    assert_eq!(pool.consumer(), (6, 2), "no node takes a job without a free slot");
    pool.release(1, first);
    pool.release(2, second);
    let all = eventually("all have ended", PATIENCE, || {
        let all = pool.world.statuses("*");
        (all.iter().filter(|one| is_end(one)).count() >= 8).then_some(all)
    });
    pool.world.wait_until_clean().await;
    for id in short.iter().map(String::as_str).chain(["long-a", "long-b"]) {
        let said = by_node(all.iter().filter(|one| one["job_id"] == id).cloned().collect());
        assert_eq!(said.len(), 1, "one node spoke of it: {said:?}");
        let (node, statuses) = said.first_key_value().expect("a node");
        assert_eq!(statuses.last().expect("statuses")["stage"], "completed");
        assert_eq!(pool.starts(id).await, [*node]);
    }
}

#[tokio::test]
async fn agents_that_started_while_jetstream_was_away_end_a_job_once() {
    let mut pool = Pool::start(120).await;
    pool.world.nats.restart_without_jetstream();
    let first = pool.start_agent(1, &[]);
    first.wait_for("has no JetStream");
    pool.world.nats.restart_with_jetstream();
    let _second = pool.agent(2, &[]);
    first.wait_for("waiting for jobs on jobs.pool.it");
    pool.publish("once", &shell(SHORT));
    let said = pool.outcome("once").await;
    assert_eq!(said.len(), 1, "one node spoke of it: {said:?}");
    assert_eq!(pool.starts("once").await.len(), 1);
    assert!(first.log().contains("set NATS_MODE=core"), "{}", first.log());
}

#[tokio::test]
async fn a_pools_job_that_is_published_again_does_not_run_again() {
    let pool = Pool::start(120).await;
    let _agents = [pool.agent(1, &[]), pool.agent(2, &[])];
    pool.publish("twice", &shell(HELD));
    let has = eventually("a node has the job", PATIENCE, || {
        [1, 2].into_iter().find(|account| pool.held(*account, "twice").exists())
    });
    // Published again: the same job, and another job with its id. Both go to the other node.
    pool.publish("twice", &shell(HELD));
    let other = job("twice", &shell(SHORT)).to_string();
    pool.world.publish_to("jobs.pool.it", &other);
    let refused = eventually("the other body is refused", PATIENCE, || {
        pool.world.statuses("*").into_iter().find(|one| one["reason_code"] == "duplicate_job_id")
    });
    assert_eq!(refused["status"], "rejected");
    assert_ne!(refused["agent_address"], json!(address(has)));
    assert!(refused["job_id"].as_str().is_some_and(|id| id.starts_with("invalid-")), "{refused}");
    pool.release(has, "twice");
    let said = pool.outcome("twice").await;
    assert_eq!(last(&said, has), json!(["completed", null]));
    // Published again after its end.
    pool.publish("twice", &shell(HELD));
    let said_after = pool.outcome("twice").await;
    assert_eq!(said_after, said);
    assert_eq!(pool.starts("twice").await, [address(has)]);
}

#[tokio::test]
async fn a_job_that_takes_its_container_down_three_times_is_put_aside() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("deadly", &shell("sleep 600"));
    for attempt in 1..=3 {
        let running = eventually("the job runs", PATIENCE, || {
            let statuses = world.statuses("deadly").into_iter();
            statuses.filter(|one| one["stage"] == "running").nth(attempt - 1)
        });
        assert_eq!(running["attempt"], json!(attempt));
        let name = format!("-deadly-{attempt}");
        let all = world.containers().await;
        let container = all.iter().find(|container| container.ends_with(&name)).expect("it runs");
        let force = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true);
        let client = world.engine.client();
        let removed =
            client.remove_container(container.trim_start_matches('/'), Some(force.build()));
        removed.await.expect("it is removed");
    }
    let statuses = world.outcome("deadly");
    let last = statuses.last().expect("statuses");
    assert_eq!(json!([last["stage"], last["reason_code"]]), json!(["failed", "poison"]));
    world.wait_until_clean().await;
    let letters = dead_letters(&world, &World::agent_address().to_string());
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!(letter["job"]["job_id"], "deadly");
    let history = letter["history"].as_array().expect("a history");
    let losses = history.iter().filter(|one| one["event"] == "lost").count();
    assert_eq!(losses, 3, "{letter}");
    assert!(history.iter().all(|one| one["at"].is_string()), "{letter}");
    assert!(!agent.log().contains("ERROR"), "{}", agent.log());
}
