//! Jobs that take all that there is: processes, memory, disk, log.

use serde_json::{Value, json};

use super::{Siege, between};
use crate::support::world::{World, last, shell_with};

/// What a job does, and how it ends: the id, its script, its further keys, its status and reason.
fn floods() -> Vec<(&'static str, &'static str, Value, &'static str, Value)> {
    let small = |more: Value| {
        let mut job = json!({"memory_mib": 64, "disk_mib": 16, "milli_cpus": 500});
        job.as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        job
    };
    let strict = json!({"sandbox": "strict"});
    vec![
        // Which of its limits it meets first (memory, processes, time) is chance.
        (
            "fork-bomb",
            "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done",
            small(json!({"timeout_s": 3})),
            "timed_out",
            json!("timeout"),
        ),
        ("memory", "tail /dev/zero", small(json!({})), "failed", json!("out_of_memory")),
        (
            "swap",
            "a=x; while :; do a=$a$a; done",
            small(json!({})),
            "failed",
            json!("out_of_memory"),
        ),
        (
            "shm",
            "dd if=/dev/zero of=/dev/shm/x bs=1M; exit 3",
            small(json!({"shm_mib": 8})),
            "failed",
            json!("nonzero_exit"),
        ),
        (
            "shm-hog",
            "dd if=/dev/zero of=/dev/shm/x bs=1M; exit 3",
            small(json!({"shm_mib": 1024})),
            "failed",
            json!("out_of_memory"),
        ),
        (
            "tmp",
            "dd if=/dev/zero of=/tmp/x bs=1M; sleep 1000",
            small(json!({})),
            "failed",
            json!("disk_exceeded"),
        ),
        (
            "strict-tmp",
            "dd if=/dev/zero of=/tmp/x bs=1M; exit 3",
            small(strict),
            "failed",
            json!("nonzero_exit"),
        ),
        (
            "many-files",
            "cd /tmp; i=0; while [ $i -lt 5000 ]; do i=$((i+1)); : > $i; done; echo x > /output/output",
            small(json!({})),
            "completed",
            Value::Null,
        ),
        (
            "log",
            "yes 'a line of a flood'",
            small(json!({"timeout_s": 3})),
            "timed_out",
            json!("timeout"),
        ),
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
