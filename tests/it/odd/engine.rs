//! Docker Engines and GPU toolkits as they are found in the field.

use bollard::query_parameters::RemoveImageOptionsBuilder;
use serde_json::{Value, json};

use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::odd_engine::{NO_MEMORY_LIMIT, NO_RULES, NO_SECCOMP, OddEngine};
use crate::support::registry::{ADDRESS, Registry};
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::world::{World, last, shell, stages};

const SHORT: &str = "echo x > /output/output";

/// What runc puts before the toolkit's words.
const TOOLKIT: &str = "say Auto-detected mode as 'legacy' nvidia-container-cli: ";

/// A row: name, the toolkit's words, the reason, and the end of the error that the requester gets.
const TOOLKITS: [(&str, &str, &str, &str); 3] = [
    (
        "requirement",
        "requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a newer \
         version, or use an earlier cuda container",
        "gpu_requirement",
        "the image wants cuda>=12.8, this node has CUDA 12.4 (driver 550.54.15)",
    ),
    (
        "brand",
        "requirement error: unsatisfied condition: brand=tesla",
        "gpu_requirement",
        "the image wants brand=tesla, this node has CUDA 12.4 (driver 550.54.15)",
    ),
    (
        "own-library",
        "mount error: file creation failed: /var/lib/docker/overlay2/0f/merged/usr/lib/\
         x86_64-linux-gnu/libnvidia-ml.so.1: file exists",
        "start_failed",
        "the image has a file of its own where the GPU's driver puts one: \
         usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    ),
];

/// A driver that reports these cards.
fn driver(cards: &[&str]) -> FakeNvml {
    let cards = cards.iter().map(|uuid| format!("gpu {uuid} 8589934592 0 NVIDIA T4\n"));
    FakeNvml::build(&format!("driver 550.54.15\ncuda 12040\n{}", cards.collect::<String>()))
}

/// The reason code and the error of a job's end.
fn end(statuses: &[Value]) -> (Value, String) {
    let end = statuses.last().expect("statuses");
    (end["reason_code"].clone(), end["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_the_toolkit_says_of_an_image_is_told_at_once_and_blames_no_card() {
    let world = World::start().await;
    let driver = driver(&GPUS);
    let library = driver.library().display().to_string();
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", &library)]);
    for (id, words, reason, sentence) in TOOLKITS {
        world.engine.break_gpus(&format!("{TOOLKIT}{words}"));
        world.publish(id, &shell(SHORT));
        let statuses = world.outcome(id);
        let (code, said) = end(&statuses);
        assert_eq!(code, reason, "{said}");
        assert!(said.ends_with(sentence) && !said.contains("/var/lib"), "{said}");
        assert!(!agent.log().contains("tried again"), "{}", agent.log());
    }
    world.engine.mend_gpus();
    world.publish("both", &json!({"command": ["/bin/sh", "-c", SHORT], "gpus": 2}));
    assert_eq!(end(&world.outcome("both")).0, Value::Null, "no card is set aside");
    assert!(!agent.log().contains("no job is taken"), "{}", agent.log());
}

/// A row: what the toolkit does to one card or to all, `doctor`'s grade, and words of its line.
const BROKEN: [(&str, &str, &[&str]); 4] = [
    ("fail", "fail", &["driver not loaded", "load the NVIDIA driver"]),
    (
        "card GPU-fa4e0000-0000-4000-8000-000000000001",
        "warn",
        &[
            "1 of 2 cards go to no container: GPU-fa4e0000-0000-4000-8000-000000000001: ",
            "unknown device",
            "what the driver says of the card",
            "jobs get the others",
        ],
    ),
    (
        "say nvidia-container-cli: mount error: mount operation failed: /usr/lib/libcuda.so: gone",
        "fail",
        &["2 of 2 cards go to no container: GPU-fa4e", "after a change of the driver"],
    ),
    ("say something new", "fail", &["something new", "see the engine's log"]),
];

#[tokio::test]
async fn doctor_names_the_card_that_no_container_gets_and_says_what_to_do_by_what_is_wrong() {
    let world = World::start().await;
    let driver = driver(&GPUS);
    let library = driver.library().display().to_string();
    let check = || {
        let mut doctor = world.command(&["doctor", "--json"]);
        let output = doctor.env("GPU_MODE", "auto").env("NVML_LIB", &library).output();
        let report: Value = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let found = checks.into_iter().find(|check| check["name"] == "gpu in containers");
        found.expect("it is checked")
    };
    assert_eq!(check()["status"], "ok");
    for (how, grade, words) in BROKEN {
        world.engine.break_gpus(how);
        let told = check();
        assert_eq!(told["status"], grade, "{told}");
        for word in words {
            assert!(told.to_string().contains(word), "{word}: {told}");
        }
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_hook_that_is_broken_at_the_start_costs_no_job() {
    let world = World::start().await;
    let driver = driver(&GPUS);
    let library = driver.library().display().to_string();
    world.engine.break_gpus("fail");
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", &library)]);
    agent.wait_for("no job is taken: the GPUs can't be used");
    world.publish("first", &shell(SHORT));
    agent.wait_for("no heartbeat: the GPUs can't be used");
    assert_eq!(world.statuses("first"), Vec::<Value>::new());
    assert_eq!(world.containers().await, Vec::<String>::new());
    assert!(!agent.log().contains("heartbeat sent"), "{}", agent.log());
    world.engine.mend_gpus();
    agent.wait_for("the node is ready again");
    let statuses = world.outcome("first");
    assert_eq!(end(&statuses).0, Value::Null, "{statuses:?}");
    agent.wait_for("heartbeat sent");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn one_card_that_no_container_gets_at_the_start_is_out_of_use_and_the_other_is_not() {
    let world = World::start().await;
    let driver = driver(&GPUS);
    let library = driver.library().display().to_string();
    world.engine.break_gpus(&format!("card {}", GPUS[0]));
    let agent = world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", &library)]);
    world.publish("other", &shell("ls -d /dev/nvidia? > /output/output"));
    let statuses = world.outcome("other");
    let cid = statuses.last().expect("an end")["output_cid"].as_str().expect("an output");
    assert_eq!(world.content(cid).await, b"/dev/nvidia1\n");
    assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
    agent.wait_for("heartbeat sent");
    assert!(!agent.log().contains("no job is taken"), "{}", agent.log());
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_whose_card_fails_is_given_another_one_that_works() {
    let world = World::start().await;
    let driver = driver(&GPUS);
    let library = driver.library().display().to_string();
    let settings = [("GPU_MODE", "auto"), ("NVML_LIB", &*library), ("FETCH_GIVE_UP_S", "60")];
    let _agent = world.agent(&settings);
    world.engine.break_gpus(&format!("card {}", GPUS[0]));
    world.publish("moves", &shell("ls -d /dev/nvidia? > /output/output"));
    let statuses = world.outcome("moves");
    let cid = statuses.last().expect("an end")["output_cid"].as_str().expect("an output");
    assert_eq!(world.content(cid).await, b"/dev/nvidia1\n");
    assert_eq!(stages(&statuses), "accepted pulling running uploading completed");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_job_that_no_card_is_left_for_ends_in_its_patience_and_names_nothing_of_the_engines() {
    let world = World::start().await;
    let driver = driver(&GPUS[..1]);
    let library = driver.library().display().to_string();
    let agent =
        world.agent(&[("GPU_MODE", "auto"), ("NVML_LIB", &library), ("HEARTBEAT_INTERVAL", "1s")]);
    agent.wait_for("heartbeat sent");
    world.engine.break_gpus("fail");
    world.publish("no-driver", &shell(SHORT));
    let (code, said) = end(&world.outcome("no-driver"));
    assert_eq!(code, "gpu_failed");
    assert_eq!(said, "the node can't give GPUs to any container now");
    agent.wait_for("no heartbeat: the GPUs can't be used");
    world.engine.mend_gpus();
    agent.wait_for("the node is ready again");
    agent.wait_for("the node can work again");
    world.publish("again", &shell(SHORT));
    assert_eq!(end(&world.outcome("again")).0, Value::Null);
}

#[tokio::test]
async fn an_image_that_is_gone_at_the_start_is_pulled_again() {
    let world = World::start().await;
    let registry = Registry::start(&world.engine);
    registry.take_busybox(&world.engine, "t/busybox", "v1").await;
    let image = format!("{ADDRESS}/t/busybox:v1");
    let proxy = StoreProxy::start(&world.store());
    let agent = world.agent(&[
        ("IPFS_GATEWAYS", &proxy.url()),
        ("FETCH_GIVE_UP_S", "60"),
        ("JOB_REGISTRIES", ADDRESS),
    ]);
    proxy.set_fetches(Weather::Status(503, None));
    let mut job = shell("cp /input/input /output/output");
    job["image_name"] = image.clone().into();
    job["input_file_cid"] = world.pin(b"input").await.into();
    world.publish("pruned", &job);
    agent.wait_for("job pruned: pulled");
    let force = RemoveImageOptionsBuilder::default().force(true).build();
    let removed = world.engine.client().remove_image(&image, Some(force), None).await;
    removed.expect("it is removed");
    proxy.set_fetches(Weather::Clear);
    let statuses = world.outcome("pruned");
    assert_eq!(end(&statuses).0, Value::Null, "{statuses:?}");
    let stages = stages(&statuses);
    let once_more = "accepted pulling fetching pulling fetching running uploading completed";
    assert_eq!(stages, once_more);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn no_container_is_made_by_an_engine_that_sees_another_file_system() {
    let world = World::start().await;
    let data = world.dir.path().join("data");
    std::fs::create_dir_all(&data).expect("the data folder");
    world.engine.hide(&data);
    let doctor = || {
        let said = world.command(&["doctor"]).output().expect("doctor runs");
        let lines = String::from_utf8(said.stdout).expect("text");
        let line = lines.lines().find(|line| line.contains("files in containers"));
        line.unwrap_or_default().to_owned()
    };
    assert!(
        doctor().starts_with("fail  files in containers: the engine sees another"),
        "{}",
        doctor()
    );
    let agent = world.start_agent(&[]);
    agent.wait_for("no job is taken: the container engine can't be used: the engine sees another");
    world.publish("waits", &shell(SHORT));
    agent.wait_for("no heartbeat: the container engine can't be used");
    let containers = world.containers().await;
    assert!(!containers.iter().any(|name| name.contains("waits")), "{containers:?}");
    world.engine.show(&data);
    agent.wait_for("the node is ready again");
    assert_eq!(end(&world.outcome("waits")).0, Value::Null);
    assert!(doctor().starts_with("ok    files in containers"), "{}", doctor());
    world.wait_until_clean().await;
}

#[tokio::test]
async fn what_a_job_writes_to_its_images_volumes_counts_as_its_disk() {
    let world = World::start().await;
    world.engine.import("", &["VOLUME /data /bin /output"]).await;
    let _agent = world.agent(&[]);
    for (id, script, disk_mib, reason) in [
        (
            "fills",
            "dd if=/dev/zero of=/data/x bs=1M count=200; sleep 1000",
            50,
            json!("disk_exceeded"),
        ),
        // The image's files at the path are copied into the volume.
        ("finds", "cp /bin/busybox /data/x && echo x > /output/output", 500, Value::Null),
    ] {
        let mut job = shell(script);
        job["disk_mib"] = disk_mib.into();
        world.publish(id, &job);
        let (code, said) = end(&world.outcome(id));
        assert_eq!(code, reason, "{id}: {said}");
    }
    world.wait_until_clean().await;
    let volumes = world
        .engine
        .client()
        .list_volumes(None::<bollard::query_parameters::ListVolumesOptions>)
        .await
        .expect("the engine answers");
    assert_eq!(volumes.volumes.unwrap_or_default(), [], "none is left");
}

#[tokio::test]
async fn what_an_engine_leaves_out_of_a_followed_log_is_in_the_log_of_the_job() {
    let world = World::start().await;
    let odd = OddEngine::start_short_of(&world.engine.host(), "the last");
    let _agent = world.agent(&[("DOCKER_HOST", &odd.host())]);
    let script = "echo one; echo two >&2; sleep 1; echo the last but one; echo the last; exit 3";
    world.publish("short", &shell(script));
    let statuses = world.outcome("short");
    assert_eq!(end(&statuses).0, json!("nonzero_exit"));
    let cid = last(&statuses)["log_cid"].as_str().expect("a log").to_owned();
    let log = String::from_utf8(world.content(&cid).await).expect("text");
    let mut lines: Vec<_> = log.lines().collect();
    // Which of two streams is first, the engine decides.
    lines[..2].sort_unstable();
    assert_eq!(lines, ["one", "two", "the last but one", "the last"]);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn an_engine_that_discards_limits_gets_no_job_and_doctor_says_why() {
    let world = World::start().await;
    let odd = OddEngine::start(&world.engine.host(), NO_MEMORY_LIMIT);
    let host = odd.host();
    let agent = world.start_agent(&[("DOCKER_HOST", &host)]);
    agent.wait_for(
        "no job is taken: the container engine can't be used: the engine can't hold containers to a \
         limit of memory",
    );
    world.publish("boundless", &shell(SHORT));
    agent.wait_for("no heartbeat: the container engine can't be used");
    let containers = world.containers().await;
    assert!(!containers.iter().any(|name| name.contains("boundless")), "{containers:?}");
    let doctor = world.command(&["doctor"]).env("DOCKER_HOST", &host).output().expect("it runs");
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(told.contains("it holds no container to a limit of memory"), "{told}");
    assert!(!doctor.status.success());
}

#[tokio::test]
async fn an_engine_that_can_not_hold_a_job_in_its_sandbox_gets_none_and_doctor_says_why() {
    let world = World::start().await;
    let odd = OddEngine::start(&world.engine.host(), NO_SECCOMP);
    for (settings, log, doctor) in [
        (
            [("DOCKER_HOST", odd.host())],
            "the engine runs containers without seccomp",
            "without seccomp jobs could",
        ),
        (
            [("JOB_RUNTIME", "runsc".to_owned())],
            "the engine has no runtime of the name in JOB_RUNTIME=runsc",
            "it has no runtime runsc",
        ),
    ] {
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let agent = world.start_agent(&settings);
        agent.wait_for(&format!("no job is taken: the container engine can't be used: {log}"));
        let told = world.command(&["doctor"]).envs(settings).output().expect("it runs");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(text.contains(doctor) && !told.status.success(), "{text}");
    }
    let _agent = world.agent(&[("JOB_RUNTIME", "io.containerd.runc.v2")]);
    world.publish("shim", &shell(SHORT));
    assert_eq!(stages(&world.outcome("shim")).split(' ').next_back(), Some("completed"));
}

#[tokio::test]
async fn doctor_says_whether_jobs_could_have_the_network_internet_and_why_not() {
    let world = World::start().await;
    let odd = OddEngine::start(&world.engine.host(), NO_RULES);
    let host = odd.host();
    for (settings, expected) in [
        (&[][..], "ok    internet: JOB_NETWORK=none: not needed"),
        (&[("JOB_NETWORK", "internet")], "ok    internet: jobs reach public addresses"),
        (
            &[("JOB_NETWORK", "bridge"), ("JOB_RUNTIME", "runsc")],
            "warn  internet: JOB_NETWORK=internet needs JOB_RUNTIME to be one of",
        ),
        (&[("JOB_NETWORK", "internet"), ("DOCKER_HOST", host.as_str())], "warn  internet: "),
    ] {
        let told = world.command(&["doctor"]).envs(settings.iter().copied()).output();
        let told = String::from_utf8_lossy(&told.expect("it runs").stdout).into_owned();
        let line = told.lines().find(|line| line.contains("  internet: ")).unwrap_or_default();
        assert!(line.starts_with(expected), "{told}");
        let advised = line.contains(" -> ") && line.contains("JOB_NETWORK=none:");
        assert_eq!(
            advised || line.contains("JOB_NETWORK=none; "),
            line.starts_with("warn"),
            "{line}"
        );
    }
    let left = world.containers().await;
    assert!(!left.iter().any(|name| name.contains("internet")), "{left:?}");
}
