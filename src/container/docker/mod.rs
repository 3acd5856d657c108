//! Containers in a Docker Engine, over its HTTP API (1.41 and newer).
//!
//! - run: create and start, or find what exists already (`run.rs`)
//! - follow: the exit and, in parallel, the output (`follow.rs`)
//! - image: pull a missing image, once for all who wait (`pull.rs`); a record of pulled images (`pulled.rs`);
//!   what this node may remove (`cache.rs`); what a registry says itself (`registry.rs`), whether an image is
//!   signed (`cosign.rs`), how large it is (`size.rs`); registry accounts (`accounts.rs`); whether this host
//!   can run an image (`platform.rs`)
//! - copy out: unpack the engine's archive (`copy.rs`)
//! - doctor: the engine's description of itself (`doctor.rs`); what only a container can show (`probe.rs`)
//! - holders: network namespaces made ahead, and those of `internet` (`holders.rs`)
//! - cards: how containers get GPUs (`cards.rs`)
//! - groups: the control groups in which jobs are counted (`groups.rs`)
//! - tool: the image of the node's own containers (`tool.rs`)
//! - restart: containers of others: which there are, and starting one again (`restart.rs`)
//! - fault: translate the engine's errors into [`Error`] (`fault.rs`)
//!
//! Must hold: connecting is lazy, so a node starts while its engine is down; every call except `follow` has
//! its own deadline here, since the client's covers only an answer's head.

mod accounts;
mod cache;
mod cards;
mod config;
mod copy;
mod cosign;
mod doctor;
mod fault;
mod follow;
mod groups;
mod helper;
mod holders;
mod images;
mod inspect;
mod internet;
mod layers;
mod output;
mod platform;
mod probe;
mod pull;
mod pulled;
mod record;
mod registry;
mod restart;
mod run;
mod size;
mod tool;
mod trial;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker as Client};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard, Semaphore};
use tokio::time::timeout;

pub use cards::{CardAccess, DriverFolders};
pub use config::{Config, GROUP_PARENT, WhenToPull};
pub use cosign::{InvalidKey, SigningKey};
pub use doctor::Engine;
pub use internet::Internet;
pub use restart::{Listed, listed, restart};
pub use tool::PROGRAM;

use super::{
    CachedImage, ContainerId, ContainerRuntime, ContainerSpec, Error, Exit, Found, Gone, Image,
    Launched, LogSink, Network, policy,
};
use crate::clock::Timestamp;
use crate::ids::Address;
use crate::job::status::PullProgress;
use crate::node::GpuUuid;
use crate::secret::Secret;
use crate::usage::Unknown;
use crate::usage::watch::Place;
use fault::{EngineError, Host};

/// The client's own deadline for an answer's head. Ours are shorter, except for `stop` and `follow`, whose
/// answers may rightly take this long.
const CLIENT_TIMEOUT_S: u64 = 24 * 60 * 60;

/// An account at a registry.
#[derive(Debug, Clone)]
pub struct RegistryAuth {
    /// The registry as references name it, such as `docker.io` or `127.0.0.1:5000`.
    pub server: String,
    /// The account's user name at the registry.
    pub username: String,
    /// The account's password or token.
    pub password: Secret,
}

/// One Docker Engine, through its HTTP client.
pub struct Docker {
    config: Config,
    host: Host,
    client: OnceCell<Client>,
    pulls: pull::Pulls,
    pulled: pulled::Record,
    cache: cache::Cache,
    facts: run::Facts,
    heard: follow::Heard,
    /// Each lets the rest of one container's output be read.
    drains: Semaphore,
    holders: holders::Holders,
    names: NameLocks,
    card_means: cards::Known,
    /// Whether it holds layers to a size.
    layers_held: OnceCell<bool>,
    /// Whether it makes control groups by itself, and not systemd for it.
    makes_groups: groups::Known,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Docker {
    /// Checks the address only; the first call connects to the engine.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            host: config.host.parse()?,
            config: config.clone(),
            client: OnceCell::new(),
            pulls: pull::Pulls::default(),
            pulled: pulled::Record::new(config.pulled.clone()),
            cache: cache::Cache::new(config.cached.clone()),
            facts: run::Facts::default(),
            heard: follow::Heard::default(),
            drains: Semaphore::new(output::DRAINS_MAX),
            holders: holders::Holders::default(),
            names: NameLocks::default(),
            card_means: cards::Known::default(),
            layers_held: OnceCell::new(),
            makes_groups: groups::Known::default(),
        })
    }

    /// The client; created by the first call that reaches the engine.
    async fn client(&self) -> Result<&Client, Error> {
        self.client.get_or_try_init(|| self.dial()).await
    }

    async fn dial(&self) -> Result<Client, Error> {
        let client = match &self.host {
            Host::Unix(path) => {
                Client::connect_with_unix(path, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
            }
            Host::Tcp(address) => {
                Client::connect_with_http(address, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
            }
        };
        let client = client.map_err(|err| self.fault(err))?;
        // An older engine refuses requests whose path names a newer API version.
        let client = self.call(client.negotiate_version()).await?;
        Ok(client.with_request_modifier(pull::url_safe_auth))
    }

    /// Runs `call` with the usual deadline and translates its error.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, Error> {
        within(self.config.call_timeout, call).await.map_err(|err| self.fault(err))
    }

    fn fault(&self, err: EngineError) -> Error {
        fault::of_call(&self.config.host, err)
    }
}

/// Runs `call` with a deadline of its own; passing it counts as a request timeout.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    timeout(limit, call).await.unwrap_or(Err(EngineError::RequestTimeoutError))
}

impl ContainerRuntime for Docker {
    async fn image(&self, reference: &str) -> Result<Image, Error> {
        let image = pull::image(self, reference).await?;
        run::runs_here(self, reference, &image.id).await?;
        self.cache.used(&image.id).await;
        Ok(image)
    }

    fn pull_progress(&self, reference: &str) -> Option<PullProgress> {
        self.pulls.progress(&reference.parse().ok()?)
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, Error> {
        Box::pin(run::create(self, spec)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<Launched, Error> {
        run::start(self, id).await
    }

    async fn follow(&self, id: &ContainerId, sink: LogSink, gone: Gone<'_>) -> Result<Exit, Error> {
        follow::follow(self, id, sink, gone).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        run::stop(self, id, grace).await
    }

    async fn copy_out(
        &self,
        id: &ContainerId,
        path: &str,
        dest: &Path,
        bytes_max: u64,
    ) -> Result<(), Error> {
        copy::copy_out(self, id, path, dest, bytes_max).await
    }

    async fn first_process(&self, id: &ContainerId) -> Result<Option<u32>, Error> {
        // The processes of an engine behind an address may be another host's.
        if matches!(self.host, Host::Tcp(_)) {
            return Ok(None);
        }
        run::first_process(self, id).await
    }

    async fn group(&self, id: &ContainerId) -> Result<Place, Unknown> {
        groups::of(self, id).await
    }

    fn group_path(&self, name: &str) -> Option<String> {
        groups::path(self, name)
    }

    async fn remove_groups(&self, node: Address, names: &[String]) -> Result<(), Error> {
        groups::remove(self, node, names).await
    }

    async fn written(&self, id: &ContainerId) -> Result<Option<u64>, Error> {
        run::written(self, id).await
    }

    async fn download_size(&self, reference: &str) -> Result<Option<u64>, Error> {
        size::of(self, reference).await
    }

    async fn layer_folder(&self, id: &ContainerId) -> Result<Option<PathBuf>, Error> {
        run::layer_folder(self, id).await
    }

    async fn holds_layers(&self, node: Address) -> bool {
        // An engine that does not answer is asked again.
        let tried = self.layers_held.get_or_try_init(|| self.tries_to_hold_a_layer(node, "layer"));
        tried.await.is_ok_and(|held| *held)
    }

    async fn cached(&self) -> Result<Vec<CachedImage>, Error> {
        cache::list(self).await
    }

    async fn evict(&self, id: &str, unless_after: Timestamp) -> Result<bool, Error> {
        cache::evict(self, id, unless_after).await
    }

    async fn root_folder(&self) -> Result<Option<PathBuf>, Error> {
        // The paths of an engine behind an address may be another host's.
        if matches!(self.host, Host::Tcp(_)) {
            return Ok(None);
        }
        let root = self.call(self.client().await?.info()).await?.docker_root_dir;
        Ok(root.map(PathBuf::from).filter(|root| root.is_absolute()))
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), Error> {
        let removed = self.discard(id).await;
        self.holders.freed();
        removed
    }

    async fn withdraw(&self, id: &ContainerId) -> Result<bool, Error> {
        run::withdraw(self, id).await
    }

    async fn list(&self, node: Address) -> Result<Vec<Found>, Error> {
        let client = self.client().await?;
        let filters = policy::label_filter(node);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.call(client.list_containers(Some(options))).await?;
        Ok(listed.into_iter().filter_map(run::found).collect())
    }

    async fn gpu_ready(&self, node: Address, gpu: &GpuUuid) -> Result<(), Error> {
        self.hands_out(node, gpu.as_str(), std::slice::from_ref(gpu)).await?;
        self.computes(node, gpu).await
    }

    async fn open_folders(
        &self,
        node: Address,
        top: &Path,
        folders: &[PathBuf],
    ) -> Result<(), Error> {
        Self::open_folders(self, node, "folders", top, folders).await
    }

    async fn limits(&self) -> Result<(), Error> {
        self.holds_jobs().await
    }

    async fn keep_networks(&self, node: Address, networks: &[Network], spare: usize) {
        holders::keep(self, node, networks, spare).await;
    }

    async fn drop_networks(&self) {
        holders::drop_all(self).await;
    }

    async fn read_back(&self, node: Address, file: &Path) -> Result<Option<Vec<u8>>, Error> {
        Self::read_back(self, node, "files", file).await
    }
}

/// One lock per container name, kept while somebody holds or awaits it.
#[derive(Default)]
struct NameLocks(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl NameLocks {
    async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let held = locks.get(name).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let lock = Arc::new(AsyncMutex::new(()));
                locks.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
