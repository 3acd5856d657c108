//! The sandbox: what the engine is told about a stranger's container. Pure.
//!
//! Must hold: nothing in a job widens it. A job chooses its image, command, variables and limits; what it may
//! reach of the host is decided here, field by field (docs/adr/0010-sandbox.md). The tests below list every
//! field.

mod cards;
mod mounts;
mod network;
mod proof;

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{ContainerSpec, Limits, Network, Sandbox};
use crate::ids::Address;

pub use cards::{Access, Way};
pub(super) use cards::{Handed, Means, Node, cards_of, handed, way};
pub(super) use mounts::{lent, lent_with_all_below, shown};
use mounts::{mount, volume};
pub(super) use network::{ADDRESSES_MAX, Holder, LABEL_HOLDER, holder_body, holder_name, joins};
pub(super) use proof::proof;

/// Label: the node that a container belongs to.
pub(super) const LABEL_NODE: &str = "lamda.node";
/// Label: the id of the job that a container runs.
pub(super) const LABEL_JOB: &str = "lamda.job_id";
/// Label: the job's attempt, from 1.
pub(super) const LABEL_ATTEMPT: &str = "lamda.attempt";
/// Label of the node's own containers: what they probe.
pub(super) const LABEL_PROBE: &str = "lamda.probe";

/// On hosts whose default runtime is NVIDIA's, this variable selects the GPUs that a container sees.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
/// Selects the parts of the driver that a container sees.
const DRIVER_CAPABILITIES: &str = "NVIDIA_DRIVER_CAPABILITIES";
/// The parts that a job may ask for. Not `graphics` and `display`, which bring in `/dev/dri`.
const CAPABILITIES: [&str; 3] = ["compute", "utility", "video"];
const CAPABILITIES_DEFAULT: &str = "compute,utility";
/// NVIDIA's container toolkit takes orders from a container's variables, the image's included. Each of these
/// is fixed to the value that asks for nothing, as the toolkit reads it.
const HELD: [(&str, &str); 7] = [
    // `enabled` would show host devices: InfiniBand, GPUDirect Storage and RDMA, the NVSwitches.
    ("NVIDIA_MOFED", "disabled"),
    ("NVIDIA_GDS", "disabled"),
    ("NVIDIA_GDRCOPY", "disabled"),
    ("NVIDIA_NVSWITCH", "disabled"),
    ("NVIDIA_IMEX_CHANNELS", "void"),
    ("NVIDIA_MIG_CONFIG_DEVICES", ""),
    ("NVIDIA_MIG_MONITOR_DEVICES", ""),
];
/// Turns off the check of what an image requires of the driver; the job and the image may set it.
const DISABLE_REQUIRE: &str = "NVIDIA_DISABLE_REQUIRE";
/// Prefix of what an image requires of the driver, such as `cuda>=12.8`. The toolkit compares it with the
/// driver and shows nothing more for it.
const REQUIRE: &str = "NVIDIA_REQUIRE_";
/// Longest such condition in bytes; NVIDIA's own are under 2,000.
const REQUIRE_BYTES_MAX: usize = 4096;
/// Variables that only CUDA's libraries inside the container read.
const HARMLESS: [&str; 1] = ["NVIDIA_TF32_OVERRIDE"];
/// Prefixes of the toolkit's variables; the second comes from its setting `swarm-resource`.
const PREFIXES: [&str; 2] = ["NVIDIA_", "DOCKER_RESOURCE_"];
/// The capabilities of the standard sandbox: `tar`, `chown`, `install`, `gosu` and the like fail without
/// them. They act on the container's own files and processes: no device is made (`MKNOD`), no network opened
/// (`NET_RAW`), nothing mounted or traced.
pub(super) const INSIDE: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"];
/// Size in MiB of each log file kept per job, so that a chatty job can't fill the disk. Large, because
/// engines lose or repeat lines for followers while they rotate the files.
const LOG_FILE_MIB: u64 = 256;
/// Number of log files kept per job.
const LOG_FILES: u64 = 2;
/// Most bytes that the engine keeps of a job's log.
pub const LOG_BYTES_KEPT: u64 = (LOG_FILES * LOG_FILE_MIB) << 20;
/// How far above its disk limit the engine holds a layer: a part of the limit, within bounds. File systems
/// count their own records too, some MiB of them.
const LAYER_SLACK_PART: u64 = 16;
const LAYER_SLACK_MIN: u64 = 16 << 20;
const LAYER_SLACK_MAX: u64 = 1 << 30;
/// Open files of each process: ample for loaders and servers. An engine without root, or one whose own limit can't be
/// raised, refuses to start a container with more than it has itself.
const FILES_MAX: i64 = 16_384;
/// Processes of one user. The kernel counts them over all containers, so this is room for four jobs at their own
/// limit, which the control group sets; else one job could keep another's user from starting any.
const USERS_PROCESSES_MAX: i64 = 16_384;
/// Makes the kernel kill jobs before the agent or the engine if memory runs out.
const OOM_SCORE_ADJ: i64 = 500;

/// Seconds from the stop signal to the kill if the engine itself stops a container.
const STOP_TIMEOUT_S: i64 = 10;

/// Settings of an image that must not take effect: each is overridden by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// Its variables that NVIDIA's toolkit may read.
    pub(super) env: Vec<(String, String)>,
    /// Names of the image's labels.
    pub(super) labels: Vec<String>,
    /// Paths that it declares as volumes, sorted.
    pub(super) volumes: Vec<String>,
}

impl Brought {
    /// From the image's variables (`NAME=value`) and the names of its labels.
    pub(super) fn new(env: Vec<String>, labels: impl Iterator<Item = String>) -> Self {
        let split = |line: String| {
            line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let env = env.into_iter().filter_map(split).filter(|(name, _)| is_toolkits(name));
        Self { env: env.collect(), labels: labels.collect(), volumes: Vec::new() }
    }

    /// Adds the paths that the image declares as volumes.
    pub(super) fn with_volumes(self, paths: impl Iterator<Item = String>) -> Self {
        let mut volumes: Vec<String> =
            paths.map(|path| format!("/{}", path.trim_matches('/'))).collect();
        volumes.sort_unstable();
        volumes.dedup();
        Self { volumes, ..self }
    }
}

/// Whether a path of a volume lies where the runtime puts devices and the kernel's files: a folder there would hide
/// them.
pub(super) fn hides_the_kernels(path: &str) -> bool {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    matches!(parts.first(), Some(&("dev" | "proc" | "sys")))
}

/// The host folders for the image's volumes, with their paths in the container: nobody counts what is written
/// to an anonymous volume of the engine's. A path that the job has a mount at keeps that mount.
pub(super) fn volumes(spec: &ContainerSpec, image: &Brought) -> Vec<(PathBuf, String)> {
    let is_free = |path: &&String| spec.mounts.iter().all(|mount| mount.target != **path);
    let paths = image.volumes.iter().filter(is_free).enumerate();
    paths.map(|(at, path)| (spec.volumes.join(at.to_string()), path.clone())).collect()
}

/// Has the container run by this runtime of the engine's (`JOB_RUNTIME`).
pub(super) fn run_by(body: &mut ContainerCreateBody, runtime: &str) {
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    host.runtime = Some(runtime.to_owned());
}

/// Has the container's control group lie below this one, which the engine makes and leaves.
pub(super) fn in_group(body: &mut ContainerCreateBody, path: String) {
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    host.cgroup_parent = Some(path);
}

/// Body of the engine's create call; `holder`: the container whose network namespace it joins, if it has none
/// of its own; `cards`: how it gets its GPUs.
pub(super) fn create_body(
    spec: &ContainerSpec,
    image: &Brought,
    holder: Option<&str>,
    cards: Handed,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: Some(env(spec, image, &cards.shown)),
        labels: Some(labels(spec.node, spec, image)),
        tty: Some(false),
        open_stdin: Some(false),
        // The image's author must not decide how a container is stopped, or have its health checked.
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_TIMEOUT_S),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        user: match spec.sandbox {
            Sandbox::Standard => None,
            Sandbox::Strict(user) => Some(user.to_string()),
        },
        host_config: Some(cards.to(host_config(spec, image, holder))),
        ..ContainerCreateBody::default()
    }
}

/// Holds the container's layer to its disk limit and a little more, so that the agent sees a job that goes
/// beyond its limit, and no write, however large, takes much more. For engines that can do that.
pub(super) fn hold_layer(body: &mut ContainerCreateBody, limits: &Limits) {
    let slack = (limits.disk_bytes / LAYER_SLACK_PART).clamp(LAYER_SLACK_MIN, LAYER_SLACK_MAX);
    let size = limits.disk_bytes.saturating_add(slack);
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    host.storage_opt = Some(layer_size(size));
}

/// The engine's option that holds a layer to this many bytes.
pub(super) fn layer_size(bytes: u64) -> HashMap<String, String> {
    HashMap::from([("size".to_owned(), bytes.to_string())])
}

fn host_config(spec: &ContainerSpec, image: &Brought, holder: Option<&str>) -> HostConfig {
    let limits = &spec.limits;
    let volumes = volumes(spec, image);
    let mounts = spec.mounts.iter().map(mount);
    let mounts = mounts.chain(volumes.iter().map(|(folder, path)| volume(folder, path)));
    let memory = signed(limits.memory_bytes);
    let is_strict = matches!(spec.sandbox, Sandbox::Strict(_));
    HostConfig {
        // Privileges.
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: (!is_strict).then(|| INSIDE.map(str::to_owned).to_vec()),
        readonly_rootfs: Some(is_strict),
        tmpfs: is_strict.then(|| HashMap::from([("/tmp".to_owned(), tmp_options(limits))])),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // What it may reach of the host and the network.
        network_mode: Some(holder.map_or_else(|| alone(spec.network).to_owned(), network::joined)),
        publish_all_ports: Some(false),
        ipc_mode: Some("private".to_owned()),
        mounts: Some(mounts.collect()),
        // Resources. `memory_swap` is memory and swap together: equal to memory, it means no swap.
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(signed(limits.nano_cpus)),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: Some(signed(limits.shm_bytes)),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        // A crash must not write the job's whole memory to the disk: no `core`.
        ulimits: Some(vec![
            ulimit("core", 0),
            ulimit("nofile", FILES_MAX),
            ulimit("nproc", USERS_PROCESSES_MAX),
        ]),
        log_config: Some(log_config()),
        // Lifecycle: started once, by the node, with an init that reaps orphans, and kept until its exit has
        // been read.
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) }
}

/// The filter by which a node finds its own containers.
pub(super) fn label_filter(node: Address) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL_NODE}={node}")])])
}

/// The fixed name of the node's probe of `what`; no job's container has a name that begins like this.
pub(super) fn probe_name(node: Address, what: &str) -> String {
    format!("lamda-probe-{}-{what}", &node.lower_hex()[2..10])
}

/// Labels that mark a probe's container as the node's.
pub(super) fn probe_labels(node: Address, what: &str) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_NODE.to_owned(), node.to_string()),
        (LABEL_PROBE.to_owned(), what.to_owned()),
    ])
}

/// Every label of the image's is set to an empty value: Traefik, Compose, Watchtower and the like act on any container
/// that carries theirs. All of them, since no list of such programs is complete, and a job has no use for its labels.
fn labels(node: Address, spec: &ContainerSpec, image: &Brought) -> HashMap<String, String> {
    let own = [
        (LABEL_NODE.to_owned(), node.to_string()),
        (LABEL_JOB.to_owned(), spec.job_id.to_string()),
        (LABEL_ATTEMPT.to_owned(), spec.attempt.to_string()),
    ];
    image.labels.iter().map(|name| (name.clone(), String::new())).chain(own).collect()
}

/// The job's variables, and those that select its GPUs, which neither job nor image can override.
fn env(spec: &ContainerSpec, image: &Brought, shown: &[String]) -> Vec<String> {
    // Nothing for a container whose cards come in another way: it must not get them twice.
    let visible = if shown.is_empty() { "void".to_owned() } else { shown.join(",") };
    // A job's own value goes before its image's.
    let asked = spec.env.iter().chain(&image.env).find(|(name, _)| name == DRIVER_CAPABILITIES);
    let own = [
        (VISIBLE_DEVICES, visible),
        (DRIVER_CAPABILITIES, capabilities(asked.map(|(_, value)| value.as_str()))),
    ];
    let own = own.into_iter().chain(HELD.map(|(name, value)| (name, value.to_owned())));
    let disable = spec.env.iter().chain(&image.env).find(|(name, _)| name == DISABLE_REQUIRE);
    let disables = disable.is_some_and(|(_, value)| matches!(value.as_str(), "1" | "true"));
    let required = image.env.iter().filter(|(name, value)| {
        name.starts_with(REQUIRE) && value.len() <= REQUIRE_BYTES_MAX && !disables
    });
    let own = own.chain([(DISABLE_REQUIRE, disables.to_string())]);
    let own = own.chain(required.map(|(name, value)| (name.as_str(), value.clone())));
    let own: Vec<(&str, String)> = own.collect();
    // Variables of the toolkit's that are not known here are set to empty values.
    let unknown = image.env.iter().map(|(name, _)| name.as_str());
    let unknown = unknown.filter(|name| own.iter().all(|(held, _)| held != name));
    let theirs = spec.env.iter().filter(|(name, _)| !is_toolkits(name));
    theirs
        .map(|(name, value)| format!("{name}={value}"))
        .chain(own.iter().map(|(name, value)| format!("{name}={value}")))
        .chain(unknown.map(|name| format!("{name}=")))
        .collect()
}

/// Whether NVIDIA's toolkit may take orders from a variable of this name.
fn is_toolkits(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !HARMLESS.contains(&name)
}

/// The parts of the driver to show: those asked for, as far as jobs may have them, else the default.
fn capabilities(asked: Option<&str>) -> String {
    let asked: Vec<&str> = asked.unwrap_or_default().split(',').map(str::trim).collect();
    let wanted = |one: &&str| asked.contains(one) || asked.contains(&"all");
    let given: Vec<&str> = CAPABILITIES.into_iter().filter(wanted).collect();
    if given.is_empty() { CAPABILITIES_DEFAULT.to_owned() } else { given.join(",") }
}

/// Options of the `/tmp` of a container whose root file system is read-only: half of its memory, which it
/// counts against. Programs compile what they run there (Triton, numba), so it may be executed.
fn tmp_options(limits: &Limits) -> String {
    format!("rw,exec,nosuid,nodev,mode=1777,size={}", limits.memory_bytes / 2)
}

fn log_config() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), format!("{LOG_FILE_MIB}m")),
            ("max-file".to_owned(), LOG_FILES.to_string()),
        ])),
    }
}

/// The network of a container that joins nobody's. `internet` is nothing but a holder's, so that there is none
/// without its rules.
const fn alone(network: Network) -> &'static str {
    match network {
        Network::None | Network::Internet => "none",
        Network::Bridge => "bridge",
    }
}

/// The engine takes signed numbers; a limit above `i64::MAX` is as good as none.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
