//! Containers that hold strangers' jobs.
//!
//! [`ContainerRuntime`] is the seam: [`docker`] drives a Docker Engine, [`fake`] stands in where
//! there is none (simulated demo, tests); one suite of contract tests holds both. `policy` turns a
//! [`ContainerSpec`] into what the engine is told, `image` reads references, `allowed` says which
//! images strangers may name; all three are pure.
//!
//! What must hold: a container of one name is created at most once and started at most once; the
//! engine's own types never leave this folder.

mod allowed;
pub mod docker;
pub mod fake;
mod image;
mod policy;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{Address, JobId};
use crate::node::GpuUuid;
use crate::report::BoxError;

pub use allowed::{ImagePolicy, NotAllowed, PUBLIC_REGISTRIES};
pub use image::InvalidReference;

/// The part of a container engine that a node needs. Every call has its own deadline, except
/// [`ContainerRuntime::follow`], which lasts as long as the container does. Every call is repeatable;
/// `start` only while the container exists. Dropping a future of this trait leaves nothing half done.
pub trait ContainerRuntime: fmt::Debug + Send + Sync + 'static {
    /// Makes the image present and says what it is. What was pulled for a job before is not pulled
    /// again; what lies here otherwise is used only where the owner's [`ImagePolicy`] or the
    /// image's registry lets anybody have it. Errors inside the pull's stream are noticed; no progress for a while is an error.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Image, Error>> + Send;

    /// Creates the container, or finds the one of ours that has its name already. One that was made
    /// for other cards and was never started is made anew.
    fn create(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<ContainerId, Error>> + Send;

    /// Starts a container that was created and never started. One that runs or has exited is left
    /// as it is and reported; one that the engine would not start stays as it was.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<Launched, Error>> + Send;

    /// Hands every chunk of the container's output to `sink`, in order per stream, and returns
    /// once its processes are gone and its output has been read to the end. Works on a container
    /// that exited before the call; one that was never started is an error. The exit is told even
    /// where the output can't be read, or where `sink` takes nothing more; each call begins with
    /// the first byte that the engine still has. The engine keeps a bounded amount: of a job that
    /// writes hundreds of megabytes, lines in the middle can be missing or come twice.
    fn follow(
        &self,
        id: &ContainerId,
        sink: LogSink,
    ) -> impl Future<Output = Result<Exit, Error>> + Send;

    /// Asks the container to end, and kills it after `grace`. `Ok` where it is gone or had ended.
    fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Copies `path` out of an exited container into the empty folder `dest` (the entry keeps its
    /// base name), at most `bytes_max`. Links arrive as links; what is neither file, folder nor link
    /// arrives as a named pipe. An entry that would land outside `dest` is an error.
    fn copy_out(
        &self,
        id: &ContainerId,
        path: &str,
        dest: &Path,
        bytes_max: u64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Bytes that the container's own layer takes up. The engine may take long to measure it.
    fn written(&self, id: &ContainerId) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Removes the container with its anonymous volumes, running or not. `Ok` where it is gone.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes a container that was never started. Says whether it is gone: one that a call started,
    /// whose caller may be dead by now, stays.
    fn withdraw(&self, id: &ContainerId) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Every container of this node, running or not, found by its label.
    fn list(&self, node: Address) -> impl Future<Output = Result<Vec<Found>, Error>> + Send;

    /// Whether the engine hands this card to a container of the node; [`Error::Gpu`] and
    /// [`Error::Driver`] say why not. What it leaves when it is cut short goes with the next one.
    fn gpu_ready(
        &self,
        node: Address,
        gpu: &GpuUuid,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Opens folders below `top` to every user of this host: a container's root may have closed them to
    /// the node. `top` is a folder of the node's that nobody else can enter.
    fn open_folders(
        &self,
        node: Address,
        top: &Path,
        folders: &[PathBuf],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Whether the engine holds containers to their limits; [`Error::Unlimited`] names what it can't.
    fn limits(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// What the engine finds at the path of this small file of the node's; `None` where it finds none.
    fn read_back(
        &self,
        node: Address,
        file: &Path,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;
}

/// Where a container's output goes. Bounded: the reader waits while it is full.
pub type LogSink = tokio::sync::mpsc::Sender<LogChunk>;

/// A piece of a container's output, as it came: not cut at line ends, at most 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Which of the two streams.
    pub stream: LogStream,
    /// The bytes; the job may have written anything.
    pub bytes: bytes::Bytes,
}

/// A container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
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

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's own id, `sha256:…`: containers are created from it, so that a tag that moves
    /// between the pull and the start changes nothing.
    pub id: String,
    /// What a receipt says: the manifest's digest `sha256:…` where the image came from a registry,
    /// else `image-id:sha256:…`.
    pub digest: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Whether this call had to pull it.
    pub pulled: bool,
    /// Its registry could not be asked whether the name still means it: it was pulled for a job before.
    pub unconfirmed: bool,
}

/// Everything that the engine is told about a container.
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
    /// Replaces the image's entrypoint where it is `Some`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command where it is `Some`.
    pub command: Option<Vec<String>>,
    /// Variables, the node's own included; NVIDIA's are decided by the policy.
    pub env: Vec<(String, String)>,
    /// Host folders that the job sees.
    pub mounts: Vec<Mount>,
    /// Where on the host the folders lie that the image declares as volumes; made where it does.
    pub volumes: PathBuf,
    /// The cards that it may use; none for a CPU job.
    pub gpus: Vec<GpuUuid>,
    /// What it may take.
    pub limits: Limits,
    /// What it may reach.
    pub network: Network,
}

/// A host folder or file shown inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it lies on the host, absolute.
    pub host: PathBuf,
    /// Where the job sees it, absolute.
    pub target: String,
    /// Whether the job may only read it.
    pub read_only: bool,
}

/// What a container may take of the host. Wall time is kept by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; swap is off.
    pub memory_bytes: u64,
    /// Processor time in billionths of a core.
    pub nano_cpus: u64,
    /// Processes and threads.
    pub pids: u32,
    /// `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

/// What a container may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing but its own loopback.
    None,
    /// The engine's bridge: whatever the host can reach.
    Bridge,
}

/// What [`ContainerRuntime::start`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The container.
    pub id: ContainerId,
    /// Whether this call started it (`false`: it was running or had exited already).
    pub started_now: bool,
    /// When it was started, by the engine's clock, where another call did.
    pub started_at: Option<Timestamp>,
}

/// How a container ended, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The first process's exit code (128 + signal where a signal ended it).
    pub code: i32,
    /// Whether the kernel killed a process of it for memory.
    pub oom: bool,
    /// When it was started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it ended, by the engine's clock.
    pub finished_at: Timestamp,
    /// What the engine knows of why it ended.
    pub ended_by: EndedBy,
}

/// Whose doing a container's end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// Its own: the engine saw it end and had sent it no signal.
    Itself,
    /// The engine's, which sent it a signal to end: for us, for another of its users, or because
    /// the engine itself was ended or came back after a crash.
    Engine,
    /// Nobody's that is known: it ended while the engine was away, or so long ago that the engine
    /// has forgotten.
    Unknown,
}

/// A container of ours that [`ContainerRuntime::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: ContainerId,
    /// From its label; `None` where the label is no job id.
    pub job_id: Option<JobId>,
    /// From its label; 0 where the label is no number.
    pub attempt: u32,
    /// What it is doing.
    pub state: FoundState,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The engine's states, as far as recovery decides by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundState {
    /// Created, never started: it may be started.
    Created,
    /// Running or paused: it is adopted.
    Running,
    /// Exited or dead: it is collected, never started again.
    Exited,
}

/// Why the engine did not do what it was asked. The cause is in `source()`, not in the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is no engine's address. Final.
    #[error("`{host}` is no address of a container engine: unix:///path or tcp://host:port")]
    Host {
        /// The setting as it stands.
        host: String,
    },
    /// The engine does not answer, or answers that it can't now: try again later.
    #[error("the container engine at {host} does not answer")]
    Unreachable {
        /// The engine's address.
        host: String,
        /// What went wrong.
        #[source]
        source: BoxError,
    },
    /// The owner lets no stranger name this image: the engine was not asked. Final.
    #[error("image `{reference}` is not allowed here: {reason}")]
    ImageNotAllowed {
        /// As the job names it.
        reference: String,
        /// Why, in our words.
        reason: NotAllowed,
    },
    /// The image does not exist, or this node may not pull it. Final.
    #[error("image `{reference}` can't be had: {reason}")]
    ImageRefused {
        /// As the job names it.
        reference: String,
        /// Why, in our words: the engine's would tell a stranger of the owner's network.
        reason: String,
    },
    /// The pull broke or stalled: may work later.
    #[error("image `{reference}` could not be pulled: {reason}")]
    Pull {
        /// As the job names it.
        reference: String,
        /// Why, in our words: the engine's would tell a stranger of the owner's network.
        reason: String,
    },
    /// The GPUs could not be handed to the container: the node's fault, not the job's.
    #[error("the engine could not give the container its GPUs: {reason}")]
    Gpu {
        /// The toolkit's words, one line, the last 300 characters.
        reason: String,
    },
    /// No container gets any GPU: the driver or its toolkit is not there. The node's fault.
    #[error("the engine can't give GPUs to any container: {reason}")]
    Driver {
        /// The toolkit's words, one line, the last 300 characters.
        reason: String,
    },
    /// The image wants another driver or card than the node's. Final here.
    #[error("the image wants {needed} of the GPU's driver")]
    Requirement {
        /// What it wants, such as `cuda>=12.8`.
        needed: String,
    },
    /// The container can't be started as the job wants it (no such command, say). Final.
    #[error("the container could not be started: {reason}")]
    Start {
        /// What is wrong with what the job or its image names: nothing of the engine's own.
        reason: String,
    },
    /// The engine takes limits and holds nobody to them: its host's kernel lacks the control groups.
    #[error(
        "the engine can't hold containers to a limit of {missing}: the kernel or its control groups \
         don't support it (see `docker info`)"
    )]
    Unlimited {
        /// Of what, such as `memory`.
        missing: String,
    },
    /// There is no such container.
    #[error("there is no container {0}")]
    Gone(ContainerId),
    /// There is no such path in the container.
    #[error("there is no `{path}` in the container")]
    NoSuchPath {
        /// The path that was asked for.
        path: String,
    },
    /// What was to be copied out is larger than was allowed.
    #[error("`{path}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// The path that was asked for.
        path: String,
        /// What was allowed.
        bytes_max: u64,
    },
    /// What was to be copied out is not files and folders.
    #[error("`{path}` can't be copied out of the container: {reason}")]
    CopyOut {
        /// The path that was asked for.
        path: String,
        /// Why, in words.
        reason: String,
    },
    /// A file of ours could not be written or read.
    #[error("a file could not be handled for the container engine")]
    Io(#[source] std::io::Error),
    /// The engine refused for another reason.
    #[error("the container engine refused: {reason}")]
    Engine {
        /// The engine's words, one line, the last 300 characters: for the owner alone.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing the job.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Pull { .. }
                | Self::Gpu { .. }
                | Self::Driver { .. }
                | Self::Io(_)
        )
    }
}
