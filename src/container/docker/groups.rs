//! The control groups in which the kernel counts what jobs use.
//!
//! Invariant: a job's parent group belongs to its container alone, and what is told of a container is what the engine
//! says of it, not what was asked for.

use std::time::{Duration, Instant};

use bollard::models::{HostConfig, SystemInfoCgroupDriverEnum as CgroupDriver};

use tokio::sync::Mutex as AsyncMutex;

use super::super::{ContainerId, Error, policy};
use super::inspect::inspect;
use super::tool::PROGRAM;
use super::{Docker, Host};
use crate::ids::Address;
use crate::usage::Unknown;
use crate::usage::watch::Place;

/// The runtimes whose containers are processes of the host, with device nodes before them. Those of others (gVisor,
/// kata) are not.
pub(super) const NATIVE: [&str; 6] =
    ["runc", "crun", "nvidia", "nvidia-cdi", "nvidia-legacy", "io.containerd.runc.v2"];

/// How long the engine's answer is trusted: it may be restarted with another driver.
const GOOD_FOR: Duration = Duration::from_mins(1);

/// Whether the engine makes control groups, as it last said.
#[derive(Debug, Default)]
pub(super) struct Known(AsyncMutex<Option<(Instant, bool)>>);

/// Where a container of ours sees the host's control groups.
const SHOWN: &str = "/tmp";
/// Where they are on the host.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether the engine makes control groups by itself. If systemd does that for it, a parent would be a slice, which
/// nobody removes.
pub(super) async fn makes(docker: &Docker) -> bool {
    let mut known = docker.makes_groups.0.lock().await;
    if let Some((at, makes)) = *known
        && at.elapsed() < GOOD_FOR
    {
        return makes;
    }
    let ask = async { docker.call(docker.client().await?.info()).await };
    let Ok(info) = Box::pin(ask).await else { return false };
    let makes = info.cgroup_driver == Some(CgroupDriver::CGROUPFS);
    *known = Some((Instant::now(), makes));
    makes
}

/// The path of the parent group of the container of this name.
pub(super) fn path(docker: &Docker, name: &str) -> Option<String> {
    let parent = docker.config.group_parent.as_ref()?;
    Some(format!("{}/{name}", parent.trim_end_matches('/')))
}

/// Where this container is counted.
pub(super) async fn of(docker: &Docker, id: &ContainerId) -> Result<Place, Unknown> {
    // The groups of an engine behind an address are another host's.
    if matches!(docker.host, Host::Tcp(_)) {
        return Err(Unknown::NotSupported);
    }
    let there = inspect(docker, &id.0).await.map_err(|_| Unknown::Failed)?;
    let there = there.ok_or(Unknown::Gone)?;
    let host = there.host_config.unwrap_or_default();
    let container = there.id.unwrap_or_default();
    let own = there.name.and_then(|name| path(docker, name.trim_start_matches('/')));
    if own.is_some() && host.cgroup_parent == own {
        return own.map(|path| Place::Parent { path, container }).ok_or(Unknown::Failed);
    }
    if !host.runtime.is_some_and(|runtime| NATIVE.contains(&runtime.as_str())) {
        return Err(Unknown::NotSupported);
    }
    let pid = there.state.filter(|state| state.running == Some(true)).and_then(|it| it.pid);
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    pid.map(|pid| Place::Container { container, pid }).ok_or(Unknown::Gone)
}

/// Removes the parent groups of containers of these names from all hierarchies, by a container of ours: the engine
/// made them as root.
pub(super) async fn remove(docker: &Docker, node: Address, names: &[String]) -> Result<(), Error> {
    let paths: Vec<String> = names.iter().filter_map(|name| path(docker, name)).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let mut command = vec![PROGRAM, "remove-groups", SHOWN];
    command.extend(paths.iter().map(String::as_str));
    let host = HostConfig {
        mounts: Some(vec![policy::lent_with_all_below(ROOT, SHOWN)]),
        network_mode: Some("none".to_owned()),
        ..HostConfig::default()
    };
    docker.run_tool(node, "groups", &command, host).await
}
