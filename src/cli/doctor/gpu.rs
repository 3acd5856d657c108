//! The GPU checks: which cards the driver knows, and whether a container gets each of them.

use std::path::Path;

use super::{DOCKER, Finding, hasty, node_of, unset};
use crate::config::{Gpu, Parts};
use crate::container::Error as ContainerError;
use crate::container::docker::Docker;
use crate::gpu::pci::{self, Maker};
use crate::gpu::{GpuProbe as _, host::Host};
use crate::host::nodes;
use crate::node::{GpuInventory, GpuUuid, card::Facts, pools};
use crate::report::causes;

/// The cards, or a finding that says why there are none.
pub(super) async fn cards(parts: &Parts) -> Result<GpuInventory, Finding> {
    match &parts.gpu {
        None => Err(unset()),
        Some(Gpu::None) => Ok(GpuInventory::default()),
        Some(Gpu::Auto { library, .. }) => match Host::new(library.clone()).inventory().await {
            Ok(inventory) if inventory.gpus.is_empty() => {
                let seen = ["the NVIDIA driver sees no card that can be used".to_owned()];
                let told = [&seen[..], &inventory.left_out, &inventory.others].concat();
                Err(Finding::fail(told.join("; "), NO_GPU))
            }
            Ok(inventory) => Ok(inventory),
            Err(err) => {
                let told = std::iter::once(causes(&err)).chain(on_the_bus(Path::new(pci::DEVICES)));
                Err(Finding::fail(told.collect::<Vec<_>>().join("; "), NO_GPU))
            }
        },
    }
}

/// What is in the machine although no driver tells of it, one sentence a card.
fn on_the_bus(devices: &Path) -> Vec<String> {
    let seen = pci::seen(devices).into_iter().map(|card| match card.maker {
        Maker::Nvidia => format!("{}: seen, its driver does not answer", card.in_words()),
        Maker::Amd | Maker::Intel => format!("{}: seen, not supported", card.in_words()),
    });
    seen.collect()
}

const NO_GPU: &str =
    "install the NVIDIA driver, or set GPU_MODE=none to run without a GPU (on a local chain only)";

const NO_LIBRARY: &str = "set NVML_LIB to the driver's libnvidia-ml.so.1: the tool is slow, tells no MIG \
                          instances, and nothing of errors the moment they happen";

pub(super) async fn gpu(parts: &Parts) -> Finding {
    let inventory = match cards(parts).await {
        Ok(inventory) => inventory,
        Err(finding) => return finding,
    };
    let GpuInventory { gpus, share_memory, facts, left_out, others, stand_in, .. } = inventory;
    let listed = parts.settings.as_ref().map_or(&[][..], |settings| &settings.pools);
    let pools = pools::served(listed, &gpus).join(", ");
    let pools = (!pools.is_empty()).then(|| format!("pools: {pools}"));
    let mut shown: Vec<String> = gpus
        .iter()
        .map(|card| {
            let whose = if share_memory.contains(&card.uuid) { " (the host's)" } else { "" };
            let facts = facts.get(&card.uuid).map_or_else(String::new, Facts::in_brackets);
            format!("{} {} MiB{whose} {}{facts}", card.model, card.vram_mib, card.uuid)
        })
        .collect();
    if gpus.is_empty() {
        shown.push("GPU_MODE=none: jobs run on the CPU".to_owned());
    }
    let is_whole = left_out.is_empty();
    let told = shown.into_iter().chain(left_out).chain(others).chain(pools);
    let told = told.collect::<Vec<_>>().join("; ");
    if let Some(why) = stand_in {
        return Finding::warn(format!("{told}; {why}"), NO_LIBRARY);
    }
    if is_whole {
        return Finding::ok(told);
    }
    Finding::warn(told, "see what the driver says of it (`nvidia-smi`); jobs get the others")
}

pub(super) async fn gpu_in_containers(parts: &Parts) -> Finding {
    let Some(config) = &parts.docker else { return unset() };
    let cards = match cards(parts).await {
        Ok(cards) if cards.gpus.is_empty() => return Finding::ok("GPU_MODE=none: not needed"),
        Ok(cards) => cards.gpus,
        Err(_) => return Finding::fail("not checked", "mend the GPU first"),
    };
    let uuids: Vec<GpuUuid> = cards.into_iter().map(|card| card.uuid).collect();
    let docker = match Docker::connect(&hasty(config)) {
        Ok(docker) => docker,
        Err(err) => return Finding::failed(err, DOCKER),
    };
    let all = docker.hands_out(node_of(parts), "doctor", &uuids).await;
    let Err(err) = all else { return handed_over() };
    // Test each card alone only if the fault may lie in a card.
    if uuids.len() == 1 || !matches!(err, ContainerError::Gpu { .. }) {
        let remedy = gpu_remedy(&err);
        return Finding::failed(err, remedy);
    }
    let mut faults = Vec::new();
    for uuid in &uuids {
        let gets = docker.hands_out(node_of(parts), "doctor", std::slice::from_ref(uuid)).await;
        faults.extend(gets.err().map(|err| format!("{uuid}: {}", causes(&err))));
    }
    let (count, remedy) = (uuids.len(), gpu_remedy(&err));
    let text =
        format!("{} of {count} cards go to no container: {}", faults.len(), faults.join("; "));
    match faults.len() {
        0 => Finding::warn(
            format!("each card by itself goes to a container: {}", causes(&err)),
            remedy,
        ),
        bad if bad == count => Finding::fail(text, remedy),
        _ => Finding::warn(text, format!("{remedy}; jobs get the others")),
    }
}

/// The engine hands the cards to containers; whether each container has exactly its own is checked by the node
/// while jobs run, if its user may look.
fn handed_over() -> Finding {
    let handed = "the engine hands the cards to containers";
    if nodes::may_look() {
        return Finding::ok(handed);
    }
    Finding::warn(
        format!(
            "{handed}; whether each has exactly its own is not checked from outside, only by what the driver tells"
        ),
        "run the node as root, or with CAP_SYS_PTRACE as deploy/lamda-node.service does",
    )
}

/// The remedy if no container gets a card, by the cause of the error.
const fn gpu_remedy(err: &ContainerError) -> &'static str {
    match err {
        ContainerError::Driver { .. } => {
            "load the NVIDIA driver (does `nvidia-smi` work?), install the NVIDIA Container Toolkit \
             (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit) where it is not, and \
             restart the engine"
        }
        ContainerError::Gpu { .. } => {
            "see what the driver says of the card (`nvidia-smi`, `dmesg | grep -i xid`); set up the NVIDIA \
             Container Toolkit again after a change of the driver"
        }
        ContainerError::Unreachable { .. } => DOCKER,
        _ => {
            "see the engine's log (`journalctl -u docker`): no container could be started with a card"
        }
    }
}
