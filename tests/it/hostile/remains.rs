//! Jobs that will not go, and outputs that are not what they seem.

use serde_json::{Value, json};

use super::{Siege, between};
use crate::support::world::{World, last, shell, shell_with};

/// A process that outlives its parents, holds the job's output stream, and does this for ever.
fn daemon(what: &str) -> String {
    format!("(setsid sh -c 'trap \"\" TERM HUP INT; while :; do {what}; done' &) &")
}

#[tokio::test]
async fn jobs_that_will_not_go_are_gone_in_time() {
    let siege = Siege::begin(World::start().await, &[]);
    let world = &siege.world;
    let stays = "trap '' TERM HUP INT; while :; do sleep 1; done";
    world.publish("stays", &shell_with(stays, &json!({"timeout_s": 2})));
    let leaves = format!("{} echo x > /output/output", daemon("echo still here; sleep 0.1"));
    world.publish("daemon", &shell(&leaves));
    // The command is over in a moment, and the daemon stays until the container is killed.
    let renames = |folder: &str| {
        let turn = format!("mv {folder}/a {folder}/b; mv {folder}/b {folder}/a");
        format!("mkdir -p {folder}; echo whole > {folder}/a; {} sleep 0.3", daemon(&turn))
    };
    world.publish("renames", &shell(&renames("/output")));
    world.publish(
        "renames-elsewhere",
        &shell_with(&renames("/work"), &json!({"output_path": "/work"})),
    );
    let swaps =
        daemon("rm -rf /output/d; mkdir /output/d; rm -rf /output/d; ln -s /proc/1 /output/d");
    world.publish("swaps", &shell(&format!("echo whole > /output/a; {swaps} sleep 0.3")));

    let statuses = siege.ends("stays", "timed_out", json!("timeout"));
    let took = between(&statuses, "running", "timed_out").as_secs();
    assert!((2..30).contains(&took), "it was stopped after {took} s");
    let statuses = siege.ends("daemon", "completed", Value::Null);
    let took = between(&statuses, "running", "completed").as_secs();
    assert!(took < 30, "a daemon held its job for {took} s");
    for id in ["renames", "renames-elsewhere", "swaps"] {
        let statuses = siege.ends(id, "completed", Value::Null);
        let cid = last(&statuses)["output_cid"].as_str().expect("an output").to_owned();
        let mut whole = 0;
        for name in ["", "/a", "/b"] {
            whole += usize::from(world.content(&format!("{cid}{name}")).await == b"whole\n");
        }
        assert!(whole >= 1, "{id}: {}", last(&statuses));
    }
    siege.end().await;
}

#[tokio::test]
async fn an_output_gives_only_what_the_job_could_read() {
    let siege = Siege::begin(World::start().await, &[]);
    let world = &siege.world;
    world.publish(
        "sparse",
        &shell_with(
            "dd if=/dev/zero of=/output/output bs=1 count=1 seek=1099511627775",
            &json!({"disk_mib": 64}),
        ),
    );
    world.publish(
        "sparse-elsewhere",
        &shell_with(
            "dd if=/dev/zero of=/sparse bs=1 count=1 seek=1099511627775",
            &json!({"disk_mib": 64, "output_path": "/sparse"}),
        ),
    );
    world.publish(
        "files",
        &shell_with(
            "cd /output; i=0; while [ $i -lt 31000 ]; do i=$((i+1)); : > $i; done",
            // Room for 65,536 files: more than an output may have.
            &json!({"disk_mib": 4096}),
        ),
    );
    // Names of two thousand bytes in all, one that is no text, and one that looks like an option.
    let odd = "cd /output; echo x > ./-rf; echo x > \"$(printf 'bad\\377')\"; echo x > \"$(printf '%0255d' 7)\"; \
        ln ./-rf hard; ln -s ../../../../../../../../etc/hostname up; ln -s /proc/self/environ env; echo x > good";
    world.publish("odd", &shell(odd));
    siege.ends("sparse", "failed", json!("output_too_large"));
    siege.ends("sparse-elsewhere", "failed", json!("output_too_large"));
    siege.ends("files", "failed", json!("output_unsupported"));
    let statuses = siege.ends("odd", "completed", Value::Null);
    let end = last(&statuses);
    let cid = end["output_cid"].as_str().expect("an output");
    for name in ["good", "-rf", "hard"] {
        assert_eq!(world.content(&format!("{cid}/{name}")).await, b"x\n", "{name}");
    }
    let notes = end["output_notes"].to_string();
    for name in ["up:", "env:"] {
        assert!(notes.contains(name), "{notes}");
    }
    siege.end().await;
}
