//! What kind of engine this is, and whether it hands out GPUs: for `doctor` and the start.

use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HostConfig, ImageInspect, SystemInfoCgroupVersionEnum as Cgroup,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptionsBuilder, StartContainerOptions,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tar::{Builder, EntryType, Header};

use super::super::{ContainerId, ContainerRuntime as _, Error, policy};
use super::{Docker, fault, within};
use crate::node::GpuUuid;

/// An image of our own that holds four empty folders and nothing that could run.
const PROBE_IMAGE: &str = "lamda-node/probe";
const PROBE_TAG: &str = "1";
/// What NVIDIA's toolkit writes into while it prepares a container.
const PROBE_FOLDERS: [&str; 4] = ["etc/", "tmp/", "usr/", "usr/lib/"];
/// A command that is not in the probe's image.
const PROBE_COMMAND: &str = "/nothing-to-run";

/// A Docker Engine, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its version, such as `28.2.2`.
    pub version: String,
    /// The newest version of its HTTP API.
    pub api: String,
    /// The host's operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// 1 or 2; 0 where it does not say.
    pub cgroup_version: u8,
    /// The names of its runtimes, sorted.
    pub runtimes: Vec<String>,
    /// Such as `overlay2`.
    pub storage_driver: String,
    /// Where its images and containers lie.
    pub root_dir: PathBuf,
    /// Such as `name=seccomp,profile=default`.
    pub security_options: Vec<String>,
}

impl Engine {
    /// Whether containers get a list of system calls that they may make: `profile=default` (or
    /// `builtin`, as newer engines call it) or a file, not `unconfined`.
    pub fn filters_syscalls(&self) -> bool {
        self.option("seccomp").is_some_and(|rest| !rest.contains("profile=unconfined"))
    }

    /// Whether root in a container is another user on the host.
    pub fn maps_root(&self) -> bool {
        self.option("userns").is_some() || self.option("rootless").is_some()
    }

    /// What the engine says of a security option: `name=<name>[,key=value…]`.
    fn option(&self, name: &str) -> Option<&str> {
        self.security_options.iter().find_map(|option| {
            let (first, rest) = option.split_once(',').unwrap_or((option, ""));
            (first.strip_prefix("name=") == Some(name)).then_some(rest)
        })
    }
}

impl Docker {
    /// What the engine tells of itself.
    pub async fn engine(&self) -> Result<Engine, Error> {
        let client = self.client().await?;
        let version = self.call(client.version()).await?;
        let info = self.call(client.info()).await?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort_unstable();
        Ok(Engine {
            version: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
            os: info.operating_system.unwrap_or_default(),
            cgroup_version: match info.cgroup_version {
                Some(Cgroup::_1) => 1,
                Some(Cgroup::_2) => 2,
                Some(Cgroup::EMPTY) | None => 0,
            },
            runtimes,
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default().into(),
            security_options: info.security_options.unwrap_or_default(),
        })
    }

    /// Whether the engine hands these cards to a container; [`Error::Gpu`] says why not.
    ///
    /// An engine accepts any request for GPUs when a container is created and refuses it when one
    /// is started, so one is started: from an image without a single file, with a command that is
    /// not there. The cards are handed over before the command is looked for, so the complaint
    /// about the command is the good answer.
    pub async fn gpu_ready(&self, gpus: &[GpuUuid]) -> Result<(), Error> {
        let client = self.client().await?;
        let body = ContainerCreateBody {
            image: Some(self.probe_image().await?),
            cmd: Some(vec![PROBE_COMMAND.to_owned()]),
            host_config: Some(HostConfig {
                device_requests: policy::device_request(gpus).map(|request| vec![request]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let created = client.create_container(None::<CreateContainerOptions>, body);
        let probe = ContainerId(self.call(created).await?.id);
        let start = client.start_container(&probe.0, None::<StartContainerOptions>);
        let started = within(self.config.start_timeout, start).await;
        self.remove(&probe).await?;
        match started.map_err(|err| fault::of_start(&self.config.host, err)) {
            Ok(()) | Err(Error::Start { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// The id of the probe's image, imported where it is not here.
    async fn probe_image(&self) -> Result<String, Error> {
        let client = self.client().await?;
        let name = format!("{PROBE_IMAGE}:{PROBE_TAG}");
        let call = within(self.config.call_timeout, client.inspect_image(&name));
        match call.await {
            Ok(ImageInspect { id: Some(id), .. }) => return Ok(id),
            Err(err) if fault::status(&err) != Some(404) => return Err(self.fault(err)),
            _ => {}
        }
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(PROBE_IMAGE)
            .tag(PROBE_TAG)
            .build();
        let root = bollard::body_full(empty_root().map_err(Error::Io)?);
        let import = client.create_image(Some(options), Some(root), None);
        self.call(import.try_for_each(|_| async { Ok(()) })).await?;
        let imported = self.call(client.inspect_image(&name)).await?;
        Ok(imported.id.unwrap_or(name))
    }
}

fn empty_root() -> std::io::Result<Bytes> {
    let mut archive = Builder::new(Vec::new());
    for folder in PROBE_FOLDERS {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, folder, std::io::empty())?;
    }
    archive.into_inner().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_security_options_are_read_as_engines_write_them() {
        for (options, filters, maps) in [
            (&["name=apparmor", "name=seccomp,profile=default"][..], true, false),
            (&["name=seccomp,profile=builtin", "name=cgroupns"], true, false),
            (&["name=seccomp,profile=/etc/docker/own.json", "name=userns"], true, true),
            (&["name=seccomp,profile=unconfined", "name=rootless"], false, true),
            (&["name=apparmor"], false, false),
            (&[], false, false),
        ] {
            let engine = Engine {
                version: String::new(),
                api: String::new(),
                os: String::new(),
                cgroup_version: 2,
                runtimes: Vec::new(),
                storage_driver: String::new(),
                root_dir: PathBuf::new(),
                security_options: options.iter().map(|option| (*option).to_owned()).collect(),
            };
            assert_eq!(
                (engine.filters_syscalls(), engine.maps_root()),
                (filters, maps),
                "{options:?}"
            );
        }
    }
}
