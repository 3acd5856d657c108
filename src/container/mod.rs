//! Containers that run strangers' jobs.
//!
//! [`ContainerRuntime`] is the seam: [`docker`] drives a Docker Engine, [`fake`] simulates one in memory
//! (demo, tests). The same contract tests run against both. `policy` turns a [`ContainerSpec`] into the
//! engine's create call, `trial` judges what a program inside a container could do, `image` parses references,
//! `allowed` decides which images strangers may name; all four are pure.
//!
//! Must hold: at most one container exists under a name, and it is started at most once; the engine client's
//! types never leave this folder.

mod allowed;
mod cached;
pub mod docker;
mod error;
pub mod fake;
mod image;
mod log;
mod policy;
mod trial;
mod user;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{Address, JobId};
use crate::job::status::PullProgress;
use crate::node::GpuUuid;
use crate::report::BoxError;
use crate::usage::Unknown;
use crate::usage::watch::Place;

pub use allowed::{ImagePolicy, NotAllowed, PUBLIC_REGISTRIES};
pub use cached::CachedImage;
pub use error::Error;
pub use image::{InvalidReference, Reference};
pub use log::{Gone, LogChunk, LogSink, LogStream};
pub use policy::{Access, LOG_BYTES_KEPT, Way};
pub use trial::Tried;
pub use user::{InvalidUser, User};

/// The part of a container engine that a node needs. Every call has its own deadline, except
/// [`ContainerRuntime::follow`], which lasts as long as the container does. Every call is repeatable; `start`
/// only while the container exists. Dropping a future of this trait leaves nothing half done.
pub trait ContainerRuntime: fmt::Debug + Send + Sync + 'static {
    /// Makes the image present and returns its id and digest. An image that an earlier job pulled is not
    /// downloaded again. Any other image on this host is used only if the owner's [`ImagePolicy`] names it or
    /// its registry gives it to this node. An error inside the pull's stream and a stalled pull are errors.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Image, Error>> + Send;

    /// How far the pull of this image is that jobs wait for; `None` if none is under way, or it downloads nothing
    /// yet.
    fn pull_progress(&self, reference: &str) -> Option<PullProgress>;

    /// Bytes that a pull of this image would download, by its manifest; `None` if it is here, or if the registry
    /// does not say within some seconds, as one that only the engine can reach.
    fn download_size(
        &self,
        reference: &str,
    ) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// Creates the container, or returns this node's container of that name. A container that was created for
    /// other GPUs and never started is replaced.
    fn create(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<ContainerId, Error>> + Send;

    /// Starts a container that was created and never started. One that runs or has exited is left alone and
    /// reported. If the engine refuses the start, the container stays created; if the start times out, the
    /// container is removed.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<Launched, Error>> + Send;

    /// Sends the container's output to `sink`, in order per stream, and returns once its processes are gone
    /// and its output has been read to the end. Also works on a container that exited before the call; one
    /// that was never started is an error. The exit is returned even if the output can't be read or `sink`
    /// takes no more. `gone` is called as soon as no process is left, which may be long before a flood of output is
    /// read. Each call starts with the first byte that the engine still has. The engine keeps a
    /// bounded amount: for a job that writes hundreds of megabytes, lines in the middle can be missing or
    /// repeated.
    fn follow(
        &self,
        id: &ContainerId,
        sink: LogSink,
        gone: Gone<'_>,
    ) -> impl Future<Output = Result<Exit, Error>> + Send;

    /// Asks the container to end, and kills it after `grace`. `Ok` also if it is gone or had already ended.
    fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Copies `path` out of an exited container into the empty folder `dest` (the entry keeps its base name),
    /// at most `bytes_max` bytes. Links arrive as links, devices and pipes as named pipes. An entry that
    /// would land outside `dest` is an error.
    fn copy_out(
        &self,
        id: &ContainerId,
        path: &str,
        dest: &Path,
        bytes_max: u64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The number of the container's first process, in the engine's PID namespace; `None` if it does not run, if
    /// the engine is on another host, or if the runtime keeps its containers out of the host's sight.
    fn first_process(
        &self,
        id: &ContainerId,
    ) -> impl Future<Output = Result<Option<u32>, Error>> + Send;

    /// Where the kernel counts what a started container uses, or why nobody knows.
    fn group(&self, _id: &ContainerId) -> impl Future<Output = Result<Place, Unknown>> + Send {
        async { Err(Unknown::NotSupported) }
    }

    /// The path, below the roots of control groups, of the group that the container of this name has to itself, if
    /// it has one. It outlives the container.
    fn group_path(&self, _name: &str) -> Option<String> {
        None
    }

    /// Removes these containers' own groups, which the caller may not.
    fn remove_groups(
        &self,
        _node: Address,
        _names: &[String],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Bytes written to the container's own layer; `None` if the engine says that it can't measure them, as
    /// its btrfs driver does of a layer that has reached its size. It may take long.
    fn written(&self, id: &ContainerId) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// The host folder that holds what the container wrote to its own layer, and nothing of its image; `None`
    /// if the engine keeps layers in another way. The caller may be unable to enter it, or even to see it.
    fn layer_folder(
        &self,
        id: &ContainerId,
    ) -> impl Future<Output = Result<Option<PathBuf>, Error>> + Send;

    /// Whether the engine holds a container's layer to a size by itself (`--storage-opt size`), as a trial
    /// shows; asked once.
    fn holds_layers(&self, node: Address) -> impl Future<Output = bool> + Send;

    /// The images that this node pulled and the engine still has, the one that was used last at the end. Never one
    /// of the owner's.
    fn cached(&self) -> impl Future<Output = Result<Vec<CachedImage>, Error>> + Send;

    /// Removes such an image if no container was made of it, the owner gave it no name, and no job asked for it
    /// after `unless_after`. Returns whether it is gone.
    fn evict(
        &self,
        id: &str,
        unless_after: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// The host folder of the engine's images and containers; `None` if the engine is on another host.
    fn root_folder(&self) -> impl Future<Output = Result<Option<PathBuf>, Error>> + Send;

    /// Removes the container with its anonymous volumes, running or not. `Ok` also if it is gone already.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes a container that was never started. Returns whether it is gone: a container that was started,
    /// perhaps by a caller that has died since, stays.
    fn withdraw(&self, id: &ContainerId) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Every container of this node, running or not, found by its `lamda.node` label.
    fn list(&self, node: Address) -> impl Future<Output = Result<Vec<Found>, Error>> + Send;

    /// Checks that the engine hands this GPU to a container of the node, and that the GPU computes if the owner
    /// named an image for that; [`Error::Gpu`] and [`Error::Driver`] say why not. The next call removes what an interrupted one left behind.
    fn gpu_ready(
        &self,
        node: Address,
        gpu: &GpuUuid,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Opens folders, given relative to `top`, to every user of this host: a container's root may have closed
    /// them to the node. `top` must be a folder of the node's that nobody else can enter.
    fn open_folders(
        &self,
        node: Address,
        top: &Path,
        folders: &[PathBuf],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Checks that the engine can hold jobs: that it enforces containers' limits ([`Error::Unlimited`] names those that
    /// it can't), filters their system calls ([`Error::Unfiltered`]), and has the owner's runtime
    /// ([`Error::NoRuntime`]).
    fn limits(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Keeps `spare` network namespaces ready for each of these networks, so that containers start sooner, and
    /// removes those that no container needs any more. Never returns; does nothing while it is not polled. A
    /// container starts without it as well.
    fn keep_networks(
        &self,
        node: Address,
        networks: &[Network],
        spare: usize,
    ) -> impl Future<Output = ()> + Send;

    /// Ends what [`ContainerRuntime::keep_networks`] does, and removes what it holds ready.
    fn drop_networks(&self) -> impl Future<Output = ()> + Send;

    /// The content of this small file of the node's as the engine sees it; `None` if the engine finds none.
    fn read_back(
        &self,
        node: Address,
        file: &Path,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;
}

/// The engine's id of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image that is present on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's own id, `sha256:…`. Containers are created from it, so a tag that moves between the pull
    /// and the start changes nothing.
    pub id: String,
    /// The digest for the receipt: the manifest's `sha256:…` if the image came from a registry, else
    /// `image-id:sha256:…`.
    pub digest: String,
    /// Its size on disk in bytes.
    pub size_bytes: u64,
    /// Whether this call had to pull it.
    pub pulled: bool,
    /// Whether the registry could not confirm that the name still means this image, which an earlier job
    /// pulled.
    pub unconfirmed: bool,
}

/// Everything that the engine is told about a job's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// `lamda-<first 8 hex of the address>-<job_id>-<attempt>`.
    pub name: String,
    /// The node that it belongs to (label `lamda.node`, EIP-55).
    pub node: Address,
    /// The job (label `lamda.job_id`).
    pub job_id: JobId,
    /// The attempt, from 1 (label `lamda.attempt`).
    pub attempt: u32,
    /// The image's id, from [`Image::id`].
    pub image_id: String,
    /// Replaces the image's entrypoint if `Some`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command if `Some`.
    pub command: Option<Vec<String>>,
    /// Environment variables, the node's own included; `policy` decides those that NVIDIA's toolkit reads.
    pub env: Vec<(String, String)>,
    /// Host folders and files that the job sees.
    pub mounts: Vec<Mount>,
    /// Host folder for the volumes that the image declares; created if it declares any.
    pub volumes: PathBuf,
    /// The GPUs that it may use; empty for a CPU job.
    pub gpus: Vec<GpuUuid>,
    /// Its memory, CPU, process and `/dev/shm` limits.
    pub limits: Limits,
    /// What it may reach over the network.
    pub network: Network,
    /// How far it is closed in.
    pub sandbox: Sandbox,
}

/// How far a container is closed in (docs/adr/0010-sandbox.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// The image's user, with the capabilities that ordinary images need inside their container.
    #[default]
    Standard,
    /// No capability, this user and group, a read-only root file system with a `/tmp` in memory.
    Strict(User),
}

/// A host folder or file shown inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the job can only read it.
    pub read_only: bool,
}

/// Resource limits of a container. Wall time is limited by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; swap is off.
    pub memory_bytes: u64,
    /// CPU limit in billionths of a core.
    pub nano_cpus: u64,
    /// Number of processes and threads.
    pub pids: u32,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// All that it writes to the disk, in bytes. The engine holds its layer near that where it can; the agent
    /// watches the sum.
    pub disk_bytes: u64,
}

/// What a container may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Only its own loopback interface.
    None,
    /// Public addresses, without those of the host (docs/adr/0033-warm-networks.md).
    Internet,
    /// The engine's bridge: everything that the host can reach.
    Bridge,
}

/// The result of [`ContainerRuntime::start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The engine's id of the container.
    pub id: ContainerId,
    /// Whether this call started it; `false` if it was running or had exited already.
    pub started_now: bool,
    /// Start time by the engine's clock, if an earlier call started it.
    pub started_at: Option<Timestamp>,
}

/// How a container ended, as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code of the first process (128 + signal number if a signal ended it).
    pub code: i32,
    /// Whether the kernel killed one of its processes for lack of memory.
    pub oom: bool,
    /// Start time by the engine's clock.
    pub started_at: Timestamp,
    /// End time by the engine's clock.
    pub finished_at: Timestamp,
    /// Who ended it, as far as the engine knows.
    pub ended_by: EndedBy,
}

/// Who ended a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// The container: the engine saw it end and had sent it no signal to end.
    Itself,
    /// The engine, which sent it a signal to end: for this node, for another user of the engine, or because
    /// the engine itself shut down or came back after a crash.
    Engine,
    /// Not known: it ended while the engine was down, or so long ago that the engine has forgotten.
    Unknown,
}

/// A container of this node that [`ContainerRuntime::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The engine's id of it.
    pub id: ContainerId,
    /// From its label; `None` if there is no valid one, as on the node's own probes.
    pub job_id: Option<JobId>,
    /// From its label; 0 if there is no valid one.
    pub attempt: u32,
    /// Its state, as far as recovery distinguishes states.
    pub state: FoundState,
    /// Creation time by the engine's clock, in whole seconds.
    pub created_at: Timestamp,
}

/// The engine's container states, as far as recovery distinguishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundState {
    /// Created, never started: may be started.
    Created,
    /// Running or paused: is adopted.
    Running,
    /// Exited or dead: its exit is collected; never started again.
    Exited,
}
