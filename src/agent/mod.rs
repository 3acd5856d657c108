//! The node at work: takes jobs, runs each to its one terminal status, and keeps the chain informed.
//!
//! ```text
//!           start ── assembles the parts and lists every service
//!             │
//!   link ──► jobs ──► act ──► container, artifact, chain key
//!             ▲        ▲
//!             │        └── health: could the node run a job now?
//!   admin ────┘               └──► account: registration, heartbeats, transactions
//!   key: is it used by this process alone?
//! ```
//!
//! Invariants: every task hangs under one [`Services`](crate::supervise::Services) or one
//! [`Crew`](crate::supervise::Crew); a service that is away delays only what needs it.

pub mod account;
mod act;
mod admin;
mod beat;
pub mod events;
mod hardware;
pub mod health;
mod herald;
mod housekeeping;
pub mod jobs;
pub mod key;
pub mod link;
pub mod metrics;
mod networks;
mod offer;
mod presence;
mod settings;
mod start;
pub mod stock;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::artifact::{Gateways, Pinata};
use crate::chain::Chain;
use crate::chain::key::Key;
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::fleet::kinds;
use crate::gpu::{self, GpuProbe};
use crate::http::Url;
use crate::ids::Address;
use crate::node::pools;
use crate::report::BoxError;
use crate::{bus, journal};
use jobs::shutdown::{self, Graces};

pub use jobs::terms::OwnersSandbox;
pub use settings::{JobAuth, Limits, Settings};

/// How the program was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// It was not asked.
    No,
    /// Running jobs get their grace period; the others are handed back.
    Graceful,
    /// At once: the next start continues from the journal.
    Now,
}

/// How long the last events may take to be sent.
const EVENTS_OUT: Duration = Duration::from_secs(2);

/// A node before its start: settings, key, adapters.
#[derive(Debug)]
pub struct Node<R, G, Ch, C> {
    /// The owner's settings.
    pub settings: Settings,
    /// Receives the earnings, and may drain the node as the node's own key may.
    pub owner: Option<Address>,
    /// Signs receipts, statuses and transactions.
    pub key: Arc<Key>,
    /// `--take-over`: another instance that uses the key is asked to end first.
    pub take_over: bool,
    /// Addresses and credentials of the NATS servers.
    pub bus: Arc<bus::Config>,
    /// The container engine.
    pub runtime: Arc<R>,
    /// Finds the host's GPUs.
    pub gpu: Arc<G>,
    /// The EVM chain of the reputation contract.
    pub chain: Arc<Ch>,
    /// The reputation contract's address.
    pub contract: Address,
    /// The chain's id if the owner set it: then receipts are signed before the chain first answers.
    pub chain_id: Option<u64>,
    /// The IPFS gateways that inputs are fetched from.
    pub gateways: Gateways,
    /// The pinning service that outputs are uploaded to.
    pub pinata: Pinata,
    /// The way to and from the monitor; `None`: jobs are not watched.
    pub monitor: Option<usage::MonitorLink>,
    /// The hub that the node tells how it is; `None`: none.
    pub hub: Option<Url>,
    /// Where the node tells Prometheus how it is; `None`: nowhere.
    pub metrics: Option<metrics::Metrics>,
    /// The host's time.
    pub clock: C,
}

/// Why the program ends, other than a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No GPU was found, and `GPU_MODE=none` is not set.
    #[error("no GPU: set GPU_MODE=none to run without one (on a local chain only)")]
    NoGpu(#[source] Option<gpu::Error>),
    /// The data folder can't be used.
    #[error("the data folder {path} can't be used")]
    DataDir {
        /// `DATA_DIR`.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The journal can't be used.
    #[error("the journal can't be used")]
    Journal(#[from] journal::Error),
    /// An `AGENT_POOLS` entry is not a valid pool name.
    #[error("AGENT_POOLS: {0}")]
    Pool(#[from] bus::InvalidPoolName),
    /// A service failed for good.
    #[error("the node can't go on")]
    Service(#[source] BoxError),
}

impl<R, G, Ch, C> Node<R, G, Ch, C>
where
    R: ContainerRuntime,
    G: GpuProbe,
    Ch: Chain,
    C: Clock + Clone,
{
    /// Runs the node until it is asked to end, or can't go on.
    pub async fn run(self, mut shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
        let address = self.key.address();
        tracing::info!(agent = %address, "lamda-node {} is {address}", env!("CARGO_PKG_VERSION"));
        let hardware = self.find_gpus().await?;
        let settings = self.settings.clone();
        let pools = pools::served(&settings.pools, &hardware.gpus);
        let pools = pools.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
        let (mut services, parts) = self.start(hardware, pools).await?;
        let events = parts.jobs.desk.events.clone();
        events.tell(kinds::NODE_STARTED, "the node begins to work", |event| {
            event.with("version", env!("CARGO_PKG_VERSION"))
        });
        let mut asked = shutdown.clone();
        let end = tokio::select! {
            err = services.first_fatal() => Err(Error::Service(err)),
            _ = asked.wait_for(|asked| *asked != Shutdown::No) => Ok(()),
            () = parts.greeter.sole.left() => Ok(()),
        };
        events.tell(kinds::NODE_STOPPING, "the node winds down", |event| event);
        tokio::select! {
            () = parts.wind_down(&settings, end.is_ok()) => {}
            _ = shutdown.wait_for(|asked| *asked == Shutdown::Now) => {
                tracing::warn!("ending at once; what runs is taken back at the next start");
            }
        }
        parts.jobs.crew.abort();
        services.stop().await;
        end
    }
}

impl<R: ContainerRuntime, C: Clock + Clone> start::Parts<R, C> {
    /// Ends what runs in order, lets the last statuses out and closes the connection.
    async fn wind_down(&self, settings: &Settings, graceful: bool) {
        shutdown::wind_down(&self.intake, Graces::of(settings, graceful)).await;
        if let Some(watcher) = &self.jobs.effects.watcher {
            watcher.rest().await;
        }
        // What is left over is removed at the next start.
        tokio::time::timeout(shutdown::FLUSH, self.jobs.effects.runtime.drop_networks()).await.ok();
        let bus = self.link.now();
        if bus.is_some() {
            shutdown::let_out(&self.intake).await;
        }
        self.jobs.desk.events.let_out(EVENTS_OUT).await;
        let Some(bus) = bus else { return };
        if let Ok(Err(err)) = tokio::time::timeout(shutdown::FLUSH, bus.drain()).await {
            tracing::debug!("NATS was not closed in order: {err}");
        }
    }
}
