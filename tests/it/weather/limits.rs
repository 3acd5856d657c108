//! A job's `disk_mib` holds for all that the job has on the disk together, in bytes and in files, whatever it is
//! written to, and by the engine's own quota where there is one.

use std::time::Instant;

use serde_json::{Value, json};

use super::disk::is_stopped_for_the_disk;
use super::end;
use crate::support::odd_engine::{NO_LAYER_SIZE, OddEngine};
use crate::support::small_disk::SmallDisk;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell_with};

#[tokio::test]
async fn what_a_job_gets_and_writes_counts_together_and_none_of_it_alone() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let input = world.pin(&vec![7; 6 << 20]).await;
    // 6 MiB each, of 20 that it may have.
    let script = "dd if=/dev/zero of=/output/x bs=1M count=6; dd if=/dev/zero of=/x bs=1M count=6; \
        head -c 6291456 /dev/zero | tr '\\0' a | fold -w 4000; sleep 1000";
    let more = json!({"disk_mib": 20, "input_file_cid": input});
    world.publish("all", &shell_with(script, &more));
    let statuses = world.outcome("all");
    assert!(is_stopped_for_the_disk(&statuses), "{statuses:?}");
    let line = agent.log();
    let line = line.lines().find(|line| line.contains("job all is stopped")).expect("a line");
    for part in ["limit_mib=20", "input_mib=6", "output_mib=6", "layer_mib=6"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let more = json!({"disk_mib": 24, "input_file_cid": input});
    world.publish("well", &shell_with(&script.replace("sleep 1000", "exit 3"), &more));
    assert_eq!(end(&world.outcome("well")), json!(["failed", "nonzero_exit", 1, 3]));
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_makes_too_many_empty_files_is_stopped_wherever_it_makes_them() {
    // The node sees the engine's folders, so it counts what is in the layer too.
    let world = World::start_with_engine_on(|at| SmallDisk::mount(at, 512)).await;
    let agent = world.agent(&[]);
    for (id, folder) in [("in-output", "/output"), ("in-its-layer", "/tmp")] {
        let script = format!("cd {folder}; seq 20000 | xargs touch; echo made; sleep 1000");
        world.publish(id, &shell_with(&script, &json!({"disk_mib": 64})));
    }
    for id in ["in-output", "in-its-layer"] {
        let statuses = world.outcome(id);
        assert!(is_stopped_for_the_disk(&statuses), "{id}: {statuses:?}");
        agent.wait_for(&format!("job {id} is stopped: it has made more files"));
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_engine_with_quotas_refuses_what_is_too_much_and_the_job_ends_for_its_disk() {
    let world = World::start_with_engine_on(|at| SmallDisk::mount_btrfs(at, 1024)).await;
    let mut agent = world.agent(&[]);
    let told = |statuses: &[Value]| last(statuses)["log_cid"].as_str().map(str::to_owned);
    // The engine's disk would take that.
    let script = "fallocate -l 400M /big && exit 7; dd if=/dev/zero of=/x bs=1M count=400; exit 9";
    world.publish("fails", &shell_with(script, &json!({"disk_mib": 8})));
    let statuses = world.outcome("fails");
    // A look may come before the job's own end, or after it.
    let end_of = end(&statuses);
    assert_eq!((&end_of[0], &end_of[1]), (&json!("failed"), &json!("disk_exceeded")));
    assert!([9, 137, 143].map(|code| json!(code)).contains(&end_of[3]), "{end_of}");
    let log = world.content(&told(&statuses).expect("a log")).await;
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(log.contains("Disk quota exceeded"), "{log}");
    // A failure within the limit is the job's own.
    world.publish("own", &shell_with("exit 4", &json!({"disk_mib": 8})));
    assert_eq!(end(&world.outcome("own")), json!(["failed", "nonzero_exit", 1, 4]));
    // The engine can't measure a layer that is full to the last block: there it says nothing of its size.
    agent.kill();
    let odd = OddEngine::start(&world.engine.host(), NO_LAYER_SIZE);
    let _agent = world.agent(&[("DOCKER_HOST", &odd.host())]);
    world.publish("closed", &shell_with("exit 9", &json!({"disk_mib": 8})));
    assert_eq!(end(&world.outcome("closed")), json!(["failed", "disk_exceeded", 1, 9]));
    world.wait_until_clean().await;
    let doctor = world.command(&["doctor"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("disk: btrfs") && said.contains("holds each job's layer"), "{said}");
}

/// Prints what docs/performance.md says of it: `cargo nextest run --no-capture overshoot`.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "a measurement")]
async fn the_overshoot_of_one_large_allocation_is_short_and_given_back() {
    let world = World::start_on_ext4(10 << 10).await;
    let disk = world.disk.as_ref().expect("a disk");
    let agent = world.agent(&[("DISK_FREE_MIN_MIB", "512")]);
    for round in 0..5 {
        let (id, before) = (format!("much-{round}"), disk.free_kib());
        world.publish(
            &id,
            &shell_with("fallocate -l 8G /output/big; sleep 1000", &json!({"disk_mib": 64})),
        );
        let taken = || before.saturating_sub(disk.free_kib()) >> 10;
        let most =
            eventually("it is allocated", PATIENCE, || Some(taken()).filter(|mib| *mib > 8000));
        let (began, line) = (Instant::now(), format!("job {id} is stopped: it has written more"));
        eventually("it is stopped", PATIENCE, || agent.log().contains(&line).then_some(()));
        let stopped = began.elapsed();
        eventually("it is given back", PATIENCE, || (taken() < 64).then_some(()));
        let free = began.elapsed();
        println!("{most} MiB of 64: seen after {stopped:?}, free again after {free:?}");
        assert!(is_stopped_for_the_disk(&world.outcome(&id)));
    }
    world.wait_until_clean().await;
}

/// A job with the default `disk_mib` that makes so many thousand empty files ends for its disk.
pub(crate) async fn end_with_empty_files(thousands: u32) {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let script = format!("cd /output; seq {thousands}000 | xargs touch; echo made; sleep 1000");
    world.publish("many", &shell_with(&script, &json!({})));
    agent.wait_for("job many is stopped: it has made more files");
    assert!(is_stopped_for_the_disk(&world.outcome("many")));
    world.wait_until_clean().await;
}
