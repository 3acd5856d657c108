use serde_json::{Value, json};

use super::*;
use crate::container::Mount;
use crate::container::{Limits, User};
use crate::node::GpuUuid;

fn spec() -> ContainerSpec {
    ContainerSpec {
        name: "lamda-5aaeb605-job-1".to_owned(),
        node: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap(),
        job_id: "job".parse().unwrap(),
        attempt: 1,
        image_id: "sha256:1d".to_owned(),
        entrypoint: None,
        command: Some(vec!["train".to_owned()]),
        env: vec![
            ("SEED".to_owned(), "1=2".to_owned()),
            (VISIBLE_DEVICES.to_owned(), "all".to_owned()),
        ],
        mounts: vec![
            Mount { host: "/srv/in".into(), target: "/input".to_owned(), read_only: true },
            Mount { host: "/srv/out".into(), target: "/output".to_owned(), read_only: false },
        ],
        volumes: "/srv/volumes".into(),
        gpus: Vec::new(),
        limits: Limits {
            memory_bytes: 1 << 30,
            nano_cpus: 1_500_000_000,
            pids: 256,
            shm_bytes: 64 << 20,
            disk_bytes: 1 << 30,
        },
        network: Network::None,
        sandbox: Sandbox::Standard,
    }
}

/// The spec's cards as NVIDIA's toolkit hands them over.
fn by_toolkit(spec: &ContainerSpec) -> Handed {
    handed(Way::Nvidia, &spec.gpus, &[])
}

/// The body as the engine reads it.
fn told(spec: &ContainerSpec) -> Value {
    serde_json::to_value(create_body(spec, &Brought::default(), None, by_toolkit(spec))).unwrap()
}

/// The container's variables if the job sets `job` and its image sets `image`.
fn variables(job: &[(&str, &str)], image: &[&str]) -> Vec<String> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let spec = ContainerSpec { env: job.iter().map(own).collect(), ..spec() };
    let image = image.iter().map(|line| (*line).to_owned()).collect();
    env(&spec, &Brought::new(image, std::iter::empty()), &by_toolkit(&spec).shown)
}

#[test]
fn a_volume_of_the_images_lies_in_the_jobs_folder() {
    let declared = ["/output", "/data/", "/cache", "/data"].map(str::to_owned);
    let image = Brought::default().with_volumes(declared.into_iter());
    let body = serde_json::to_value(create_body(&spec(), &image, None, Handed::default())).unwrap();
    let mounts = body["HostConfig"]["Mounts"].as_array().unwrap().clone();
    let told: Vec<_> = mounts
        .iter()
        .map(|one| {
            let device = &one["VolumeOptions"]["DriverConfig"]["Options"]["device"];
            (&one["Type"], &one["Target"], device)
        })
        .collect();
    assert_eq!(
        told,
        [
            (&json!("bind"), &json!("/input"), &Value::Null),
            (&json!("bind"), &json!("/output"), &Value::Null),
            (&json!("volume"), &json!("/cache"), &json!("/srv/volumes/0")),
            (&json!("volume"), &json!("/data"), &json!("/srv/volumes/1")),
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_line_of_the_sandbox_is_told() {
    let body = told(&spec());
    for (line, value) in [
        ("/Image", json!("sha256:1d")),
        ("/Cmd", json!(["train"])),
        ("/Tty", json!(false)),
        ("/OpenStdin", json!(false)),
        ("/StopSignal", json!("SIGTERM")),
        ("/StopTimeout", json!(10)),
        ("/Healthcheck/Test", json!(["NONE"])),
        ("/Labels/lamda.node", json!("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")),
        ("/Labels/lamda.job_id", json!("job")),
        ("/Labels/lamda.attempt", json!("1")),
        ("/HostConfig/Privileged", json!(false)),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/CapAdd", json!(INSIDE)),
        ("/HostConfig/ReadonlyRootfs", json!(false)),
        ("/HostConfig/SecurityOpt", json!(["no-new-privileges"])),
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/PublishAllPorts", json!(false)),
        ("/HostConfig/IpcMode", json!("private")),
        ("/HostConfig/Memory", json!(1 << 30)),
        ("/HostConfig/MemorySwap", json!(1 << 30)),
        ("/HostConfig/NanoCpus", json!(1_500_000_000)),
        ("/HostConfig/PidsLimit", json!(256)),
        ("/HostConfig/ShmSize", json!(64 << 20)),
        ("/HostConfig/OomScoreAdj", json!(500)),
        (
            "/HostConfig/Ulimits",
            json!([
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": 16_384, "Hard": 16_384},
                {"Name": "nproc", "Soft": 16_384, "Hard": 16_384},
            ]),
        ),
        ("/HostConfig/LogConfig/Type", json!("json-file")),
        ("/HostConfig/LogConfig/Config/max-size", json!("256m")),
        ("/HostConfig/LogConfig/Config/max-file", json!("2")),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        ("/HostConfig/AutoRemove", json!(false)),
        ("/HostConfig/Mounts/0/Type", json!("bind")),
        ("/HostConfig/Mounts/0/Source", json!("/srv/in")),
        ("/HostConfig/Mounts/0/Target", json!("/input")),
        ("/HostConfig/Mounts/0/ReadOnly", json!(true)),
        ("/HostConfig/Mounts/0/BindOptions/Propagation", json!("private")),
        ("/HostConfig/Mounts/0/BindOptions/NonRecursive", json!(true)),
        ("/HostConfig/Mounts/1/ReadOnly", json!(false)),
    ] {
        assert_eq!(body.pointer(line), Some(&value), "{line}");
    }
    for absent in [
        "/Entrypoint",
        "/User",
        "/ExposedPorts",
        "/HostConfig/Devices",
        "/HostConfig/DeviceRequests",
        "/HostConfig/Binds",
        "/HostConfig/DeviceCgroupRules",
        "/HostConfig/MaskedPaths",
        "/HostConfig/ReadonlyPaths",
        "/HostConfig/Sysctls",
        "/HostConfig/GroupAdd",
        "/HostConfig/CgroupParent",
        "/HostConfig/CgroupnsMode",
        "/HostConfig/UTSMode",
        "/HostConfig/OomKillDisable",
        "/HostConfig/PidMode",
        "/HostConfig/UsernsMode",
        "/HostConfig/PortBindings",
        "/HostConfig/VolumesFrom",
        "/HostConfig/Runtime",
    ] {
        assert_eq!(body.pointer(absent), None, "{absent}");
    }
}

#[test]
fn the_owners_runtime_is_every_containers() {
    for spec in [spec(), ContainerSpec { sandbox: Sandbox::Strict(User::NOBODY), ..spec() }] {
        let mut body = create_body(&spec, &Brought::default(), None, Handed::default());
        run_by(&mut body, "runsc");
        assert_eq!(body.host_config.unwrap().runtime.as_deref(), Some("runsc"));
    }
}

#[test]
fn a_cpu_job_sees_no_card_whatever_it_asks_for() {
    let body = told(&spec());
    assert_eq!(
        (&body["Env"][0], &body["Env"][1]),
        (&json!("SEED=1=2"), &json!("NVIDIA_VISIBLE_DEVICES=void"))
    );
}

#[test]
fn whatever_job_and_image_say_each_of_the_toolkits_variables_stands_once_with_our_value() {
    let names = HELD.map(|(name, _)| name);
    let greedy: Vec<(&str, &str)> = names.iter().map(|name| (*name, "enabled")).collect();
    let lines: Vec<String> = names.iter().map(|name| format!("{name}=enabled")).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.extend(["NVIDIA_X=1", "DOCKER_RESOURCE_GPU=all"]);
    lines.extend(["NVIDIA_TF32_OVERRIDE=0", "PATH=/bin", "BROKEN"]);
    let told =
        variables(&[greedy.as_slice(), &[("NVIDIA_Y", "1"), ("MINE", "1")]].concat(), &lines);
    for (name, value) in HELD {
        let lines: Vec<&String> =
            told.iter().filter(|line| line.starts_with(&format!("{name}="))).collect();
        assert_eq!(lines, [&format!("{name}={value}")]);
    }
    for line in ["MINE=1", "NVIDIA_X=", "DOCKER_RESOURCE_GPU="] {
        assert_eq!(told.iter().filter(|told| *told == line).count(), 1, "{line}: {told:?}");
    }
    for name in ["NVIDIA_Y", "NVIDIA_TF32_OVERRIDE", "PATH", "BROKEN"] {
        assert!(!told.iter().any(|line| line.starts_with(name)), "{name}: {told:?}");
    }
}

#[test]
fn what_an_image_requires_of_the_driver_is_held_against_it_unless_somebody_knows_better() {
    let (require, long) = ("NVIDIA_REQUIRE_CUDA=cuda>=99", "x".repeat(REQUIRE_BYTES_MAX));
    let blank = "NVIDIA_REQUIRE_CUDA=".to_owned();
    let by_job = [("NVIDIA_DISABLE_REQUIRE", "true"), ("NVIDIA_REQUIRE_CUDA", "cuda>=1")];
    for (job, image, required, disabled) in [
        (&[][..], vec![require], require.to_owned(), "false"),
        (&by_job[..1], vec![require], blank.clone(), "true"),
        (&by_job[1..], vec![require], require.to_owned(), "false"),
        (&[][..], vec![require, "NVIDIA_DISABLE_REQUIRE=1"], blank.clone(), "true"),
        (&[][..], vec![&*format!("NVIDIA_REQUIRE_CUDA=x{long}")], blank.clone(), "false"),
    ] {
        let told = variables(job, &image);
        let of = |name: &str| {
            let lines = told.iter().filter(|line| line.starts_with(name));
            lines.cloned().collect::<Vec<_>>()
        };
        assert_eq!(of("NVIDIA_REQUIRE_CUDA="), [required], "{job:?} {image:?}");
        let disabled = format!("NVIDIA_DISABLE_REQUIRE={disabled}");
        assert_eq!(of("NVIDIA_DISABLE_REQUIRE="), [disabled], "{job:?} {image:?}");
    }
}

#[test]
fn the_driver_shows_what_is_asked_of_it_as_far_as_anybody_may_have_it() {
    for (job, image, given) in [
        (None, None, "compute,utility"),
        (Some("all"), None, "compute,utility,video"),
        (None, Some("all"), "compute,utility,video"),
        (Some("compute"), Some("all"), "compute"),
        (Some("video, graphics,display"), None, "video"),
        (Some("graphics"), None, "compute,utility"),
        (Some(""), None, "compute,utility"),
    ] {
        let job: Vec<_> = job.iter().map(|asked| (DRIVER_CAPABILITIES, *asked)).collect();
        let image = image.map(|asked| format!("{DRIVER_CAPABILITIES}={asked}"));
        let told = variables(&job, &image.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(told.contains(&format!("{DRIVER_CAPABILITIES}={given}")), "{told:?}");
    }
}

#[test]
fn an_images_labels_are_emptied_and_ours_stand() {
    let theirs =
        ["traefik.enable", "com.docker.compose.project", "io.portainer.x", LABEL_PROBE, "any"];
    let labels = theirs.into_iter().chain([LABEL_NODE]).map(str::to_owned);
    let body = create_body(&spec(), &Brought::new(Vec::new(), labels), None, Handed::default());
    let labels = body.labels.unwrap();
    for name in theirs {
        assert_eq!(labels[name], "", "{name}");
    }
    assert_eq!(labels[LABEL_NODE], spec().node.to_string());
    assert_eq!(labels.len(), theirs.len() + 3);
}

#[test]
fn a_gpu_job_is_given_its_cards_by_uuid() {
    let gpus = ["GPU-a", "GPU-b"].map(|uuid| GpuUuid::new(uuid).unwrap()).to_vec();
    let body = told(&ContainerSpec { gpus, ..spec() });
    assert_eq!(
        body["HostConfig"]["DeviceRequests"],
        json!([{
            "Driver": "nvidia", "DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu"]],
        }])
    );
    assert_eq!(body["Env"][1], "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b");
}

#[test]
fn cards_that_come_another_way_are_not_asked_of_the_toolkit_too() {
    let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
    let spec = ContainerSpec { gpus, ..spec() };
    let nodes = [("/dev/nvidia0".into(), "/dev/nvidia0".to_owned())];
    for way in [Way::Cdi, Way::Devices] {
        let cards = handed(way, &spec.gpus, &nodes);
        let body = create_body(&spec, &Brought::default(), None, cards);
        let body = serde_json::to_value(body).unwrap();
        assert_eq!(body["Env"][1], "NVIDIA_VISIBLE_DEVICES=void", "{way:?}");
        let told = body["HostConfig"]["DeviceRequests"][0]["DeviceIDs"].clone();
        let devices = body["HostConfig"]["Devices"][0]["PathOnHost"].clone();
        let expected = match way {
            Way::Cdi => (json!(["nvidia.com/gpu=GPU-a"]), Value::Null),
            _ => (Value::Null, json!("/dev/nvidia0")),
        };
        assert_eq!((told, devices), expected, "{way:?}");
    }
}

#[test]
fn the_strict_sandbox_gives_no_capability_no_root_and_no_place_to_write_but_tmp() {
    let sandbox = Sandbox::Strict(User { uid: 1000, gid: 100 });
    let body = told(&ContainerSpec { sandbox, ..spec() });
    for (line, value) in [
        ("/User", json!("1000:100")),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/Tmpfs", json!({"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=536870912"})),
    ] {
        assert_eq!(body.pointer(line), Some(&value), "{line}");
    }
    assert_eq!(body.pointer("/HostConfig/CapAdd").filter(|it| !it.is_null()), None);
}

#[test]
fn the_bridge_is_given_only_where_the_spec_says_so() {
    let body = told(&ContainerSpec { network: Network::Bridge, ..spec() });
    assert_eq!(body["HostConfig"]["NetworkMode"], "bridge");
}

#[test]
fn a_limit_beyond_the_engines_numbers_does_not_turn_negative() {
    let mut spec = spec();
    spec.limits.memory_bytes = u64::MAX;
    assert_eq!(told(&spec)["HostConfig"]["Memory"], json!(i64::MAX));
}

#[test]
fn an_engine_that_can_holds_a_layer_a_little_above_the_jobs_limit() {
    for (limit, held) in [
        (8 << 20, (8 << 20) + (16 << 20)),
        (1 << 30, (1 << 30) + (64 << 20)),
        (1 << 40, (1 << 40) + (1 << 30)),
        (u64::MAX, u64::MAX),
    ] {
        let limits = Limits { disk_bytes: limit, ..spec().limits };
        let mut body = create_body(&spec(), &Brought::default(), None, Handed::default());
        assert_eq!(body.host_config.as_ref().unwrap().storage_opt, None);
        hold_layer(&mut body, &limits);
        let told = body.host_config.unwrap().storage_opt.unwrap();
        assert_eq!(told, layer_size(held), "{limit}");
    }
}
