//! The node's disk is full: under an input, under an output, under the journal itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::end;
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell, shell_with};

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
    // The result is complete; the rest of the disk is filled too.
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

/// A script that nests so many thousand folders in the current one, a thousand at a time.
fn nest(thousands: u32) -> String {
    format!(
        "p=d; for i in 1 2 3 4 5 6 7 8 9 10; do p=$p/$p; done; \
         for i in $(seq {thousands}); do mkdir -p $p && cd -P $p || exit 9; done; : > end"
    )
}

#[tokio::test]
async fn folders_in_one_another_end_their_job_and_not_the_node() {
    end_with_folders_in_one_another(8).await;
}

/// A job that leaves so many thousand nested folders ends, and the node goes on.
pub(crate) async fn end_with_folders_in_one_another(thousands: u32) {
    let world = World::start_on_small_disk(64).await;
    let mut agent = world.agent(&SETTINGS);
    world.publish("deep", &shell(&format!("cd /output; {}", nest(thousands))));
    // Making them takes time quadratic in their number.
    let patience = PATIENCE * thousands.div_ceil(4);
    eventually("the folders are made", patience, || {
        agent.log().contains("job deep: exited").then_some(())
    });
    assert_eq!(end(&world.outcome("deep")), json!(["failed", "output_unsupported", 1, 0]));
    agent.kill();
    let agent = world.agent(&SETTINGS);
    world.publish("next", &shell("echo x > /output/output"));
    assert_eq!(end(&world.outcome("next")), json!(["completed", null, 1, 0]));
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn a_layer_too_deep_for_the_engine_ends_its_job_all_the_same() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    // In the container's own layer: the engine has to copy from there and then remove it.
    let elsewhere = json!({"output_path": "/tmp/deep"});
    let script = format!("mkdir -p /tmp/deep; cd /tmp/deep; {}", nest(20));
    world.publish("deep", &shell_with(&script, &elsewhere));
    assert_eq!(end(&world.outcome("deep")), json!(["failed", "output_unsupported", 1, 0]));
    eventually("the message is acknowledged", PATIENCE, || (world.queued() == 0).then_some(()));
    world.publish("next", &shell("echo x > /output/output"));
    assert_eq!(end(&world.outcome("next")), json!(["completed", null, 1, 0]));
    drop(agent);
}

/// Whether a job's first attempt was stopped for the disk. There is no grace period, so either of the
/// engine's two signals may have ended it.
pub(super) fn is_stopped_for_the_disk(statuses: &[Value]) -> bool {
    let end = end(statuses);
    end[0] == "failed"
        && end[1] == "disk_exceeded"
        && end[2] == 1
        && (end[3] == 143 || end[3] == 137)
}

#[tokio::test]
async fn a_job_that_fills_the_disk_and_stays_is_stopped_and_the_next_one_runs() {
    let world = World::start_on_small_disk(64).await;
    let agent = world.agent(&SETTINGS);
    world.publish("small", &shell("sleep 1000"));
    agent.wait_for("job small: running");
    let greedy = "dd if=/dev/zero of=/output/rest bs=1M; sleep 1000";
    world.publish("greedy", &shell(greedy));
    let statuses = world.outcome("greedy");
    assert!(is_stopped_for_the_disk(&statuses), "{statuses:?}");
    let said = last(&statuses)["error"].as_str().expect("a sentence");
    assert!(said.contains("disk ran full"), "{said}");
    // The job that wrote nothing goes on.
    world.publish("next", &shell("echo x > /output/output"));
    assert_eq!(end(&world.outcome("next")), json!(["completed", null, 1, 0]));
    assert_eq!(last(&world.statuses("small"))["stage"], "running");
    drop(agent);
}

#[tokio::test]
async fn a_job_that_writes_more_than_it_may_is_stopped_wherever_it_writes() {
    let world = World::start_on_small_disk(96).await;
    let agent = world.agent(&SETTINGS);
    for (id, file) in [("in-output", "/output/rest"), ("in-its-layer", "/rest")] {
        let script = format!("dd if=/dev/zero of={file} bs=1M count=20; sleep 1000");
        world.publish(id, &shell_with(&script, &json!({"disk_mib": 8})));
    }
    for id in ["in-output", "in-its-layer"] {
        let statuses = world.outcome(id);
        assert!(is_stopped_for_the_disk(&statuses), "{id}: {statuses:?}");
        let said = last(&statuses)["error"].as_str().expect("a sentence");
        assert!(said.contains("more than its disk_mib"), "{id}: {said}");
    }
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn a_job_that_takes_every_inode_is_stopped_and_the_next_one_runs() {
    let world = World::start_on_few_inodes(64, 4000).await;
    let agent = world.agent(&SETTINGS);
    let script = "i=0; while : > /output/$i; do i=$((i + 1)); done; sleep 1000";
    // A shell ends when a redirection fails, so an outer one stays.
    world.publish("many", &shell(&format!("(sh -c '{script}'); sleep 1000")));
    let statuses = world.outcome("many");
    assert!(is_stopped_for_the_disk(&statuses), "{statuses:?}");
    world.publish("next", &shell("echo x > /output/output"));
    assert_eq!(end(&world.outcome("next")), json!(["completed", null, 1, 0]));
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn a_disk_that_is_filled_before_the_start_is_written_down_costs_no_result() {
    let world = World::start_on_small_disk(64).await;
    let disk = world.disk.as_ref().expect("a small disk");
    // The node dies right after the container's start, which is not in the journal yet.
    let armed = [&SETTINGS[..], &[("LAMDA_FAILPOINT", "start.after")]].concat();
    let mut agent = world.agent(&armed);
    let script = "mkdir /output/r; echo result > /output/r/x; \
        dd if=/dev/zero of=/output/r/rest bs=1M; true";
    world.publish("full", &shell_with(script, &json!({"output_path": "/output/r/x"})));
    agent.wait_for_end();
    eventually("the disk is full", PATIENCE, || (disk.free_kib() == 0).then_some(()));
    let agent = world.agent(&SETTINGS);
    let statuses = world.outcome("full");
    assert_eq!(world.output(&statuses).await, "result\n");
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn of_two_jobs_with_much_on_a_full_disk_one_is_stopped_and_the_other_completes() {
    let world = World::start_on_small_disk(128).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let proxy = StoreProxy::start(&world.store());
    // The disk counts as full when less than half of it is free.
    let agent =
        world.agent(&[("DISK_FREE_MIN_MIB", "64"), ("PINATA_API_URL", proxy.url().as_str())]);
    // The stopped job stays in hand for a while, since its log can't be published.
    proxy.set_pins(Weather::Status(500, None));
    let fat = "dd if=/dev/zero of=/output/output bs=1M count=25; \
        while [ ! -e /output/go ]; do sleep 1; done; rm /output/go";
    world.publish("fat", &shell(fat));
    agent.wait_for("job fat: running");
    let fatter = "dd if=/dev/zero of=/output/rest bs=1M count=60; sleep 1000";
    world.publish("fatter", &shell(fatter));
    agent.wait_for("job fatter is stopped: the disk is full");
    eventually("there is room", PATIENCE, || (disk.free_kib() > 64 << 10).then_some(()));
    std::fs::write(world.output_folder("fat").join("go"), "").expect("a mark");
    agent.wait_for("job fat: collected");
    proxy.set_pins(Weather::Clear);
    assert_eq!(end(&world.outcome("fat")), json!(["completed", null, 1, 0]));
    let statuses = world.outcome("fatter");
    assert!(is_stopped_for_the_disk(&statuses), "{statuses:?}");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_finds_no_room_to_start_waits_for_it_and_takes_none_that_others_need() {
    let world = World::start_on_small_disk(64).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let agent = world.agent(&[("DISK_FREE_MIN_MIB", "0"), ("FETCH_GIVE_UP_S", "1")]);
    disk.fill_but(4 << 10);
    world.publish("waits", &shell("echo x > /output/output"));
    // More tries than `FETCH_GIVE_UP_S` allows, with pauses of 0.5, 1, 2 and 4 s.
    let failed = || agent.log().matches("job waits: the node's disk failed the job").count();
    eventually("it is tried again and again", PATIENCE, || (failed() > 3).then_some(()));
    assert_eq!(last(&world.statuses("waits"))["stage"], "pulling");
    disk.free();
    assert_eq!(end(&world.outcome("waits")), json!(["completed", null, 1, 0]));
    world.wait_until_clean().await;
}

#[tokio::test]
async fn what_jobs_left_goes_though_their_folder_is_another_file_system() {
    let world = World::start_with_jobs_elsewhere().await;
    let agent = world.agent(&SETTINGS);
    for id in ["one", "two"] {
        world.publish(id, &shell("echo x > /output/output"));
        assert_eq!(end(&world.outcome(id)), json!(["completed", null, 1, 0]), "{id}");
    }
    world.wait_until_clean().await;
    drop(agent);
}

#[tokio::test]
async fn a_node_without_rights_to_what_jobs_leave_has_the_engine_read_and_open_it() {
    let world = World::start().await;
    let agent = world.start_agent_without_rights(&[("UPLOAD_GIVE_UP_S", "1")]);
    agent.wait_for("this user may not read or remove what jobs leave under other users");
    agent.wait_for("waiting for jobs on jobs.dispatch");
    let script = "echo result > /output/output; \
        while [ ! -e /output/go ]; do sleep 1; done; rm /output/go";
    world.publish("closed", &shell(script));
    let folder = world.output_folder("closed");
    let output = folder.join("output");
    eventually("it has written", PATIENCE, || output.exists().then_some(()));
    // As a program of another user would leave it.
    let closed = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        std::os::unix::fs::chown(path, Some(1000), None).expect("an owner");
    };
    closed(&output, 0o600);
    let deep = folder.join("one/two/three");
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::write(deep.join("file"), "deep").expect("a file");
    for folder in deep.ancestors().take(3) {
        closed(folder, 0o700);
    }
    std::fs::write(folder.join("go"), "").expect("a mark");
    let statuses = world.outcome("closed");
    assert_eq!(end(&statuses), json!(["completed", null, 1, 0]));
    let cid = last(&statuses)["output_cid"].as_str().expect("an output").to_owned();
    for (path, content) in [("output", "result\n"), ("one/two/three/file", "deep")] {
        let got = world.content(&format!("{cid}/{path}")).await;
        assert_eq!(String::from_utf8_lossy(&got), content, "{path}");
    }
    world.wait_until_clean().await;
    let trash = world.dir.path().join("data/jobs/.trash");
    eventually("nothing of it is left", PATIENCE, || {
        (std::fs::read_dir(&trash).ok()?.count() == 0).then_some(())
    });
}

#[tokio::test]
async fn a_jobs_root_that_closes_its_output_to_the_node_costs_nobody_anything() {
    let world = World::start().await;
    let agent = world.start_agent_without_rights(&[("JOB_STOP_GRACE_S", "0")]);
    agent.wait_for("waiting for jobs on jobs.dispatch");
    let shut = "chown 1000 /output; chmod 0 /output";
    let result = format!("echo result > /output/output; chmod 0 /output/output; {shut}");
    world.publish("result", &shell(&result));
    let statuses = world.outcome("result");
    assert_eq!(end(&statuses), json!(["completed", null, 1, 0]));
    let cid = last(&statuses)["output_cid"].as_str().expect("an output").to_owned();
    assert_eq!(world.content(&cid).await, b"result\n");
    // Stopped for what it wrote elsewhere: what it left in its output goes at once.
    let large = "dd if=/dev/zero of=/large bs=1M count=20; sleep 1000";
    let greedy = format!("echo rest > /output/rest; {shut}; {large}");
    world.publish("greedy", &shell_with(&greedy, &json!({"disk_mib": 8})));
    let statuses = world.outcome("greedy");
    assert!(is_stopped_for_the_disk(&statuses), "{statuses:?}");
    assert!(!agent.log().contains("what job greedy left can't be removed"), "{}", agent.log());
    world.wait_until_clean().await;
    let trash = world.dir.path().join("data/jobs/.trash");
    eventually("nothing of it is left", PATIENCE, || {
        (std::fs::read_dir(&trash).ok()?.count() == 0).then_some(())
    });
}
