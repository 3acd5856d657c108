//! Jobs that take all that there is: processes, memory, disk, log.

use lamda_node::clock::Timestamp;
use serde_json::{Value, json};

use super::{Siege, between};
use crate::support::world::{World, last, shell_with};

/// What a job does, and how it ends: the id, its script, its further keys, its status and reason.
type Flood = (&'static str, &'static str, Value, &'static str, Value);

/// The limits of each, with these further keys.
fn small(more: Value) -> Value {
    let mut job = json!({"memory_mib": 64, "disk_mib": 16, "milli_cpus": 500});
    if let (Some(job), Value::Object(more)) = (job.as_object_mut(), more) {
        job.extend(more);
    }
    job
}

/// The first of them ends by whichever of its limits it meets first: memory, processes, time.
fn floods() -> Vec<Flood> {
    let bomb = "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done";
    let shm = "dd if=/dev/zero of=/dev/shm/x bs=1M; exit 3";
    let tmp = "dd if=/dev/zero of=/tmp/x bs=1M; sleep 1000";
    let strict_tmp = "dd if=/dev/zero of=/tmp/x bs=1M; exit 3";
    let files =
        "cd /tmp; i=0; while [ $i -lt 5000 ]; do i=$((i+1)); : > $i; done; echo x > /output/output";
    let failed =
        |id, script, more, reason: &str| (id, script, small(more), "failed", json!(reason));
    let late =
        |id, script| (id, script, small(json!({"timeout_s": 3})), "timed_out", json!("timeout"));
    vec![
        late("fork-bomb", bomb),
        failed("memory", "tail /dev/zero", json!({}), "out_of_memory"),
        failed("swap", "a=x; while :; do a=$a$a; done", json!({}), "out_of_memory"),
        failed("shm", shm, json!({"shm_mib": 8}), "nonzero_exit"),
        failed("shm-hog", shm, json!({"shm_mib": 1024}), "out_of_memory"),
        failed("tmp", tmp, json!({}), "disk_exceeded"),
        failed("strict-tmp", strict_tmp, json!({"sandbox": "strict"}), "nonzero_exit"),
        ("many-files", files, small(json!({})), "completed", Value::Null),
        late("log", "yes 'a line of a flood'"),
    ]
}

#[tokio::test]
async fn jobs_that_take_all_there_is_end_alone() {
    let siege = Siege::begin(World::start().await, &[]);
    for (id, script, more, ..) in floods() {
        siege.world.publish(id, &shell_with(script, &more));
    }
    let bomb = siege.world.outcome("fork-bomb");
    let end = last(&bomb);
    let ends = ["timeout", "out_of_memory", "nonzero_exit"];
    assert!(ends.iter().any(|reason| end["reason_code"] == *reason), "{end}");
    let stage = end["stage"].as_str().expect("a stage");
    assert!(between(&bomb, "running", stage).as_secs() < 30, "{end}");
    for (id, .., status, reason) in floods().into_iter().skip(1) {
        let statuses = siege.ends(id, status, reason);
        if status == "timed_out" {
            let took = between(&statuses, "running", "timed_out").as_secs();
            // After a flood the node reads what the engine still has of the log for a minute at most.
            let most = if id == "log" { 100 } else { 30 };
            assert!((3..most).contains(&took), "{id} was stopped after {took} s");
        }
        if id == "log" {
            let cid = last(&statuses)["log_cid"].as_str().expect("a log").to_owned();
            assert!(siege.world.content(&cid).await.len() < 2 << 20, "all of a flood was kept");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn the_slot_of_a_flood_of_log_is_free_before_its_log_is_read() {
    let world = World::start().await;
    let agent = world.agent(&[("JOB_SLOTS", "1"), ("JOB_WARM_NETWORKS", "0")]);
    // Short lines are written faster than they are read.
    let flood = "timeout 5 yes 'a line of a flood'; exit 0";
    world.publish("flood", &shell_with(flood, &json!({})));
    agent.wait_for("job flood: running");
    world.publish("next", &shell_with("echo x > /output/output", &json!({})));
    let next = world.outcome("next");
    let flood = world.outcome("flood");
    let at = |statuses: &[Value], stage: &str| {
        let found = statuses.iter().find(|one| one["stage"] == stage).expect("the stage");
        found["timestamp"].as_str().expect("a time").parse::<Timestamp>().expect("a time")
    };
    let end = last(&flood);
    let ended_ms = end["duration_ms"]["run"].as_u64().expect("a run");
    let gone = Timestamp::from_unix_ms(at(&flood, "running").unix_ms() + ended_ms);
    let waited = at(&next, "running").since(gone);
    let read = at(&flood, end["stage"].as_str().expect("a stage")).since(gone);
    assert!(
        at(&next, "running") < at(&flood, "uploading"),
        "it waited for the log: {waited:?}, {read:?}"
    );
    world.wait_until_clean().await;
}
