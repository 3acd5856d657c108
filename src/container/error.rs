//! Why a container runtime did not do what it was asked.

use super::{BoxError, ContainerId, NotAllowed};

/// Why the engine did not do what it was asked. The cause is in `source()`, not in the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is not an engine's address. Final.
    #[error("`{host}` is no address of a container engine: unix:///path or tcp://host:port")]
    Host {
        /// The value that the setting has.
        host: String,
    },
    /// The engine does not answer, or answers that it is unavailable (503): try again later.
    #[error("the container engine at {host} does not answer")]
    Unreachable {
        /// The engine's address.
        host: String,
        /// The error of the HTTP client.
        #[source]
        source: BoxError,
    },
    /// The owner doesn't allow strangers this image; the engine was not asked. Final.
    #[error("image `{reference}` is not allowed here: {reason}")]
    ImageNotAllowed {
        /// The reference as the job names it.
        reference: String,
        /// The reason, in the node's own words.
        reason: NotAllowed,
    },
    /// The image does not exist, or this node may not pull it. Final.
    #[error("image `{reference}` can't be had: {reason}")]
    ImageRefused {
        /// The reference as the job names it.
        reference: String,
        /// The reason, in the node's own words: the engine's would reveal the owner's network.
        reason: String,
    },
    /// The pull failed or stalled; a later one may succeed.
    #[error("image `{reference}` could not be pulled: {reason}")]
    Pull {
        /// The reference as the job names it.
        reference: String,
        /// The reason, in the node's own words: the engine's would reveal the owner's network.
        reason: String,
    },
    /// The container could not be given its GPUs: the node's fault, not the job's.
    #[error("the engine could not give the container its GPUs: {reason}")]
    Gpu {
        /// The toolkit's message on one line, its last 300 characters.
        reason: String,
    },
    /// No container can be given a GPU: the driver or NVIDIA's toolkit is missing or broken. The node's
    /// fault.
    #[error("the engine can't give GPUs to any container: {reason}")]
    Driver {
        /// The toolkit's message on one line, its last 300 characters.
        reason: String,
    },
    /// The image requires another driver or GPU than the node has. Final on this node.
    #[error("the image wants {needed} of the GPU's driver")]
    Requirement {
        /// The unmet condition, such as `cuda>=12.8`.
        needed: String,
    },
    /// The container can't be started as the job asks (no such command, for example). Final.
    #[error("the container could not be started: {reason}")]
    Start {
        /// What is wrong with the job's or its image's settings; tells nothing about the host.
        reason: String,
    },
    /// The engine accepts limits but can't enforce them: its host's kernel lacks the control groups.
    #[error(
        "the engine can't hold containers to a limit of {missing}: the kernel or its control groups \
         don't support it (see `docker info`)"
    )]
    Unlimited {
        /// The limits that are not enforced, such as `memory`.
        missing: String,
    },
    /// The engine does not filter containers' system calls.
    #[error(
        "the engine runs containers without seccomp, so that a job could make any system call: run it with its default \
         profile (take `seccomp-profile` out of /etc/docker/daemon.json; `docker info` shows what is used)"
    )]
    Unfiltered,
    /// The engine does not have the owner's runtime.
    #[error(
        "the engine has no runtime of the name in JOB_RUNTIME={runtime}; it has {known}: add it under `runtimes` in \
         /etc/docker/daemon.json, or name one that is there"
    )]
    NoRuntime {
        /// The name that the setting has.
        runtime: String,
        /// The names of the engine's runtimes.
        known: String,
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
    /// The content to copy out exceeds the limit.
    #[error("`{path}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// The path that was asked for.
        path: String,
        /// The limit that was exceeded, in bytes.
        bytes_max: u64,
    },
    /// The content to copy out can't be written as files, folders and links.
    #[error("`{path}` can't be copied out of the container: {reason}")]
    CopyOut {
        /// The path that was asked for.
        path: String,
        /// Why it can't be copied.
        reason: String,
    },
    /// One of the node's own files could not be written or read.
    #[error("a file could not be handled for the container engine")]
    Io(#[source] std::io::Error),
    /// The engine refused for another reason.
    #[error("the container engine refused: {reason}")]
    Engine {
        /// The engine's message on one line, its last 300 characters; for the owner only.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without a change to the job.
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
