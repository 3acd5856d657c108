//! The settings of the engine's adapter.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::{Access, ImagePolicy};
use super::{DriverFolders, RegistryAuth, SigningKey};

/// How to reach an engine, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Config {
    /// `unix:///path` or `tcp://host:port` (`DOCKER_HOST`).
    pub host: String,
    /// The images that strangers may name.
    pub images: ImagePolicy,
    /// When a registry is asked for an image that an earlier job pulled (`JOB_PULL`).
    pub pull: WhenToPull,
    /// The key that has to have signed an image before it is pulled (`JOB_COSIGN_KEY`); `None` for none.
    pub cosign_key: Option<SigningKey>,
    /// Name of the OCI runtime that runs containers (`JOB_RUNTIME`); `None`: the engine's default.
    pub runtime: Option<String>,
    /// File that records what was pulled for jobs; `None` keeps the record in memory only.
    pub pulled: Option<PathBuf>,
    /// File that records the images that this node pulled, so that it may remove them; `None` as above.
    pub cached: Option<PathBuf>,
    /// Accounts at registries that require one.
    pub registry_auth: Vec<RegistryAuth>,
    /// File with more accounts, as `docker login` writes it; read at each pull.
    pub registry_auth_file: Option<PathBuf>,
    /// Variables of the environment that no credential helper gets: the node's secrets.
    pub hidden: &'static [&'static str],
    /// How long a registry's answer about a tag stays valid, and how long its silence does.
    pub tag_good_for: Duration,
    /// How containers get GPUs (`GPU_ACCESS`).
    pub gpu_access: Access,
    /// Where the kernel's driver tells of its cards.
    pub driver: DriverFolders,
    /// An image on this host whose own command exits 0 if the GPU that it gets computes rightly.
    pub gpu_probe_image: Option<String>,
    /// The control group below which each job's container gets a group of its own (`JOB_CGROUP_PARENT`); `None`: jobs
    /// are where the engine puts them.
    pub group_parent: Option<String>,
    /// Deadline of calls that only look something up or change a record.
    pub call_timeout: Duration,
    /// Deadline of a container's start, its GPU hook included: a runtime can hang there for ever.
    pub start_timeout: Duration,
    /// A pull without progress for this long has stalled, unless it is unpacking a layer.
    pub pull_stall_timeout: Duration,
    /// Deadline of a whole pull, even if it makes progress.
    pub pull_timeout: Duration,
    /// Deadline of copying one job's output out of a container.
    pub copy_timeout: Duration,
    /// The resolvers that containers with the network `internet` ask: public addresses.
    pub resolvers: Vec<IpAddr>,
}

/// Cloudflare's and Quad9's.
const RESOLVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9))];

/// Where the groups of jobs lie if the owner names no other place.
pub const GROUP_PARENT: &str = "/lamda";

impl Config {
    /// The engine at `host`, with deadlines that suit an engine on the same machine.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            images: ImagePolicy::default(),
            pull: WhenToPull::Newer,
            cosign_key: None,
            runtime: None,
            pulled: None,
            cached: None,
            registry_auth: Vec::new(),
            registry_auth_file: None,
            hidden: &[],
            gpu_access: Access::Auto,
            driver: DriverFolders::default(),
            gpu_probe_image: None,
            group_parent: None,
            tag_good_for: Duration::from_mins(1),
            call_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_mins(2),
            pull_stall_timeout: Duration::from_mins(2),
            pull_timeout: Duration::from_hours(2),
            copy_timeout: Duration::from_hours(1),
            resolvers: RESOLVERS.to_vec(),
        }
    }
}

/// When a registry is asked for an image that an earlier job pulled. A digest always means the same image, and no
/// registry is asked for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenToPull {
    /// Once in a while; the image that is here is used if the registry does not answer.
    Newer,
    /// Never: a tag keeps the meaning that it had for the first job.
    Missing,
    /// For each job; no job runs while the registry does not answer.
    Always,
}
