//! The sandbox: what the engine is told about a stranger's container. Pure.
//!
//! What must hold: nothing that a job says widens it. A job chooses its image, command, variables
//! and limits; what it may reach of the host is decided here, line by line, and the tests below
//! are the table of it.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::{ContainerSpec, Mount, Network};
use crate::node::{Address, GpuUuid};

/// Names the node that a container belongs to.
pub(super) const LABEL_NODE: &str = "lamda.node";
/// Names the job.
pub(super) const LABEL_JOB: &str = "lamda.job_id";
/// Counts the attempts of it.
pub(super) const LABEL_ATTEMPT: &str = "lamda.attempt";

/// The variable that decides, on hosts whose default runtime is NVIDIA's, which cards are shown.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
/// Two files of this size are kept of a job's output: a chatty job must not fill the disk. Large,
/// because engines lose or repeat lines for who follows the output while they change files.
const LOG_FILE_SIZE: &str = "256m";
/// The kernel takes memory from jobs before it takes the agent or the engine.
const OOM_SCORE_ADJ: i64 = 500;
/// Seconds from the stop signal to the kill where the engine itself stops a container.
const STOP_TIMEOUT_S: i64 = 10;

/// The body of the engine's create call.
pub(super) fn create_body(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: Some(env(spec)),
        labels: Some(labels(spec.node, spec)),
        tty: Some(false),
        open_stdin: Some(false),
        // An image's own stop signal and health check are the image's author's wishes, not ours.
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_TIMEOUT_S),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let limits = &spec.limits;
    let memory = signed(limits.memory_bytes);
    HostConfig {
        // What the container may do.
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // What it may reach.
        network_mode: Some(network_mode(spec.network).to_owned()),
        publish_all_ports: Some(false),
        ipc_mode: Some("private".to_owned()),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        device_requests: device_request(&spec.gpus).map(|request| vec![request]),
        // What it may take. Memory and swap together equal memory alone: no swap.
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(signed(limits.nano_cpus)),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: Some(signed(limits.shm_bytes)),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        ulimits: Some(vec![ResourcesUlimits {
            // A crash must not write the job's whole memory to the disk.
            name: Some("core".to_owned()),
            soft: Some(0),
            hard: Some(0),
        }]),
        log_config: Some(log_config()),
        // How it lives: started once, by us, with an init that reaps what it orphans, and kept
        // until its exit has been read.
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

/// The request for these cards and no other; by UUID, since a count always means the first ones.
pub(super) fn device_request(gpus: &[GpuUuid]) -> Option<DeviceRequest> {
    (!gpus.is_empty()).then(|| DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(gpus.iter().map(ToString::to_string).collect()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    })
}

/// The filter under which a node finds its own containers again.
pub(super) fn label_filter(node: Address) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL_NODE}={node}")])])
}

fn labels(node: Address, spec: &ContainerSpec) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_NODE.to_owned(), node.to_string()),
        (LABEL_JOB.to_owned(), spec.job_id.to_string()),
        (LABEL_ATTEMPT.to_owned(), spec.attempt.to_string()),
    ])
}

/// The job's variables, and the cards that it was given, which no job can override.
fn env(spec: &ContainerSpec) -> Vec<String> {
    let visible = if spec.gpus.is_empty() {
        "void".to_owned()
    } else {
        spec.gpus.iter().map(GpuUuid::as_str).collect::<Vec<_>>().join(",")
    };
    let own = spec.env.iter().filter(|(name, _)| name != VISIBLE_DEVICES);
    own.map(|(name, value)| format!("{name}={value}"))
        .chain([format!("{VISIBLE_DEVICES}={visible}")])
        .collect()
}

/// One folder and nothing mounted below it: mounts below a read-only one would stay writable.
fn mount(mount: &Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::PRIVATE),
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..EngineMount::default()
    }
}

fn log_config() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
            ("max-file".to_owned(), "2".to_owned()),
        ])),
    }
}

const fn network_mode(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Bridge => "bridge",
    }
}

/// The engine counts in signed numbers; more than those hold is as good as unlimited.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::container::Limits;

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
            gpus: Vec::new(),
            limits: Limits {
                memory_bytes: 1 << 30,
                nano_cpus: 1_500_000_000,
                pids: 256,
                shm_bytes: 64 << 20,
            },
            network: Network::None,
        }
    }

    /// The body as the engine reads it.
    fn told(spec: &ContainerSpec) -> Value {
        serde_json::to_value(create_body(spec)).unwrap()
    }

    #[test]
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
            ("/HostConfig/Ulimits", json!([{"Name": "core", "Soft": 0, "Hard": 0}])),
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
            "/HostConfig/CapAdd",
            "/HostConfig/Devices",
            "/HostConfig/DeviceRequests",
            "/HostConfig/Binds",
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
    fn a_cpu_job_sees_no_card_whatever_it_asks_for() {
        assert_eq!(told(&spec())["Env"], json!(["SEED=1=2", "NVIDIA_VISIBLE_DEVICES=void"]));
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
}
