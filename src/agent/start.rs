//! Assembles a node's parts and starts its services.
//!
//! Invariants: a queue is read only after recovery is done and nobody else uses the key; every service
//! hangs under one [`Services`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::account::heartbeat::{Heart, Logged, Registration};
use super::act::{self, Act};
use super::admin::{self, Admin};
use super::events::Events;
use super::hardware::Hardware;
use super::health::cards::Cards;
use super::health::containers::Containers;
use super::health::lookout::Lookout;
use super::health::readiness::Readiness;
use super::health::sight::Sight;
use super::health::toolkit::Gate;
use super::health::trials::{self, LoggedTroubles};
use super::jobs::board::Board;
use super::jobs::desk::Desk;
use super::jobs::folders::Folders;
use super::jobs::hand::Jobs;
use super::jobs::intake::Intake;
use super::jobs::notary::Notary;
use super::jobs::terms::Terms;
use super::jobs::{leases, orphans, outbox, reconcile, recover, results};
use super::key::hello::{self, Greeter};
use super::key::sole::Sole;
use super::link::Link;
use super::networks::Wanted;
use super::presence::{Crier, Neighbours};
use super::stock::{self, Keeper};
use super::{Error, Node, herald, housekeeping, metrics, offer, usage};
use crate::backoff::Backoff;
use crate::bus::{MessageIds, PoolName, Target};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::gpu::GpuProbe;
use crate::ids::Domain;
use crate::journal::Journal;
use crate::node::Gpu;
use crate::supervise::Services;

/// A service that failed is started again after this long at first, and at most.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Heartbeats without a transaction of ours after another user of the key was seen: one that still works
/// would have sent its own by then.
const QUIET_BEATS: u32 = 3;

/// Time allowed for shutdown beyond the grace periods.
const END: Duration = Duration::from_mins(1);

/// What lives as long as the node runs and more than one service uses.
pub(super) struct Parts<R, C> {
    pub(super) jobs: Arc<Jobs<Act<R, C>, C>>,
    pub(super) intake: Arc<Intake<Act<R, C>, C>>,
    pub(super) link: Link,
    pub(super) greeter: Greeter<C>,
    domain: Arc<watch::Sender<Option<Domain>>>,
    known: metrics::Known,
}

impl<R, G, Ch, C> Node<R, G, Ch, C>
where
    R: ContainerRuntime,
    G: GpuProbe,
    Ch: Chain,
    C: Clock + Clone,
{
    /// Opens the journal, makes all parts, and starts every service.
    pub(super) async fn start(
        mut self,
        hardware: Hardware,
        pools: Vec<PoolName>,
    ) -> Result<(Services, Parts<R, C>), Error> {
        let way = self.monitor.take().map(usage::Way::new);
        let parts = self.parts(&hardware, way.as_ref().map(usage::Way::watcher)).await?;
        let desk = &parts.jobs.desk;
        desk.board.restore_health(desk.journal.gpu_health().await?);
        let mut services = Services::default();
        if let Some(way) = way {
            usage::serve(&mut services, RETRY, way, &parts.jobs, &parts.link);
        }
        if let Some(metrics) = self.metrics.take() {
            let (jobs, link, known) = (&parts.jobs, &parts.link, parts.known.clone());
            let source = metrics::Source::new(metrics, jobs, link, known, &hardware);
            services.spawn_with("metrics", RETRY, Arc::new(source), metrics::run);
        }
        if !hardware.gpus.is_empty() {
            let gate = Gate::new(Arc::clone(&self.gpu), desk.board.clone(), &self.settings);
            // Before the first job.
            gate.look().await;
            let gate = (Arc::new(gate), desk.clock.clone());
            services.spawn_with("toolkit", RETRY, gate, |(gate, clock)| gate.run(clock));
        }
        self.serve_outside(&mut services, &parts, !pools.is_empty());
        serve_upkeep(&mut services, &parts, self.settings.disk_free_min_mib);
        let recovered = Arc::new(watch::Sender::new(false));
        serve_jobs(&mut services, &parts.jobs, &recovered);
        let networks = Wanted::of(&self.settings, parts.jobs.terms.offer.slots);
        let kept = (Arc::clone(&parts.jobs.effects.runtime), parts.jobs.node, networks);
        services.spawn_with("networks", RETRY, kept, |(runtime, node, networks)| {
            networks.keep(runtime, node)
        });
        let slots = parts.jobs.terms.offer.slots;
        let shared = slots * self.settings.pool_prefetch;
        let own = Target::Agent(parts.jobs.node);
        serve_source(&mut services, &parts, &recovered, own, slots);
        for pool in pools.iter().cloned().map(Target::Pool) {
            serve_source(&mut services, &parts, &recovered, pool, shared);
        }
        self.serve_health(&mut services, &parts, &hardware.gpus, pools);
        Ok((services, parts))
    }

    async fn parts(
        &self,
        hardware: &Hardware,
        watcher: Option<act::Watcher>,
    ) -> Result<Parts<R, C>, Error> {
        let settings = &self.settings;
        let data_dir = |source| Error::DataDir { path: settings.data_dir.clone(), source };
        let folders = Folders::create(&settings.data_dir).map_err(data_dir)?;
        let terms = Terms {
            offer: offer::of(
                settings,
                hardware.gpus.clone(),
                stock::engines_room(&*self.runtime).await,
            )
            .map_err(data_dir)?,
            images: settings.images.clone(),
            sandbox: settings.sandbox,
        };
        let known = self.chain_id.map(|chain_id| Domain { chain_id, contract: self.contract });
        let domain = Arc::new(watch::Sender::new(known));
        let desk = Desk {
            journal: Journal::open(&settings.data_dir)?,
            board: Board::untried(terms.clone()),
            clock: self.clock.clone(),
            rules: settings.rules,
            outbox: Arc::new(Notify::new()),
            notary: Notary::of(Arc::clone(&self.key), domain.subscribe()),
            events: Events::new(&settings.events, self.key.address(), &hardware.gpus, &self.clock),
        };
        desk.board.tells(desk.events.clone());
        let ids = MessageIds::new(desk.journal.secret("message-ids").await?);
        let link = Link::default();
        let base = act::Base {
            board: desk.board.clone(),
            link: link.clone(),
            terms: terms.clone(),
            domain: domain.subscribe(),
            driver: hardware.driver.clone(),
        };
        let effects = Arc::new(Act { watcher, ..self.act(base, folders, ids) });
        let jobs = Arc::new(Jobs::new(self.key.address(), terms, desk, effects));
        let intake = Arc::new(Intake {
            jobs: Arc::clone(&jobs),
            auth: settings.auth.clone(),
            owner: self.owner,
            domain: domain.subscribe(),
            data_dir: settings.data_dir.clone(),
            disk_free_min_mib: settings.disk_free_min_mib,
            open: watch::Sender::new(0),
        });
        let known = metrics::Known::new(domain.subscribe());
        Ok(Parts { jobs, intake, link, greeter: self.greeter(), domain, known })
    }

    fn act(&self, base: act::Base, folders: Folders, ids: MessageIds) -> Act<R, C> {
        Act {
            base,
            runtime: Arc::clone(&self.runtime),
            gateways: self.gateways.clone(),
            pinata: self.pinata.clone(),
            folders,
            disk: self.settings.disk_limits(),
            ids,
            key: Arc::clone(&self.key),
            stop_grace: self.settings.stop_grace,
            clock: self.clock.clone(),
            memory: act::Memory::default(),
            neighbours: Neighbours::default(),
            sight: Arc::new(Sight::new(self.key.address(), self.settings.data_dir.clone())),
            watcher: None,
        }
    }

    /// Finds out whether the key is used elsewhere.
    fn greeter(&self) -> Greeter<C> {
        let settings = &self.settings;
        let sole = Sole::new(settings.heartbeat_interval * QUIET_BEATS);
        let patience = settings.shutdown_grace + settings.stop_grace + END;
        let patience = self.take_over.then_some(patience);
        Greeter::new(Arc::clone(&self.key), sole, patience, self.clock.clone())
    }

    /// The connection, whoever asks this node over it, and the services outside. `shared`: whether pools
    /// are served.
    fn serve_outside(&self, services: &mut Services, parts: &Parts<R, C>, shared: bool) {
        let (link, greeter, jobs) = (&parts.link, &parts.greeter, &parts.jobs);
        let (desk, effects) = (&jobs.desk, &jobs.effects);
        desk.events.serve(services, RETRY, (link.clone(), effects.ids.clone()));
        let nats = (link.clone(), Arc::clone(&self.bus), shared);
        services.spawn_with("nats", RETRY, nats, |(link, bus, shared)| link.keep(bus, shared));
        let store =
            trials::Store::new(effects.pinata.clone(), desk.board.clone(), desk.clock.clone());
        services.spawn_with("store", RETRY, Arc::new(store), trials::Store::run);
        let (board, clock) = (desk.board.clone(), desk.clock.clone());
        let gateways =
            (effects.gateways.clone(), board, clock, Arc::new(LoggedTroubles::default()));
        services.spawn_with("gateways", RETRY, gateways, |(gateways, board, clock, told)| {
            trials::try_gateways(gateways, board, clock, told)
        });
        let retried = Arc::new(Notify::new());
        let kept = (desk.clone(), Arc::clone(effects), Arc::clone(&retried));
        services.spawn_with("kept outputs", RETRY, kept, |(desk, effects, retried)| {
            results::run(desk, effects, retried)
        });
        let admin = Arc::new(Admin {
            owner: self.owner,
            intake: Arc::clone(&parts.intake),
            greeter: greeter.clone(),
            retried,
        });
        let control = (admin, link.clone());
        services.spawn_with("control", RETRY, control, |(admin, link)| admin::run(admin, link));
        let hello = (greeter.clone(), link.clone());
        services.spawn_with("hello", RETRY, hello, |(greeter, link)| hello::run(greeter, link));
        let hub = (self.hub.clone(), &self.key);
        herald::serve(services, RETRY, hub, (desk, link, greeter), &parts.known.hub);
    }

    /// What looks whether the node can work, and tells the pools and the chain.
    fn serve_health(
        self,
        services: &mut Services,
        parts: &Parts<R, C>,
        gpus: &[Gpu],
        pools: Vec<PoolName>,
    ) {
        let (node, desk) = (parts.jobs.node, &parts.jobs.desk);
        let (board, clock) = (&desk.board, &desk.clock);
        if !gpus.is_empty() {
            let watcher = parts.jobs.effects.watcher.clone();
            let (gpu, latest) = (Arc::clone(&self.gpu), Arc::clone(&parts.known.latest));
            let cards = Cards::new(gpu, desk, self.settings.yields_gpus, watcher, latest);
            services.spawn_with("cards", RETRY, Arc::new(cards), Cards::run);
            let (runtime, gpu) = (Arc::clone(&self.runtime), Arc::clone(&self.gpu));
            let containers = Containers::new(runtime, gpu, desk);
            services.spawn_with("containers", RETRY, Arc::new(containers), Containers::run);
        }
        let readiness = Arc::new(Readiness {
            link: parts.link.clone(),
            runtime: self.runtime,
            gpu: self.gpu,
            node,
            cards: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
            board: board.clone(),
            sight: Arc::clone(&parts.jobs.effects.sight),
        });
        let (runtime, journal) = (Arc::clone(&readiness.runtime), desk.journal.clone());
        let (data_dir, limits) = (self.settings.data_dir.clone(), self.settings.disk_limits());
        let (trash, lack) = (parts.jobs.effects.folders.trash.clone(), Mutex::default());
        let keeper = Arc::new(Keeper { runtime, journal, data_dir, limits, trash, lack });
        let kept = (Arc::clone(&keeper), clock.clone());
        services.spawn_with("stock", RETRY, kept, |(keeper, clock)| keeper.run(clock));
        let lookout = Lookout {
            keeper,
            readiness: Arc::clone(&readiness),
            board: board.clone(),
            data_dir: self.settings.data_dir.clone(),
            disk_free_min_mib: self.settings.disk_free_min_mib,
            clock: clock.clone(),
        };
        services.spawn_with("lookout", RETRY, Arc::new(lookout), Lookout::run);
        let (link, board) = (parts.link.clone(), board.clone());
        let me = (parts.greeter.me().clone(), parts.greeter.sole.clone());
        let crier = Crier { node, link, me, board, pools, clock: clock.clone() };
        services.spawn_with("presence", RETRY, Arc::new(crier), Crier::run);
        let heart = Arc::new(Heart {
            registration: Registration::of(gpus),
            chain: self.chain,
            journal: desk.journal.clone(),
            sole: parts.greeter.sole.clone(),
            readiness,
            domain: Arc::clone(&parts.domain),
            balance: Arc::clone(&parts.known.balance),
            interval: self.settings.heartbeat_interval,
            limits: self.settings.spending,
            clock: self.clock,
            said: Logged::default(),
        });
        services.spawn_with("chain", RETRY, Arc::clone(&heart), Heart::beat);
        services.spawn_with("endpoints", RETRY, heart, Heart::survey);
    }
}

/// What keeps statuses, leases, disk and journal in order.
fn serve_upkeep<R, C>(services: &mut Services, parts: &Parts<R, C>, disk_free_min_mib: u64)
where
    R: ContainerRuntime,
    C: Clock + Clone,
{
    let (desk, effects) = (&parts.jobs.desk, &parts.jobs.effects);
    let journal = (desk.journal.clone(), desk.clock.clone());
    let shared = (desk.clone(), Arc::clone(effects));
    services.spawn_with("publish", RETRY, shared.clone(), |(desk, act)| outbox::run(desk, act));
    services.spawn_with("leases", RETRY, shared, |(desk, act)| leases::run(desk, act));
    services.spawn_with("journal", RETRY, journal.clone(), |(journal, clock)| {
        housekeeping::forget(journal, clock)
    });
    services
        .spawn_with("pack", RETRY, journal, |(journal, clock)| housekeeping::pack(journal, clock));
    let watched = (Arc::clone(effects), disk_free_min_mib);
    services.spawn_with("disk", RETRY, watched, |(act, free_min)| act::disk::watch(act, free_min));
    let trash = (parts.jobs.node, Arc::clone(effects));
    services.spawn_with("trash", RETRY, trash, |(node, act)| {
        let (folders, runtime) = (act.folders.clone(), Arc::clone(&act.runtime));
        let open = move |top: PathBuf, closed: Vec<PathBuf>| {
            let runtime = Arc::clone(&runtime);
            async move { runtime.open_folders(node, &top, &closed).await.is_ok() }
        };
        let reserve = folders.reserve;
        // What is gone may have been what the reserve was spent for.
        folders.trash.sweep(move || drop(reserve.keep()), open)
    });
}

/// Recovery, and after it what looks after the jobs in hand.
fn serve_jobs<R, C>(
    services: &mut Services,
    jobs: &Arc<Jobs<Act<R, C>, C>>,
    recovered: &Arc<watch::Sender<bool>>,
) where
    R: ContainerRuntime,
    C: Clock + Clone,
{
    let recovery = (Arc::clone(jobs), Arc::clone(recovered));
    services.spawn_with("recovery", RETRY, recovery, |(jobs, done)| async move {
        recover::run(jobs).await?;
        done.send_replace(true);
        Ok(())
    });
    let shared = (Arc::clone(jobs), recovered.subscribe());
    services.spawn_with("jobs in hand", RETRY, shared.clone(), |(jobs, begun)| {
        recover::keep(jobs, begun)
    });
    services.spawn_with("orphans", RETRY, shared.clone(), |(jobs, begun)| async move {
        is_true(begun).await;
        orphans::run(jobs).await
    });
    services.spawn_with("waiting jobs", RETRY, shared, |(jobs, begun)| async move {
        is_true(begun).await;
        reconcile::run(jobs).await
    });
}

/// Takes the deliveries of one source: so many ahead of the free slots.
fn serve_source<R, C>(
    services: &mut Services,
    parts: &Parts<R, C>,
    recovered: &watch::Sender<bool>,
    source: Target,
    ahead: usize,
) where
    R: ContainerRuntime,
    C: Clock + Clone,
{
    let sole = parts.greeter.sole.clone();
    let state =
        (Arc::clone(&parts.intake), parts.link.clone(), source, recovered.subscribe(), sole);
    services.spawn_with(
        "intake",
        RETRY,
        state,
        move |(intake, link, source, begun, sole)| async move {
            is_true(begun).await;
            sole.known_sole().await;
            intake.run(link, source, ahead).await
        },
    );
}

async fn is_true(mut told: watch::Receiver<bool>) {
    // The sender lives in a service that is started before whoever waits.
    told.wait_for(|told| *told).await.ok();
}
