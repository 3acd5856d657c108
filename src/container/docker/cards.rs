//! How this engine hands cards to containers: what it can, and which device nodes the driver names for a card.
//!
//! Must hold: a card's device node is looked up by its UUID for each container, since its number may be another
//! one after the driver was loaded again.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum as CgroupDriver};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::Error;
use super::super::policy::{self, Access, Handed, Means, Node, Way};
use super::Docker;
use crate::node::GpuUuid;

/// How long an engine's answer about its means counts; the engine may be started anew with others.
const GOOD_FOR: Duration = Duration::from_mins(10);
/// More cards than a host has.
const CARDS_MAX: usize = 256;
/// Most bytes that are read of what the driver tells of a card: some 400.
const BYTES_MAX: u64 = 16 * 1024;
/// The nodes that every program on a card needs, and the one of CUDA's tools.
const COMMON: [&str; 3] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];

/// Where the kernel's driver tells of its cards, and where their nodes are.
#[derive(Debug, Clone)]
pub struct DriverFolders {
    /// A folder for each card, with a file `information`.
    pub cards: PathBuf,
    /// The folder of the device nodes.
    pub nodes: PathBuf,
}

impl Default for DriverFolders {
    fn default() -> Self {
        Self { cards: "/proc/driver/nvidia/gpus".into(), nodes: "/dev".into() }
    }
}

/// How cards get into containers, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardAccess {
    /// The way.
    pub way: Way,
    /// The device nodes whose links in `/dev/char` are missing: without these systemd does not know them.
    pub without_link: Vec<String>,
    /// Why the device nodes are not known, if they are needed and are not.
    pub unknown: Option<String>,
}

/// The engine's means as it told them last.
#[derive(Default)]
pub(super) struct Known(Mutex<Option<(Instant, Means)>>);

impl Docker {
    /// What the engine is told to hand over these cards.
    pub(super) async fn handed(&self, gpus: &[GpuUuid]) -> Result<Handed, Error> {
        if gpus.is_empty() {
            return Ok(Handed::default());
        }
        let way = policy::way(self.config.gpu_access, &self.means().await?, gpus);
        let nodes = match way {
            Way::Nvidia | Way::Cdi => Vec::new(),
            Way::Devices => self
                .nodes(gpus)
                .await
                .map_err(|reason| Error::Gpu { reason: format!("GPU_ACCESS=devices: {reason}") })?,
            // They only keep systemd from taking the cards away again.
            Way::NvidiaAndNodes => self.nodes(gpus).await.unwrap_or_else(|reason| {
                tracing::debug!("the device nodes of GPUs are not known: {reason}");
                Vec::new()
            }),
        };
        Ok(policy::handed(way, gpus, &nodes))
    }

    /// How these cards get into containers, and whether systemd may take them away from there.
    pub async fn card_access(&self, gpus: &[GpuUuid]) -> Result<CardAccess, Error> {
        let way = policy::way(self.config.gpu_access, &self.means().await?, gpus);
        if !matches!(way, Way::NvidiaAndNodes | Way::Devices) {
            return Ok(CardAccess { way, without_link: Vec::new(), unknown: None });
        }
        Ok(match self.nodes(gpus).await {
            Ok(nodes) => CardAccess { way, without_link: without_link(&nodes), unknown: None },
            Err(why) => CardAccess { way, without_link: Vec::new(), unknown: Some(why) },
        })
    }

    async fn means(&self) -> Result<Means, Error> {
        // These two ask nothing of the engine.
        if matches!(self.config.gpu_access, Access::Cdi | Access::Devices) {
            return Ok(Means::default());
        }
        let mut known = self.card_means.0.lock().await;
        if let Some((at, means)) = known.as_ref()
            && at.elapsed() < GOOD_FOR
        {
            return Ok(means.clone());
        }
        let told = means_of(self.call(self.client().await?.info()).await?);
        *known = Some((Instant::now(), told.clone()));
        Ok(told)
    }

    /// The device nodes of these cards and those that every card needs; or why they are not known, as a clause.
    async fn nodes(&self, gpus: &[GpuUuid]) -> Result<Vec<Node>, String> {
        let (folders, gpus) = (self.config.driver.clone(), gpus.to_vec());
        let read = tokio::task::spawn_blocking(move || nodes_of(&folders, &gpus));
        // A driver that hangs also hangs who reads its files.
        let read = timeout(self.config.call_timeout, read).await;
        let read = read.map_err(|_| "the driver does not tell them in time".to_owned())?;
        read.map_err(|err| err.to_string())?
    }
}

fn means_of(info: SystemInfo) -> Means {
    let devices = info.discovered_devices.unwrap_or_default().into_iter();
    let cdi = devices.filter(|device| device.source.as_deref() == Some("cdi"));
    Means {
        cdi: cdi.filter_map(|device| device.id).collect(),
        by_systemd: info.cgroup_driver == Some(CgroupDriver::SYSTEMD),
    }
}

fn nodes_of(folders: &DriverFolders, gpus: &[GpuUuid]) -> Result<Vec<Node>, String> {
    let cards = std::fs::read_dir(&folders.cards);
    let cards = cards.map_err(|err| format!("{}: {err}", folders.cards.display()))?;
    let files = cards.take(CARDS_MAX).flatten().map(|card| card.path().join("information"));
    let numbers: BTreeMap<String, u32> =
        files.filter_map(|file| number_in(&text_of(&file)?)).collect();
    let mut names = Vec::new();
    for gpu in gpus {
        let number = numbers.get(gpu.as_str());
        let number = number.ok_or_else(|| format!("the driver names no device node for {gpu}"))?;
        names.push(format!("nvidia{number}"));
    }
    let common = COMMON.map(str::to_owned).into_iter();
    names.extend(common.filter(|name| folders.nodes.join(name).exists()));
    let node = |name: String| (folders.nodes.join(&name), format!("/dev/{name}"));
    Ok(names.into_iter().map(node).collect())
}

fn text_of(file: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A card's UUID and the number of its node, from what the driver tells of it.
fn number_in(information: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        let value = information.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim())
    };
    let uuid = GpuUuid::new(field("GPU UUID:")?)?;
    Some((uuid.to_string(), field("Device Minor:")?.parse().ok()?))
}

/// The nodes without a link in `/dev/char`.
fn without_link(nodes: &[Node]) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let is_without = |(path, _): &&Node| {
        let Ok(found) = std::fs::metadata(path) else { return true };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        !Path::new("/dev/char").join(format!("{major}:{minor}")).exists()
    };
    nodes.iter().filter(is_without).map(|(path, _)| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use bollard::models::DeviceInfo;

    use super::*;

    /// As the driver of an H100 prints it.
    const INFORMATION: &str = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 37\nGPU UUID: \t GPU-a\n\
        Video BIOS: \t 96.00.99.00.01\nBus Type: \t PCIe\nBus Location: \t 0000:00:06.0\n\
        Device Minor: \t 3\nGPU Excluded:\t No\n";

    #[test]
    fn a_cards_node_is_found_by_its_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let folders = DriverFolders { cards: dir.path().join("gpus"), nodes: dir.path().into() };
        let gpus = [GpuUuid::new("GPU-a").unwrap()];
        assert!(nodes_of(&folders, &gpus).unwrap_err().contains("gpus: No such file"));
        for (place, text) in
            [("0000:00:05.0", "GPU UUID: ???\nDevice Minor: 0\n"), ("0000:00:06.0", INFORMATION)]
        {
            std::fs::create_dir_all(folders.cards.join(place)).unwrap();
            std::fs::write(folders.cards.join(place).join("information"), text).unwrap();
        }
        std::fs::write(dir.path().join("nvidiactl"), "").unwrap();
        let inside: Vec<String> =
            nodes_of(&folders, &gpus).unwrap().into_iter().map(|(_, inside)| inside).collect();
        assert_eq!(inside, ["/dev/nvidia3", "/dev/nvidiactl"]);
        let other = [GpuUuid::new("MIG-1").unwrap()];
        assert!(nodes_of(&folders, &other).unwrap_err().contains("no device node for MIG-1"));
    }

    #[test]
    fn rubbish_of_a_driver_names_no_node() {
        for text in [
            "",
            "GPU UUID: GPU-a\n",
            "GPU UUID: a/b\nDevice Minor: 1\n",
            "GPU UUID: GPU-a\nDevice Minor: -1\n",
        ] {
            assert_eq!(number_in(text), None, "{text}");
        }
    }

    #[test]
    fn an_engines_means_are_read_as_it_tells_them() {
        let device = |source: &str, id: &str| DeviceInfo {
            source: Some(source.to_owned()),
            id: Some(id.to_owned()),
        };
        let info = SystemInfo {
            cgroup_driver: Some(CgroupDriver::SYSTEMD),
            discovered_devices: Some(vec![
                device("cdi", "nvidia.com/gpu=GPU-a"),
                device("other", "nvidia.com/gpu=GPU-b"),
            ]),
            ..SystemInfo::default()
        };
        let means = Means { cdi: ["nvidia.com/gpu=GPU-a".to_owned()].into(), by_systemd: true };
        assert_eq!(means_of(info), means);
        assert_eq!(means_of(SystemInfo::default()), Means::default());
    }
}
