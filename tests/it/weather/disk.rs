//! The node's disk is full: under an input, under an output, under the journal itself.

use serde_json::json;

use super::{end, last, shell_with};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

const SETTINGS: [(&str, &str); 2] = [("DISK_FREE_MIN_MIB", "0"), ("FETCH_GIVE_UP_S", "60")];

#[tokio::test]
async fn an_input_that_finds_no_room_waits_for_it() {
    let world = World::start_on_small_disk(64).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let agent = world.agent(&SETTINGS);
    let bytes = "input ".repeat(1 << 20);
    let input = json!({"input_file_cid": world.pin(bytes.as_bytes()).await});
    disk.fill_but(3 << 10);
    world.publish("heavy", &shell_with("wc -c < /input/input > /output/output", &input));
    agent.wait_for("job heavy: the input: the disk is full");
    disk.free();
    let statuses = world.outcome("heavy");
    assert_eq!(world.output(&statuses).await.trim(), bytes.len().to_string());
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_fills_the_disk_ends_and_leaves_the_node_whole() {
    let world = World::start_on_small_disk(64).await;
    let agent = world.agent(&SETTINGS);
    let greedy = "echo begins; dd if=/dev/zero of=/output/output bs=1M; echo code $?; exit 3";
    world.publish("greedy", &shell(greedy));
    let statuses = world.outcome("greedy");
    assert_eq!(end(&statuses), json!(["failed", "nonzero_exit", 1, 3]));
    let log = world.content(last(&statuses)["log_cid"].as_str().expect("a log")).await;
    assert!(String::from_utf8_lossy(&log).contains("No space left on device"));
    world.publish("next", &shell("echo x > /output/output"));
    assert_eq!(end(&world.outcome("next")), json!(["completed", null, 1, 0]));
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn a_result_that_leaves_no_room_is_published_all_the_same() {
    let world = World::start_on_small_disk(64).await;
    let _agent = world.agent(&SETTINGS);
    // The result is whole; what is left over of the disk is taken, too.
    let script = "echo said; mkdir /output/r; echo result > /output/r/x; \
        dd if=/dev/zero of=/output/r/rest bs=1M; true";
    world.publish("full", &shell_with(script, &json!({"output_path": "/output/r/x"})));
    let statuses = world.outcome("full");
    assert_eq!(world.output(&statuses).await, "result\n");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_comes_while_the_journal_can_not_be_written_is_not_lost() {
    let world = World::start_on_small_disk(64).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let agent = world.agent(&SETTINGS);
    disk.fill_but(0);
    let ids: Vec<String> = (0..8).map(|n| format!("during-{n}")).collect();
    for id in &ids {
        world.publish(id, &shell("echo x > /output/output"));
    }
    agent.wait_for("the disk under the journal is full");
    assert_eq!(world.queued(), 8, "nothing was acknowledged");
    disk.free();
    for id in &ids {
        assert_eq!(end(&world.outcome(id)), json!(["completed", null, 1, 0]), "{id}");
    }
    assert!(agent.log().lines().count() < 2000, "it says it in few words");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_container_is_stopped_in_time_and_on_request_though_the_journal_can_not_be_written() {
    let world = World::start_on_small_disk(64).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let agent = world.agent(&[&SETTINGS[..], &[("JOB_STOP_GRACE_S", "1")]].concat());
    let for_ever = "sleep 100000";
    world.publish("late", &shell_with(for_ever, &json!({"timeout_s": 10})));
    world.publish("unwanted", &shell(for_ever));
    for id in ["late", "unwanted"] {
        agent.wait_for(&format!("job {id}: running"));
    }
    disk.fill_but(0);
    let control = format!("jobs.control.{}", World::agent_address());
    let cancel = json!({"action": "cancel", "job_id": "unwanted"}).to_string();
    let script = "await nc.publish(args[0], args[1].encode()); await nc.flush()";
    world.nats.python(script, &[&control, &cancel]);
    eventually("both containers end", PATIENCE, || (world.engine.living() == 0).then_some(()));
    disk.free();
    let told = |id| {
        let end = end(&world.outcome(id));
        (end[0].clone(), end[1].clone())
    };
    assert_eq!(told("late"), (json!("timed_out"), json!("timeout")));
    assert_eq!(told("unwanted"), (json!("cancelled"), json!("cancelled")));
    world.wait_until_clean().await;
}
