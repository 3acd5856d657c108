//! A GPU that falls ill while the node works, and one that a job leaves late.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gpu::toolkit::install;
use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell, shell_with, stages};

/// Two cards whose driver tells of XIDs.
fn cards() -> String {
    let cards = GPUS.map(|uuid| format!("gpu {uuid} 8589934592 0 NVIDIA T4\n"));
    let events = "say nvmlDeviceGetSupportedEventTypes * 0 65439\n";
    format!("driver 550.54.15\ncuda 12040\n{}{events}", cards.concat())
}

/// The line of `gpus --json` about this card, and whether the command says that all is well.
fn told(world: &World, library: &str, uuid: &str) -> (Value, bool) {
    let mut gpus: Command = world.command(&["gpus", "--json"]);
    let output = gpus.env("GPU_MODE", "auto").env("NVML_LIB", library).output().expect("it runs");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    (lines.find(|line| line["uuid"] == uuid).expect("the card"), output.status.success())
}

#[tokio::test]
async fn a_job_whose_card_falls_off_the_bus_runs_again_on_the_other_and_the_card_stays_out() {
    let world = World::start().await;
    let driver = FakeNvml::build(&cards());
    let library = driver.library().display().to_string();
    let settings = [("GPU_MODE", "auto"), ("NVML_LIB", library.as_str())];
    let mut agent = world.agent(&settings);
    let seen = "ls -d /dev/nvidia? > /output/output; \
        if grep -q nvidia0 /output/output; then sleep 1000; fi";
    world.publish("moves", &shell(seen));
    agent.wait_for("job moves: running");
    let (card, is_well) = told(&world, &library, GPUS[0]);
    assert_eq!(
        (&card["health"], &card["job_id"], is_well),
        (&json!("healthy"), &json!("moves"), true)
    );
    driver.tell(&format!("{}event 1 {} 8 79\n", cards(), GPUS[0]));
    let statuses = world.outcome("moves");
    let end = last(&statuses);
    assert_eq!((&end["status"], &end["attempt"]), (&json!("completed"), &json!(2)), "{end}");
    assert_eq!(world.output(&statuses).await, "/dev/nvidia1\n");
    let interrupted = statuses.iter().find(|status| status["stage"] == "interrupted");
    assert_eq!(interrupted.expect("it was given back")["reason_code"], "gpu_failed");
    agent.wait_for("is quarantined: Xid 79: the card fell off the bus");
    // A restart does not forget it.
    agent.kill();
    driver.tell(&cards());
    let _agent = world.agent(&settings);
    world.publish("next", &shell("ls -d /dev/nvidia? > /output/output"));
    assert_eq!(world.output(&world.outcome("next")).await, "/dev/nvidia1\n");
    let (card, is_well) = told(&world, &library, GPUS[0]);
    assert_eq!((&card["health"], is_well), (&json!("quarantined"), false));
    assert!(card["advice"].as_str().expect("advice").contains("nvidia-smi --gpu-reset"), "{card}");
    world.wait_until_clean().await;
}

/// The same cards, with the numbers of their device nodes.
fn numbered() -> String {
    let number = |(number, uuid)| format!("say nvmlDeviceGetMinorNumber {uuid} 0 {number}\n");
    cards() + &GPUS.iter().enumerate().map(number).collect::<String>()
}

/// The output's folder of a job's second attempt.
fn second_output(world: &World, id: &str) -> PathBuf {
    world.dir.path().join("data/jobs").join(id).join("2/output")
}

/// The reason codes of a job's statuses that have one.
fn reasons(statuses: &[Value]) -> Vec<&str> {
    statuses.iter().filter_map(|status| status["reason_code"].as_str()).collect()
}

#[tokio::test]
async fn a_container_that_has_other_cards_than_its_own_is_stopped_and_its_job_runs_again() {
    let world = World::start().await;
    let driver = FakeNvml::build(&numbered());
    let library = driver.library().display().to_string();
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", library.as_str())]);
    agent.wait_for("heartbeat sent");
    let waits =
        "while [ ! -e /output/go ]; do sleep 1; done; rm /output/go; echo x > /output/output";
    for (id, shown, why) in [
        (
            "other",
            "show 0 1",
            format!("it has /dev/nvidia1, the GPU {}, which it was not", GPUS[1]),
        ),
        ("none", "show", format!("it does not have /dev/nvidia0, its GPU {}", GPUS[0])),
    ] {
        world.engine.break_gpus(shown);
        world.publish(id, &shell_with(waits, &json!({"gpus": 1})));
        agent.wait_for(&format!("job {id} is stopped: its container has wrong GPUs: {why}"));
        world.engine.mend_gpus();
        eventually("it runs again", PATIENCE, || {
            let statuses = world.statuses(id);
            let end = last(&statuses);
            (end["attempt"] == 2 && end["stage"] == "running").then_some(())
        });
        std::fs::write(second_output(&world, id).join("go"), "").expect("a mark");
        let statuses = world.outcome(id);
        assert_eq!(last(&statuses)["status"], "completed", "{statuses:?}");
        assert_eq!(reasons(&statuses), ["gpu_failed"]);
    }
    // A running one loses its card.
    world.publish("late", &shell_with(waits, &json!({"gpus": 1})));
    agent.wait_for("job late: running");
    world.engine.take_card_away(0);
    let lost = "job late is stopped: its container has wrong GPUs: its control group does not let it open /dev/nvidia0";
    agent.wait_for(lost);
    eventually("it runs again", PATIENCE, || {
        let statuses = world.statuses("late");
        let end = last(&statuses);
        (end["attempt"] == 2 && end["stage"] == "running").then_some(())
    });
    std::fs::write(second_output(&world, "late").join("go"), "").expect("a mark");
    assert_eq!(reasons(&world.outcome("late")), ["gpu_failed"]);
    // It was the toolkit's fault: the cards are as well as before, and a job without any is left alone.
    assert_eq!(told(&world, &library, GPUS[0]).0["health"], "healthy");
    world.publish("cpu", &shell_with("sleep 2; echo x > /output/output", &json!({"gpus": 0})));
    assert_eq!(stages(&world.outcome("cpu")), "accepted pulling running uploading completed");
}

#[tokio::test]
async fn strangers_get_no_gpu_by_a_toolkit_with_known_escapes_unless_the_owner_allows_it() {
    let world = World::start().await;
    let driver = FakeNvml::build(&cards());
    let library = driver.library().display().to_string();
    let programs = tempfile::tempdir().expect("a folder");
    install(programs.path(), "nvidia-ctk", "echo NVIDIA Container Toolkit CLI version 1.17.3");
    let path = programs.path().display().to_string();
    let settings = [("GPU_MODE", "auto"), ("NVML_LIB", library.as_str()), ("PATH", path.as_str())];
    let mut agent = world.agent(&settings);
    agent.wait_for("no stranger's job gets a GPU: NVIDIA's container toolkit 1.17.3 lets");
    world.publish("by-default", &shell("true"));
    world.publish("one", &shell_with("true", &json!({"gpus": 1})));
    for id in ["by-default", "one"] {
        let statuses = world.outcome(id);
        let end = last(&statuses);
        assert_eq!(
            (&end["status"], &end["reason_code"]),
            (&json!("rejected"), &json!("toolkit_unsafe")),
            "{end}"
        );
        assert!(!end.to_string().contains("1.17"), "its version is nobody's business: {end}");
    }
    world.publish("none", &shell_with("echo x > /output/output", &json!({"gpus": 0})));
    assert_eq!(last(&world.outcome("none"))["status"], "completed");
    let doctor = world.command(&["doctor", "--json"]).envs(settings).output().expect("it runs");
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let row =
        report["checks"].as_array().into_iter().flatten().find(|row| row["name"] == "gpu toolkit");
    assert_eq!(row.expect("a row")["status"], "fail", "{report}");
    agent.kill();

    let allowed = [&settings[..], &[("GPU_ALLOW_UNSAFE_TOOLKIT", "true")]].concat();
    let agent = world.agent(&allowed);
    agent.wait_for("GPU_ALLOW_UNSAFE_TOOLKIT=true: jobs get GPUs all the same");
    world.publish("allowed", &shell_with("echo x > /output/output", &json!({"gpus": 1})));
    assert_eq!(last(&world.outcome("allowed"))["status"], "completed");
}

#[tokio::test]
async fn what_a_job_does_wrong_on_a_card_is_not_held_against_the_card() {
    let world = World::start().await;
    let driver = FakeNvml::build(&cards());
    let library = driver.library().display().to_string();
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", library.as_str())]);
    let waits =
        "while [ ! -e /output/go ]; do sleep 1; done; rm /output/go; echo x > /output/output";
    world.publish("faulty", &shell(waits));
    agent.wait_for("job faulty: running");
    driver.tell(&format!("{}event 1 {} 8 31\n", cards(), GPUS[0]));
    agent.wait_for("job faulty caused Xid 31: memory page fault on its GPU");
    std::fs::write(world.output_folder("faulty").join("go"), "").expect("a mark");
    let statuses = world.outcome("faulty");
    assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
    assert_eq!(told(&world, &library, GPUS[0]).0["health"], "healthy");
}

#[tokio::test]
async fn a_card_is_given_on_only_once_nothing_of_the_job_before_is_left_on_it() {
    let world = World::start().await;
    let one = |used_mib: u64| {
        let (uuid, used) = (GPUS[0], used_mib << 20);
        let memory = format!("say nvmlDeviceGetMemoryInfo_v2 * 0 0 {} {used}\n", (80 << 30) - used);
        format!("driver 550.54.15\ncuda 12040\ngpu {uuid} {} 0 NVIDIA T4\n{memory}", 80_u64 << 30)
    };
    let driver = FakeNvml::build(&one(0));
    let library = driver.library().display().to_string();
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", library.as_str())]);
    agent.wait_for("heartbeat sent");
    let hold =
        "while [ ! -e /output/go ]; do sleep 1; done; rm /output/go; echo x > /output/output";
    world.publish("before", &shell(hold));
    agent.wait_for("job before: running");
    driver.tell(&one(70_000));
    std::fs::write(world.output_folder("before").join("go"), "").expect("a mark");
    assert_eq!(last(&world.outcome("before"))["status"], "completed");
    world.publish("after", &shell_with("echo x > /output/output", &json!({"gpus": 1})));
    agent.wait_for("is given to no job yet: 70000 MiB of the job before are still in use");
    assert_ne!(last(&world.statuses("after"))["stage"], "running");
    let left = |job: &str| {
        let told = world.command(&["jobs", job, "--json"]).output().expect("it runs").stdout;
        serde_json::from_slice::<Value>(&told).expect("an object")["gpus_left"][0].clone()
    };
    let before = left("before");
    assert_eq!((&before["uuid"], &before["free_after_ms"]), (&GPUS[0].into(), &Value::Null));
    driver.tell(&one(100));
    assert_eq!(last(&world.outcome("after"))["status"], "completed");
    let before = left("before");
    let reason = "70000 MiB of the job before are still in use";
    assert_eq!((&before["attempt"], &before["held_back"]), (&1.into(), &reason.into()));
    assert!(before["free_after_ms"].as_u64().is_some_and(|ms| ms >= 5000), "{before}");
    let told = world.command(&["jobs", "before"]).output().expect("it runs").stdout;
    let told = String::from_utf8_lossy(&told);
    let line = told.lines().find(|line| line.contains(" ms after the job; held back: 70000 MiB"));
    assert!(line.is_some_and(|line| line.contains(GPUS[0])), "{told}");
    let after =
        eventually("the card of the second job is recorded", Duration::from_secs(10), || {
            Some(left("after")).filter(|after| *after != Value::Null)
        });
    assert!(after["free_after_ms"].as_u64().is_some_and(|ms| ms < 5000), "{after}");
    assert_eq!(after["held_back"], Value::Null);
    world.wait_until_clean().await;
}
