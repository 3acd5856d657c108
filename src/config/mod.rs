//! The settings: environment variables over `.env`, parsed once into each part's own types.
//!
//! One file per part; each reads its variables from an [`Env`] and fills the part's own `Config`.
//! [`Environment`] is the real source; tests use a map. [`Node`] is everything that `run` needs, [`Client`]
//! what the commands around a job need, and [`Parts`] whatever could be read, for `doctor`.
//!
//! Must hold: no file is opened except `.env` and the small files that hold secrets; all problems are
//! collected and reported together; `.env.example` shows every variable (a test compares).

mod agent_env;
mod artifact;
mod auth;
mod bus;
mod chain;
mod channels;
mod dotenv;
mod duration;
mod env;
mod events;
mod gpu;
mod hub;
mod hub_file;
mod hub_links;
mod hub_url;
mod images;
mod jobs;
mod key;
mod logging;
mod metrics;
mod proxy;
mod secrecy;
mod sidecar;
mod sidecar_file;
mod sidecar_original;
mod sidecar_yaml;
mod terminal;
mod usage;

pub use agent_env::{AgentEnv, agent_env};
pub use auth::is_loopback;
pub use chain::{RECEIPT_DEADLINE, Signing, parse_rpc_urls};
pub use channels::channels;
pub use dotenv::Environment;
pub use duration::{InvalidDuration, parse as parse_duration};
pub use env::{Env, Lookup, Problem, Problems, read_secret};
pub use gpu::Gpu;
pub use hub::{hub, hub_db, hub_past};
pub use hub_file::{HubFile, hub_file};
pub use key::{KeyError, KeySource, Passphrase};
pub(crate) use logging::SILENT;
pub use logging::{Format, Logging};
pub use sidecar::{check_sidecar_file, sidecar, sidecar_past, sidecar_profiles};
pub use sidecar_file::SidecarFile;
pub use sidecar_yaml::{SeedConfig, SeedFile, seed_file};
pub use terminal::Terminal;
pub use usage::Monitoring;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::agent;
use crate::agent::stock::DiskLimits;
use crate::bus::Config as BusConfig;
use crate::container::ImagePolicy;
use crate::container::docker::{Config as DockerConfig, Docker, WhenToPull};
use crate::ids::Address;
use crate::node::public::is_public;
use crate::secret::Secret;
use env::Variable;

const AGENT_ADDRESS: Variable =
    Variable::new("AGENT_ADDRESS", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
const NODE_OWNER: Variable =
    Variable::new("NODE_OWNER", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
const DOCKER_HOST: Variable = Variable::new("DOCKER_HOST", "unix:///var/run/docker.sock");
const JOB_DNS: Variable = Variable::new("JOB_DNS", "1.1.1.1,9.9.9.9");

/// Most resolvers that programs read of `/etc/resolv.conf`.
const RESOLVERS_MAX: usize = 3;

/// File in the data folder that records what was pulled for jobs.
const PULLED: &str = "images.json";

/// File in the data folder that records which images the node may remove.
const CACHED: &str = "pulled.json";

/// All settings of a node, complete and consistent. The key source is returned separately, so that its
/// passphrase can be dropped as soon as the key is loaded.
#[derive(Debug)]
pub struct Node {
    /// The agent's settings.
    pub settings: agent::Settings,
    /// How to connect to NATS.
    pub bus: BusConfig,
    /// The container engine.
    pub docker: DockerConfig,
    /// Gateways and pinning service.
    pub artifact: crate::artifact::Config,
    /// The reputation contract.
    pub chain: crate::chain::Config,
    /// How GPUs are detected.
    pub gpu: Gpu,
    /// How jobs are watched.
    pub monitoring: Monitoring,
    /// `METRICS_LISTEN`: where Prometheus is answered, if it is set.
    pub metrics: Option<SocketAddr>,
    /// `HUB_URL`: the hub that the node tells how it is, if it is set.
    pub hub: Option<crate::http::Url>,
    /// `NODE_OWNER`: the account that receives the earnings and that may, besides the node's own key, drain
    /// the node. Shown, never spent from.
    pub owner: Option<Address>,
}

/// The settings part by part; `None` for a part that has a problem.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are those of Node and its key")]
pub struct Parts {
    pub settings: Option<agent::Settings>,
    pub key: Option<KeySource>,
    pub bus: Option<BusConfig>,
    pub docker: Option<DockerConfig>,
    pub artifact: Option<crate::artifact::Config>,
    pub chain: Option<crate::chain::Config>,
    pub gpu: Option<Gpu>,
    pub monitoring: Option<Monitoring>,
    pub metrics: Option<Option<SocketAddr>>,
    pub hub: Option<Option<crate::http::Url>>,
    pub owner: Option<Address>,
}

impl Parts {
    /// Reads everything that a node needs; problems stay in `env`.
    pub fn read(env: &mut Env<'_>) -> Self {
        let bus = bus::read(env);
        let gpu = gpu::read(env);
        let auth = auth::read(env, bus.as_ref());
        let images = images::read(env);
        let settings = jobs::read(env, auth, images.clone(), gpu.as_ref());
        let key = key::required(env);
        let chain = chain::required(env, gpu.as_ref());
        let artifact = artifact::required(env);
        let rpc_urls = chain.iter().flat_map(|chain| &chain.rpc_urls).map(String::as_str);
        use_proxy(env, artifact.as_ref(), rpc_urls);
        Self {
            key,
            docker: docker(env, images, settings.as_ref().map(|it| it.data_dir.as_path())),
            chain,
            artifact,
            settings,
            owner: env.parsed(NODE_OWNER),
            monitoring: usage::read(env),
            metrics: metrics::read(env),
            hub: hub_url::read(env),
            bus,
            gpu,
        }
    }
}

impl Node {
    /// Reads everything that a node needs; `Err` has all problems.
    pub fn read(env: &mut Env<'_>) -> Result<(Self, KeySource), Problems> {
        let parts = Parts::read(env);
        let node = || {
            let node = Self {
                settings: parts.settings?,
                bus: parts.bus?,
                docker: parts.docker?,
                artifact: parts.artifact?,
                chain: parts.chain?,
                gpu: parts.gpu?,
                monitoring: parts.monitoring?,
                metrics: parts.metrics?,
                hub: parts.hub?,
                owner: parts.owner,
            };
            Some((node, parts.key?))
        };
        env.finish(node())
    }
}

/// What the commands around a job need: `submit`, `watch`, `logs`, `cancel`.
#[derive(Debug)]
pub struct Client {
    /// How to connect to NATS.
    pub bus: BusConfig,
    /// Gateways and pinning service; without a key only the gateways can be used.
    pub artifact: crate::artifact::Config,
    /// Whether a key for the pinning service is set.
    pub can_publish: bool,
    /// The key that requests are signed with, if one is set.
    pub key: Option<KeySource>,
    /// The chain that a signature is bound to, as far as it is set.
    pub signing: Signing,
    /// `AGENT_ADDRESS`: the node to address if the command names none.
    pub agent: Option<Address>,
}

impl Client {
    /// Reads what the commands around a job need.
    pub fn read(env: &mut Env<'_>) -> Result<Self, Problems> {
        let bus = bus::read(env);
        let artifact = artifact::optional(env);
        let key = key::optional(env);
        let signing = chain::signing(env);
        let agent = agent_address(env);
        use_proxy(env, artifact.as_ref().map(|(config, _)| config), std::iter::empty());
        let client = || {
            let (artifact, can_publish) = artifact?;
            Some(Self { bus: bus?, artifact, can_publish, key, signing: signing?, agent })
        };
        env.finish(client())
    }
}

/// What the `contract` command needs, as far as it is set.
#[derive(Debug)]
pub struct Contract {
    /// The chain settings, as far as they are set.
    pub signing: Signing,
    /// The key, if one is set.
    pub key: Option<KeySource>,
    /// `AGENT_ADDRESS`: the node to ask about.
    pub agent: Option<Address>,
}

impl Contract {
    /// Reads what the `contract` command needs.
    pub fn read(env: &mut Env<'_>) -> Result<Self, Problems> {
        let (signing, key) = (chain::signing(env), key::optional(env));
        let agent = agent_address(env);
        let urls = signing.iter().flat_map(|signing| &signing.rpc_urls).map(Secret::expose);
        use_proxy(env, None, urls);
        let contract = signing.map(|signing| Self { signing, key, agent });
        env.finish(contract)
    }
}

/// Reads how to log; `None` if that is set wrong.
pub fn logging(env: &mut Env<'_>) -> Option<Logging> {
    logging::read(env)
}

/// Reads only where the node's key comes from.
pub fn key(env: &mut Env<'_>) -> Result<KeySource, Problems> {
    let key = key::required(env);
    env.finish(key)
}

/// Reads only how GPUs are detected.
pub fn gpu(env: &mut Env<'_>) -> Result<Gpu, Problems> {
    let gpu = gpu::read(env);
    env.finish(gpu)
}

/// Reads only the data folder, which holds the node's journal.
pub fn data_dir(env: &mut Env<'_>) -> Result<std::path::PathBuf, Problems> {
    let dir = jobs::data_dir(env);
    env.finish(dir)
}

/// What the `disk` command needs.
#[derive(Debug)]
pub struct Disk {
    /// `DATA_DIR`.
    pub data_dir: std::path::PathBuf,
    /// The container engine.
    pub docker: DockerConfig,
    /// The owner's limits.
    pub limits: DiskLimits,
}

impl Disk {
    /// Reads what the `disk` command needs.
    pub fn read(env: &mut Env<'_>) -> Result<Self, Problems> {
        let (data_dir, limits) = (jobs::data_dir(env), jobs::disk_limits(env));
        let docker = docker(env, None, data_dir.as_deref());
        let disk = || Some(Self { data_dir: data_dir?, docker: docker?, limits: limits? });
        env.finish(disk())
    }
}

/// Makes every HTTP client of the program use the environment's proxy.
fn use_proxy<'u>(
    env: &mut Env<'_>,
    artifact: Option<&'u crate::artifact::Config>,
    rpc_urls: impl Iterator<Item = &'u str>,
) {
    let gateways = artifact.iter().flat_map(|config| &config.gateways).map(String::as_str);
    let pinata = artifact.map(|config| config.pinata_url.as_str());
    crate::proxy::set(proxy::read(env, gateways.chain(pinata).chain(rpc_urls)));
}

fn agent_address(env: &mut Env<'_>) -> Option<Address> {
    env.parsed(AGENT_ADDRESS)
}

fn docker(
    env: &mut Env<'_>,
    images: Option<ImagePolicy>,
    data_dir: Option<&Path>,
) -> Option<DockerConfig> {
    let set = env.is_set(DOCKER_HOST);
    let host = match env.text(DOCKER_HOST) {
        None if set => return None,
        host => host.unwrap_or_else(|| DOCKER_HOST.example.to_owned()),
    };
    let runtime = images::runtime(env);
    let (gpu_probe_image, gpu_access) = (gpu::probe_image(env), gpu::access(env));
    let (registry_auth_file, pull) = (images::accounts(env), images::pull(env));
    let (cosign_key, resolvers) = (images::cosign_key(env), resolvers(env));
    let group_parent = usage::group_parent(env);
    let config = DockerConfig {
        registry_auth_file,
        hidden: &dotenv::SECRETS,
        runtime: runtime.clone().unwrap_or_default(),
        gpu_probe_image: gpu_probe_image.clone().flatten(),
        gpu_access: gpu_access.unwrap_or_default(),
        images: images.unwrap_or_default(),
        pull: pull.unwrap_or(WhenToPull::Newer),
        cosign_key: cosign_key.clone().flatten(),
        group_parent: group_parent.clone().flatten(),
        pulled: data_dir.map(|dir| dir.join(PULLED)),
        cached: data_dir.map(|dir| dir.join(CACHED)),
        ..DockerConfig::new(host)
    };
    // Only checks the address; nothing is opened.
    let valid = Docker::connect(&config).map(|_| config);
    let valid = env.keep(DOCKER_HOST, valid.map_err(|err| err.to_string()));
    // Without these no engine is used, rather than one with other settings than the owner's.
    let is_set_right =
        pull.is_some() && cosign_key.is_some() && gpu_access.is_some() && group_parent.is_some();
    let config = runtime.and(gpu_probe_image).and(valid).filter(|_| is_set_right)?;
    let resolvers = resolvers?;
    Some(if resolvers.is_empty() { config } else { DockerConfig { resolvers, ..config } })
}

/// The resolvers of jobs with the network `internet`; empty if not set.
fn resolvers(env: &mut Env<'_>) -> Option<Vec<IpAddr>> {
    let listed = env.list(JOB_DNS);
    let read = |text: &String| {
        let address = text.parse::<IpAddr>().ok().filter(|address| is_public(*address));
        address.ok_or_else(|| format!("{} is no public address", env::shown(text)))
    };
    let mut read: Result<Vec<IpAddr>, String> = listed.iter().map(read).collect();
    if listed.len() > RESOLVERS_MAX {
        read = Err(format!("it lists more than {RESOLVERS_MAX}"));
    }
    env.keep(JOB_DNS, read)
}

#[cfg(test)]
mod tests;
