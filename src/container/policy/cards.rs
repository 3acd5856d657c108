//! How the engine is told to hand a container its GPUs (docs/operations.md, "How containers get GPUs"). Pure.
//!
//! Must hold: a container is told of exactly the cards of its job, by their UUIDs or by the device nodes that the
//! driver names for these; a count or an index never is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bollard::models::{DeviceMapping, DeviceRequest, HostConfig};

use crate::node::GpuUuid;

/// How the owner lets containers get GPUs (`GPU_ACCESS`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// By CDI where the engine lists all cards that are asked for, else by NVIDIA's toolkit.
    #[default]
    Auto,
    /// By NVIDIA's toolkit, as `docker run --gpus` has it.
    Nvidia,
    /// By CDI: the host's files say what belongs to a card.
    Cdi,
    /// As device nodes and nothing else: the image brings the driver's libraries.
    Devices,
}

/// What of an engine decides how cards are handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::container) struct Means {
    /// The devices that it can hand over by CDI.
    pub(in crate::container) cdi: BTreeSet<String>,
    /// Whether systemd keeps the rules of its containers' control groups. Those that the toolkit adds by itself are
    /// lost when systemd reads its units anew.
    pub(in crate::container) by_systemd: bool,
}

/// How cards are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// NVIDIA's toolkit does it.
    Nvidia,
    /// It does, and the engine is told the device nodes too, so that systemd knows them.
    NvidiaAndNodes,
    /// By CDI.
    Cdi,
    /// As device nodes.
    Devices,
}

/// A device node: its path on the host, and in the container.
pub(in crate::container) type Node = (PathBuf, String);

/// What the engine is told of a container's cards.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::container) struct Handed {
    requests: Vec<DeviceRequest>,
    devices: Vec<DeviceMapping>,
    /// What the toolkit is told to show: UUIDs.
    pub(in crate::container) shown: Vec<String>,
}

/// The device's name in CDI files that `nvidia-ctk cdi generate` writes.
fn cdi_name(gpu: &GpuUuid) -> String {
    format!("nvidia.com/gpu={gpu}")
}

/// How these cards are handed over.
pub(in crate::container) fn way(access: Access, means: &Means, gpus: &[GpuUuid]) -> Way {
    let has_all = !gpus.is_empty() && gpus.iter().all(|gpu| means.cdi.contains(&cdi_name(gpu)));
    match access {
        Access::Cdi => Way::Cdi,
        Access::Devices => Way::Devices,
        Access::Auto if has_all => Way::Cdi,
        Access::Auto | Access::Nvidia if means.by_systemd => Way::NvidiaAndNodes,
        Access::Auto | Access::Nvidia => Way::Nvidia,
    }
}

/// What the engine is told of these cards; `nodes`: theirs, with those that every card needs.
pub(in crate::container) fn handed(way: Way, gpus: &[GpuUuid], nodes: &[Node]) -> Handed {
    if gpus.is_empty() {
        return Handed::default();
    }
    let uuids: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    let devices = nodes.iter().map(|(host, inside)| DeviceMapping {
        path_on_host: Some(host.to_string_lossy().into_owned()),
        path_in_container: Some(inside.clone()),
        cgroup_permissions: Some("rw".to_owned()),
    });
    let devices = devices.collect();
    let by_toolkit = || DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(uuids.clone()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    };
    match way {
        Way::Nvidia => Handed { requests: vec![by_toolkit()], devices: Vec::new(), shown: uuids },
        Way::NvidiaAndNodes => Handed { requests: vec![by_toolkit()], devices, shown: uuids },
        Way::Cdi => {
            let request = DeviceRequest {
                driver: Some("cdi".to_owned()),
                device_ids: Some(gpus.iter().map(cdi_name).collect()),
                ..DeviceRequest::default()
            };
            Handed { requests: vec![request], ..Handed::default() }
        }
        Way::Devices => Handed { devices, ..Handed::default() },
    }
}

impl Handed {
    /// Adds it to a container's settings.
    pub(in crate::container) fn to(self, host: HostConfig) -> HostConfig {
        HostConfig {
            device_requests: (!self.requests.is_empty()).then_some(self.requests),
            devices: (!self.devices.is_empty()).then_some(self.devices),
            ..host
        }
    }
}

/// The cards and device nodes that a container was created with, in one order.
pub(in crate::container) fn cards_of(host: Option<&HostConfig>) -> Vec<&str> {
    let requests = host.and_then(|host| host.device_requests.as_ref()).into_iter().flatten();
    let ids = requests.filter_map(|request| request.device_ids.as_ref()).flatten();
    let devices = host.and_then(|host| host.devices.as_ref()).into_iter().flatten();
    let paths = devices.filter_map(|device| device.path_on_host.as_ref());
    let mut all: Vec<&str> = ids.chain(paths).map(String::as_str).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gpus() -> Vec<GpuUuid> {
        ["GPU-a", "GPU-b"].map(|uuid| GpuUuid::new(uuid).unwrap()).to_vec()
    }

    fn told(way: Way, gpus: &[GpuUuid]) -> Value {
        let nodes = [("/dev/nvidia0".into(), "/dev/nvidia0".to_owned())];
        serde_json::to_value(handed(way, gpus, &nodes).to(HostConfig::default())).unwrap()
    }

    #[test]
    fn each_way_tells_the_engine_exactly_this() {
        let nvidia = json!([{
            "Driver": "nvidia", "DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu"]],
        }]);
        let cdi = json!([{
            "Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"],
        }]);
        let node = json!([{
            "PathOnHost": "/dev/nvidia0", "PathInContainer": "/dev/nvidia0", "CgroupPermissions": "rw",
        }]);
        for (way, body) in [
            (Way::Nvidia, json!({"DeviceRequests": nvidia})),
            (Way::NvidiaAndNodes, json!({"DeviceRequests": nvidia, "Devices": node})),
            (Way::Cdi, json!({"DeviceRequests": cdi})),
            (Way::Devices, json!({"Devices": node})),
        ] {
            assert_eq!(told(way, &gpus()), body, "{way:?}");
            assert_eq!(told(way, &[]), json!({}), "{way:?} without a card");
        }
    }

    #[test]
    fn the_way_follows_the_owner_and_then_what_the_engine_has() {
        let cdi = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let all = cdi(&["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b", "nvidia.com/gpu=all"]);
        let some = cdi(&["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        for (access, cdi, by_systemd, expected) in [
            (Access::Auto, &all, true, Way::Cdi),
            (Access::Auto, &some, true, Way::NvidiaAndNodes),
            (Access::Auto, &some, false, Way::Nvidia),
            (Access::Nvidia, &all, false, Way::Nvidia),
            (Access::Nvidia, &all, true, Way::NvidiaAndNodes),
            (Access::Cdi, &BTreeSet::new(), true, Way::Cdi),
            (Access::Devices, &all, true, Way::Devices),
        ] {
            let means = Means { cdi: cdi.clone(), by_systemd };
            assert_eq!(way(access, &means, &gpus()), expected, "{access:?} {means:?}");
        }
    }

    #[test]
    fn a_container_is_known_by_its_cards_in_any_order() {
        let host = handed(Way::Nvidia, &gpus(), &[]).to(HostConfig::default());
        assert_eq!(cards_of(Some(&host)), ["GPU-a", "GPU-b"]);
        let nodes = [("/dev/nvidia0".into(), "/dev/nvidia0".to_owned())];
        let host = handed(Way::Devices, &gpus(), &nodes).to(HostConfig::default());
        assert_eq!(cards_of(Some(&host)), ["/dev/nvidia0"]);
        assert_eq!(cards_of(None), [""; 0]);
    }
}
