//! The node at work: takes jobs, runs each to its one terminal status, keeps the chain informed.
//!
//! ```text
//!  link ──► intake ──► journal ──► attempt (one task a job) ──► act ──► container, artifact, key
//!             ▲           │              │    ▲                            │
//!   recover ──┘           └──► publish ──┼────┴── board: slots, cards ─────┘
//!   leases, admin, heartbeat             └── job::plan decides
//! ```
//!
//! What must hold: every task here hangs under one [`Services`] or one [`Crew`]; a service that is
//! away is waited for by whoever needs it, and by nobody else.

pub mod account;
pub mod act;
pub mod admin;
pub mod health;
pub mod housekeeping;
pub mod jobs;
pub mod key;
pub mod link;
pub mod presence;
pub mod settings;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::artifact::{Gateways, Pinata};
use crate::backoff::Backoff;
use crate::bus::{self, MessageIds};
use crate::chain::Chain;
use crate::chain::key::Key;
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::gpu::{self, GpuProbe};
use crate::host;
use crate::ids::{Address, Domain};
use crate::journal::{self, Journal};
use crate::node::admission::Offer;
use crate::node::{Gpu, GpuInventory as Inventory, pools};
use crate::report::BoxError;
use crate::supervise::{Crew, Services};

use account::heartbeat::{Claim, Heart, Said};
use act::Act;
use health::lookout::Lookout;
use health::readiness::Readiness;
use health::sight::Sight;
use jobs::attempt::Desk;
use jobs::board::Board;
use jobs::folders::Folders;
use jobs::intake::Intake;
use jobs::notary::Notary;
use jobs::terms::Terms;
use key::hello::Greeter;
use key::sole::Sole;
use link::Link;
use presence::{Crier, Neighbours};
pub use settings::{JobAuth, Limits, Settings};
use start::{Parts, serve_chain, serve_crier, serve_lookout};

/// A service that is away is asked again this often at first, and this seldom at last.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Memory that stays the host's own, in per cent.
const HOST_MEMORY_PERCENT: u64 = 10;

/// Nothing is sent for so many heartbeats after another user of the key was seen: one that is
/// still at work would have sent its own by then.
const QUIET_BEATS: u32 = 3;

/// Time allowed for shutdown beyond the grace periods.
const END: Duration = Duration::from_mins(1);

/// How the program is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Not yet.
    No,
    /// Finish or hand back what runs.
    Graceful,
    /// At once; everything is in the journal.
    Now,
}

/// Everything that a node is made of.
#[derive(Debug)]
pub struct Node<R, G, Ch, C> {
    /// The owner's decisions.
    pub settings: Settings,
    /// Where earnings go, and who may drain the node beside itself.
    pub owner: Option<Address>,
    /// The node's key.
    pub key: Arc<Key>,
    /// `--take-over`: who uses the key is asked to end first.
    pub take_over: bool,
    /// How NATS is reached.
    pub bus: bus::Config,
    /// Where containers run.
    pub runtime: R,
    /// Where the GPUs are found out.
    pub gpu: G,
    /// The chain.
    pub chain: Ch,
    /// The reputation contract on it.
    pub contract: Address,
    /// The chain's id where the owner set it: then receipts need not wait for the chain.
    pub chain_id: Option<u64>,
    /// Where inputs come from.
    pub gateways: Gateways,
    /// Where outputs go.
    pub pinata: Pinata,
    /// The time.
    pub clock: C,
}

/// What ends the program other than a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No GPU was found, and none was said to be fine.
    #[error("no GPU: set GPU_MODE=none to run without one (on a local chain only)")]
    NoGpu(#[source] Option<gpu::Error>),
    /// The data folder can't be used.
    #[error("the data folder {path} can't be used")]
    DataDir {
        /// The folder.
        path: std::path::PathBuf,
        /// What went wrong.
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
        let Inventory { driver, cuda, gpus, .. } = self.find_gpus().await?;
        let driver = format!("CUDA {cuda} (driver {driver})");
        let settings = self.settings.clone();
        let pools = pools::served(&settings.pools, &gpus);
        let pools = pools.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
        let (mut services, parts) = self.start(address, (&gpus, driver), pools).await?;
        let mut asked = shutdown.clone();
        let end = tokio::select! {
            err = services.first_fatal() => Err(Error::Service(err)),
            _ = asked.wait_for(|asked| *asked != Shutdown::No) => Ok(()),
            () = parts.greeter.sole.left() => Ok(()),
        };
        tokio::select! {
            () = parts.wind_down(&settings, end.is_ok()) => {}
            _ = shutdown.wait_for(|asked| *asked == Shutdown::Now) => {
                tracing::warn!("ending at once; what runs is taken back at the next start");
            }
        }
        parts.intake.crew.abort();
        services.stop().await;
        end
    }

    async fn find_gpus(&self) -> Result<Inventory, Error> {
        if self.settings.without_gpu {
            tracing::warn!("GPU_MODE=none: running without GPUs");
            return Ok(Inventory::default());
        }
        let inventory = self.gpu.inventory().await.map_err(|err| Error::NoGpu(Some(err)))?;
        if inventory.gpus.is_empty() {
            return Err(Error::NoGpu(None));
        }
        let (driver, cuda) = (&inventory.driver, &inventory.cuda);
        for gpu in &inventory.gpus {
            let (uuid, vram_mib) = (&gpu.uuid, gpu.vram_mib);
            tracing::info!(%uuid, vram_mib, driver, cuda, "found {} with {vram_mib} MiB", gpu.model);
        }
        Ok(inventory)
    }

    /// Who finds out whether the key is used elsewhere.
    fn greeter(&self) -> Greeter<C> {
        let settings = &self.settings;
        let sole = Sole::new(settings.heartbeat_interval * QUIET_BEATS);
        let patience = settings.shutdown_grace + settings.stop_grace + END;
        let patience = self.take_over.then_some(patience);
        Greeter::new(Arc::clone(&self.key), sole, patience, self.clock.clone())
    }

    async fn start(
        self,
        node: Address,
        (gpus, driver): (&[Gpu], String),
        pools: Vec<bus::PoolName>,
    ) -> Result<(Services, Parts<R, C>), Error> {
        let greeter = self.greeter();
        let settings = &self.settings;
        let data_dir = |source| Error::DataDir { path: settings.data_dir.clone(), source };
        let folders = Folders::create(&settings.data_dir).map_err(data_dir)?;
        let (journal, ids) = journal_of(settings).await?;
        let offer = offer(settings, gpus.to_vec()).map_err(data_dir)?;
        let slots = offer.slots;
        let terms = Terms { offer, images: settings.images.clone() };
        let board = Board::untried(terms.clone());
        let contract = self.contract;
        let known = self.chain_id.map(|chain_id| Domain { chain_id, contract });
        let (domain, link) = (Arc::new(watch::Sender::new(known)), Link::default());
        let runtime = Arc::new(self.runtime);
        let notary = Notary::of(Arc::clone(&self.key), domain.subscribe());
        let effects = Arc::new(Act {
            runtime: Arc::clone(&runtime),
            gateways: self.gateways,
            pinata: self.pinata,
            board: board.clone(),
            link: link.clone(),
            folders: folders.clone(),
            ids,
            key: self.key,
            domain: domain.subscribe(),
            terms: terms.clone(),
            stop_grace: settings.stop_grace,
            clock: self.clock.clone(),
            lines: std::sync::Mutex::default(),
            uploads: std::sync::Mutex::default(),
            fetched: std::sync::Mutex::default(),
            neighbours: Neighbours::default(),
            driver,
            sight: Arc::new(Sight::new(node, settings.data_dir.clone())),
        });
        let intake = Arc::new(Intake {
            node,
            auth: settings.auth.clone(),
            terms,
            domain: domain.subscribe(),
            desk: desk(&journal, &board, &self.clock, settings, notary),
            effects,
            crew: Crew::default(),
            data_dir: settings.data_dir.clone(),
            disk_free_min_mib: settings.disk_free_min_mib,
            open: watch::Sender::new(0),
            waiting: tokio::sync::Mutex::default(),
        });
        let parts = Parts { intake, runtime, link, domain, greeter };
        let mut services = Services::default();
        parts.serve_bus(&mut services, (self.bus, !pools.is_empty()), self.owner);
        serve_crier(&mut services, crier(&parts, &pools));
        parts.serve_jobs(&mut services, pools, slots, settings.pool_prefetch);
        let readiness = readiness(&parts, self.gpu, gpus);
        serve_lookout(&mut services, lookout(&readiness, &board, &self.clock, settings));
        let heart = Heart {
            claim: Claim::of(gpus),
            chain: Arc::new(self.chain),
            journal,
            sole: parts.greeter.sole.clone(),
            readiness,
            domain: Arc::clone(&parts.domain),
            interval: settings.heartbeat_interval,
            limits: settings.spending,
            clock: self.clock,
            said: Said::default(),
        };
        serve_chain(&mut services, heart);
        Ok((services, parts))
    }
}

/// Who says that the node is there.
fn crier<R, C: Clone>(parts: &Parts<R, C>, pools: &[bus::PoolName]) -> Crier<C> {
    let desk = &parts.intake.desk;
    Crier {
        node: parts.intake.node,
        link: parts.link.clone(),
        board: desk.board.clone(),
        pools: pools.to_vec(),
        clock: desk.clock.clone(),
    }
}

/// What a job needs here besides the job itself.
fn readiness<R, G, C>(parts: &Parts<R, C>, gpu: G, gpus: &[Gpu]) -> Arc<Readiness<R, G>> {
    Arc::new(Readiness {
        link: parts.link.clone(),
        runtime: Arc::clone(&parts.runtime),
        gpu: Arc::new(gpu),
        node: parts.intake.node,
        cards: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
        board: parts.intake.desk.board.clone(),
        sight: Arc::clone(&parts.intake.effects.sight),
    })
}

/// Who looks whether jobs can be taken.
fn lookout<R, G, C: Clone>(
    readiness: &Arc<Readiness<R, G>>,
    board: &Board,
    clock: &C,
    settings: &Settings,
) -> Lookout<R, G, C> {
    Lookout {
        readiness: Arc::clone(readiness),
        board: board.clone(),
        data_dir: settings.data_dir.clone(),
        disk_free_min_mib: settings.disk_free_min_mib,
        clock: clock.clone(),
    }
}

/// What the jobs' tasks share.
fn desk<C: Clock + Clone>(
    journal: &Journal,
    board: &Board,
    clock: &C,
    settings: &Settings,
    notary: Notary,
) -> Desk<C> {
    Desk {
        journal: journal.clone(),
        board: board.clone(),
        clock: clock.clone(),
        rules: settings.rules,
        outbox: Arc::new(Notify::new()),
        notary,
    }
}

/// The journal, and the ids that are made with its key.
async fn journal_of(settings: &Settings) -> Result<(Journal, MessageIds), journal::Error> {
    let journal = Journal::open(&settings.data_dir)?;
    let ids = MessageIds::new(journal.secret("message-ids").await?);
    Ok((journal, ids))
}

fn offer(settings: &Settings, gpus: Vec<Gpu>) -> std::io::Result<Offer> {
    let cores = host::cores();
    let slots = settings.slots.unwrap_or(if gpus.is_empty() { cores } else { gpus.len() });
    let memory_mib = host::memory_mib();
    let disk_free = host::disk_free_mib(&settings.data_dir)?;
    Ok(Offer {
        gpus,
        milli_cpus: cores as u64 * 1000,
        memory_mib: memory_mib - memory_mib * HOST_MEMORY_PERCENT / 100,
        disk_mib: disk_free.saturating_sub(settings.disk_free_min_mib),
        bridge: settings.allow_bridge,
        slots,
    })
}
