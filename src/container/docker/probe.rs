//! Probes: checks and repairs that need a container. Does the engine hand out GPUs, and see this host's
//! files? Probes also open folders that a job closed, and read the host's addresses.
//!
//! Must hold: a probe's container carries the node's label and a name that is fixed per probe. So however a
//! probe ends, it leaves at most one container, which the next probe or the node's next start removes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt as _;

use super::super::{ContainerId, Error, policy};
use super::tool::{self, PROGRAM, SHOWN};
use super::{Docker, fault, follow, within};
use crate::ids::Address;
use crate::node::GpuUuid;
use crate::node::public::Block;

/// Size of the layer in the probe that shows whether the engine can limit layers.
const HELD_BYTES: u64 = 64 << 20;
/// A command that is not in the tool image.
const COMMAND: &str = "/nothing-to-run";

/// Time limit for the owner's image that computes on a GPU.
const PROOF: Duration = Duration::from_mins(2);
/// Attempts to create a probe's container.
const TRIES: u32 = 3;
/// Most bytes of an archive with one small file that are read.
const ARCHIVE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of our program's output that are read.
const SAID_BYTES_MAX: usize = 64 * 1024;

impl Docker {
    /// Checks that the engine hands these GPUs to a container; [`Error::Gpu`] and [`Error::Driver`] say why
    /// not. `what` distinguishes this probe from the node's others.
    ///
    /// An engine accepts any request for GPUs when a container is created, and refuses it when the container
    /// is started. So the probe starts one with a command that does not exist. The engine hands over GPUs
    /// before it looks up the command, so a complaint about the command is the good answer.
    pub async fn hands_out(
        &self,
        node: Address,
        what: &str,
        gpus: &[GpuUuid],
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let host = HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() };
        let host = self.handed(gpus).await?.to(host);
        let probe = self.create_probe(node, what, &[COMMAND], host).await?;
        let start = client.start_container(&probe.0, None::<StartContainerOptions>);
        let started = within(self.config.start_timeout, start).await;
        let removed = self.discard(&probe).await;
        match started.map_err(|err| fault::of_start(&self.config.host, err)) {
            Ok(()) | Err(Error::Start { .. }) => removed,
            // The failed start says more than a failed removal of a container that is still starting.
            Err(other) => Err(other),
        }
    }

    /// Checks that this GPU computes: runs the owner's image for that, if there is one, with the GPU and
    /// nothing else. Its command must exit 0 within two minutes.
    pub async fn computes(&self, node: Address, gpu: &GpuUuid) -> Result<(), Error> {
        let Some(image) = &self.config.gpu_probe_image else { return Ok(()) };
        let client = self.client().await?;
        let failed = |reason: String| Error::Gpu { reason: fault::one_line(&reason) };
        let found = match within(self.config.call_timeout, client.inspect_image(image)).await {
            Ok(found) => found.id,
            Err(err) if fault::status(&err) == Some(404) => None,
            Err(err) => return Err(self.fault(err)),
        };
        let Some(id) = found else {
            // This says nothing about the card.
            let reason = format!("GPU_PROBE_IMAGE: there is no image {image} on this host");
            return Err(Error::Driver { reason: fault::one_line(&reason) });
        };
        let host = policy::proof(self.handed(std::slice::from_ref(gpu)).await?);
        let probe = self.create_from(id, None, (node, &format!("{gpu}-proof")), host).await?;
        let ran = async {
            let start = client.start_container(&probe.0, None::<StartContainerOptions>);
            let started = within(self.config.start_timeout, start).await;
            started.map_err(|err| fault::of_start(&self.config.host, err))?;
            match tokio::time::timeout(PROOF, follow::exit_code(self, &probe)).await {
                Ok(Ok(0)) => Ok(()),
                Ok(Ok(code)) => Err(failed(format!("{image} ended with exit code {code} on it"))),
                Ok(Err(err)) => Err(err),
                Err(_) => {
                    Err(failed(format!("{image} did not end in {} s on it", PROOF.as_secs())))
                }
            }
        };
        let ran = ran.await;
        let removed = self.discard(&probe).await;
        ran.and(removed)
    }

    /// The content that the engine finds at the path of this file; `None` if it finds no file. No program
    /// runs: the engine reads through a container that is never started. `what` as in [`Docker::hands_out`].
    pub async fn read_back(
        &self,
        node: Address,
        what: &str,
        file: &Path,
    ) -> Result<Option<Vec<u8>>, Error> {
        let client = self.client().await?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Ok(None);
        };
        let host = HostConfig {
            mounts: Some(vec![policy::shown(folder, SHOWN)]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        };
        let probe = match self.create_probe(node, what, &[COMMAND], host).await {
            Err(Error::Engine { reason }) if reason.contains("source path does not exist") => {
                return Ok(None);
            }
            probe => probe?,
        };
        let path = Path::new(SHOWN).join(name).to_string_lossy().into_owned();
        let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
        let mut archive = std::pin::pin!(client.download_from_container(&probe.0, Some(options)));
        let mut bytes = Vec::new();
        let read = async {
            while let Some(piece) = archive.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() > ARCHIVE_BYTES_MAX {
                    break;
                }
            }
            Ok(())
        };
        let read = within(self.config.call_timeout, read).await;
        self.discard(&probe).await?;
        match read {
            Ok(()) => Ok(only_file(&bytes)),
            Err(err) if fault::status(&err) == Some(404) => Ok(None),
            Err(err) => Err(self.fault(err)),
        }
    }

    /// Opens these folders below `top` to every user. No program runs: the engine, which is root, unpacks an
    /// archive of empty folders over the existing ones, so that each gets the archive's mode and keeps its
    /// content (docs/adr/0027-closed-folders.md).
    pub async fn open_folders(
        &self,
        node: Address,
        what: &str,
        top: &Path,
        folders: &[PathBuf],
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let host = HostConfig {
            mounts: Some(vec![policy::lent(top, SHOWN)]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        };
        let archive = tool::folders(folders.iter().map(PathBuf::as_path), 0o777);
        let archive = bollard::body_full(archive.map_err(Error::Io)?);
        let probe = self.create_probe(node, what, &[COMMAND], host).await?;
        let options = UploadToContainerOptionsBuilder::default().path(SHOWN).build();
        let unpacked = client.upload_to_container(&probe.0, Some(options), archive);
        let unpacked = within(self.config.call_timeout, unpacked).await;
        self.discard(&probe).await?;
        unpacked.map_err(|err| self.fault(err))
    }

    /// Whether the engine can limit the size of a container's layer: it then creates such a container.
    /// Storage drivers that can't refuse, and those that can only on some file systems (`overlay2`: XFS with
    /// `pquota`) find out when they create it. `Err` if the engine does not answer.
    pub async fn tries_to_hold_a_layer(&self, node: Address, what: &str) -> Result<bool, Error> {
        let host = HostConfig {
            storage_opt: Some(policy::layer_size(HELD_BYTES)),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        };
        match self.create_probe(node, what, &[COMMAND], host).await {
            Ok(probe) => self.discard(&probe).await.map(|()| true),
            // Any other error may be gone the next time.
            Err(Error::Engine { reason }) if refuses_size(&reason) => {
                tracing::debug!("the engine holds no container's layer to a size: {reason}");
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// The addresses of the engine's host and the networks on its links, read now.
    pub(super) async fn blocks_of_host(&self, node: Address) -> Result<Vec<Block>, Error> {
        let client = self.client().await?;
        let host = policy::Holder::beside_host();
        let probe = self.create_probe(node, "addresses", &[PROGRAM, "addresses"], host).await?;
        let said = async {
            let start = client.start_container(&probe.0, None::<StartContainerOptions>);
            let started = within(self.config.start_timeout, start).await;
            started.map_err(|err| self.fault(err))?;
            self.hear(&probe.0, None).await
        };
        let said = said.await;
        self.discard(&probe).await?;
        let said = said?;
        let told: Result<Vec<Block>, _> = said.lines().map(str::parse).collect();
        match told {
            Ok(told) if !told.is_empty() && told.len() <= policy::ADDRESSES_MAX => Ok(told),
            _ => {
                let said = fault::one_line(&said);
                let reason = format!("the host's addresses can't be read: {said}");
                Err(Error::Engine { reason })
            }
        }
    }

    /// Runs a command of the tool image to its end. `what` as in [`Docker::hands_out`].
    pub(super) async fn run_tool(
        &self,
        node: Address,
        what: &str,
        command: &[&str],
        host: HostConfig,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let probe = self.create_probe(node, what, command, host).await?;
        let ran = async {
            let start = client.start_container(&probe.0, None::<StartContainerOptions>);
            let started = within(self.config.start_timeout, start).await;
            started.map_err(|err| self.fault(err))?;
            let said = self.hear(&probe.0, None).await?;
            match tokio::time::timeout(self.config.call_timeout, follow::exit_code(self, &probe))
                .await
            {
                Ok(Ok(0)) => Ok(()),
                Ok(Err(err)) => Err(err),
                _ => Err(Error::Engine { reason: fault::one_line(&said) }),
            }
        };
        let ran = ran.await;
        let removed = self.discard(&probe).await;
        ran.and(removed)
    }

    /// The output of a container of ours, up to `until` or its end.
    pub(super) async fn hear(&self, id: &str, until: Option<&str>) -> Result<String, Error> {
        let client = self.client().await?;
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
        let mut log = std::pin::pin!(client.logs(id, Some(options)));
        let mut said = String::new();
        let read = async {
            while let Some(piece) = log.next().await {
                if let LogOutput::StdOut { message } | LogOutput::StdErr { message } = piece? {
                    said.push_str(&String::from_utf8_lossy(&message));
                }
                if said.len() > SAID_BYTES_MAX || until.is_some_and(|until| said.contains(until)) {
                    break;
                }
            }
            Ok(())
        };
        within(self.config.call_timeout, read).await.map_err(|err| self.fault(err))?;
        Ok(said)
    }

    /// Removes a container of the node itself, which joined no holder.
    pub(super) async fn discard(&self, id: &ContainerId) -> Result<(), Error> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::default().v(true).force(true).build();
        let removed = client.remove_container(&id.0, Some(options));
        match within(self.config.call_timeout, removed).await {
            // 409: another call is removing it already.
            Err(err) if matches!(fault::status(&err), Some(404 | 409)) => Ok(()),
            other => other.map_err(|err| self.fault(err)),
        }
    }

    /// Creates a container of the tool image under the probe's name, after removing its predecessor.
    pub(super) async fn create_probe(
        &self,
        node: Address,
        what: &str,
        command: &[&str],
        host: HostConfig,
    ) -> Result<ContainerId, Error> {
        let image = self.tool_image().await?;
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.create_from(image, Some(command), (node, what), host).await
    }

    /// Creates a container of this image under the probe's name, after removing its predecessor.
    async fn create_from(
        &self,
        image: String,
        command: Option<Vec<String>>,
        (node, what): (Address, &str),
        host: HostConfig,
    ) -> Result<ContainerId, Error> {
        let client = self.client().await?;
        let name = policy::probe_name(node, what);
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: command,
            labels: Some(policy::probe_labels(node, what)),
            host_config: Some(HostConfig { runtime: self.config.runtime.clone(), ..host }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let mut tries_left = TRIES;
        loop {
            if let Err(err) = self.discard(&ContainerId(name.clone())).await {
                let reason = format!("the container {name} of an earlier probe stays: {err}");
                return Err(Error::Engine { reason: fault::one_line(&reason) });
            }
            let create = client.create_container(Some(options.clone()), body.clone());
            tries_left -= 1;
            match within(self.config.call_timeout, create).await {
                Ok(created) => return Ok(ContainerId(created.id)),
                // An interrupted probe's create call may have taken the name a moment ago.
                Err(err) if fault::status(&err) == Some(409) && tries_left > 0 => {}
                Err(err) => return Err(self.fault(err)),
            }
        }
    }
}

/// Whether this error of the engine means that its storage driver can't limit layers.
fn refuses_size(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["storage-opt", "storage opt", "quota"].iter().any(|word| reason.contains(word))
}

/// The content of the archive's one file.
fn only_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut content = Vec::new();
    entry.read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_option_says_that_layers_are_held_to_no_size() {
        for (reason, refuses) in [
            (
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
                true,
            ),
            ("--storage-opt is not supported for vfs", true),
            ("Filesystem does not support, or has not enabled quotas", true),
            ("the container lamda-probe of an earlier probe stays: device is busy", false),
            ("Docker responded with status code 500: no space left on device", false),
        ] {
            assert_eq!(refuses_size(reason), refuses, "{reason}");
        }
    }
}
