//! The check of how containers get GPUs, and whether systemd may take them away while a job runs.

use super::{DOCKER, Finding, gpu, hasty, unset};
use crate::config::Parts;
use crate::container::Way;
use crate::container::docker::{CardAccess, Docker};

/// What NVIDIA names against it, the one that needs least first.
const LINKS: &str = "make the links: `nvidia-ctk system create-dev-char-symlinks --create-all`, at each boot; or use \
                     CDI (`nvidia-ctk cdi generate`, Docker Engine 28.2 or newer), or run the engine with \
                     `\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]` in /etc/docker/daemon.json";

/// How cards get into containers.
pub(super) async fn access(parts: &Parts) -> Finding {
    let Some(config) = &parts.docker else { return unset() };
    let uuids: Vec<_> = match gpu::cards(parts).await {
        Ok(cards) if cards.gpus.is_empty() => return Finding::ok("GPU_MODE=none: not needed"),
        Ok(cards) => cards.gpus.into_iter().map(|card| card.uuid).collect(),
        Err(_) => return Finding::fail("not checked", "mend the GPU first"),
    };
    let told = match Docker::connect(&hasty(config)) {
        Ok(docker) => docker.card_access(&uuids).await,
        Err(err) => Err(err),
    };
    match told {
        Ok(access) => judged(&access),
        Err(err) => Finding::failed(err, DOCKER),
    }
}

fn judged(access: &CardAccess) -> Finding {
    const LOST: &str = "a `systemctl daemon-reload`, as package managers do it, takes the GPUs away from running \
                        containers (\"Failed to initialize NVML: Unknown Error\"), because systemd keeps the \
                        engine's control groups";
    match (access.way, &access.unknown) {
        (Way::Cdi, _) => Finding::ok("by CDI"),
        (Way::Nvidia, _) => Finding::ok("by NVIDIA's toolkit"),
        (Way::Devices, Some(why)) => Finding::fail(
            format!("GPU_ACCESS=devices: no container gets a GPU: {why}"),
            "load the NVIDIA driver, switch MIG off, or choose another GPU_ACCESS",
        ),
        (Way::NvidiaAndNodes, Some(why)) => {
            Finding::warn(format!("by NVIDIA's toolkit; {LOST}, and {why}"), LINKS)
        }
        (way, None) => {
            let how = if way == Way::Devices {
                "as device nodes: images bring the driver's libraries"
            } else {
                "by NVIDIA's toolkit, and as device nodes that systemd knows"
            };
            if way == Way::Devices || access.without_link.is_empty() {
                return Finding::ok(how);
            }
            let nodes = access.without_link.join(", ");
            Finding::warn(
                format!("{how}, but without a link in /dev/char for {nodes}: {LOST}"),
                LINKS,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn what_systemd_may_take_away_is_told_with_its_remedy_before_it_happens() {
        let nodes = vec!["/dev/nvidia0".to_owned()];
        let unknown = Some("the driver names no device node for MIG-1".to_owned());
        for (way, without_link, unknown, grade, says) in [
            (Way::Cdi, vec![], None, Grade::Ok, "CDI"),
            (Way::Nvidia, vec![], None, Grade::Ok, "toolkit"),
            (Way::NvidiaAndNodes, vec![], None, Grade::Ok, "systemd knows"),
            (
                Way::NvidiaAndNodes,
                nodes.clone(),
                None,
                Grade::Warn,
                "/dev/char for /dev/nvidia0: a `systemctl",
            ),
            (Way::NvidiaAndNodes, vec![], unknown.clone(), Grade::Warn, "daemon-reload"),
            (Way::Devices, nodes, None, Grade::Ok, "as device nodes"),
            (Way::Devices, vec![], unknown, Grade::Fail, "GPU_ACCESS=devices"),
        ] {
            let found = judged(&CardAccess { way, without_link, unknown });
            assert_eq!(found.status, grade, "{found:?}");
            assert!(found.detail.contains(says), "{found:?}");
            let remedy = found.remedy.unwrap_or_default();
            assert_eq!(
                remedy.contains("create-dev-char-symlinks"),
                grade == Grade::Warn,
                "{remedy}"
            );
        }
    }
}
