//! The parts that live as long as the node runs, and the services over them.
//!
//! What must hold: a queue is read only after recovery is done and nobody else uses the key.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::account::heartbeat::Heart;
use super::act::{Act, disk};
use super::admin::{self, Admin};
use super::health::lookout::Lookout;
use super::health::trials::{Store, Told, try_gateways};
use super::jobs::intake::Intake;
use super::jobs::shutdown::{self, Graces};
use super::jobs::{leases, orphans, outbox, reconcile, recover, results};
use super::key::hello::{self, Greeter};
use super::link::Link;
use super::presence::Crier;
use super::settings::Settings;
use super::{RETRY, housekeeping};
use crate::bus::{self, Target};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::gpu::GpuProbe;
use crate::ids::{Address, Domain};
use crate::supervise::Services;

/// The parts that live as long as the node runs.
pub(super) struct Parts<R, C> {
    pub(super) intake: Arc<Intake<Act<R, C>, C>>,
    pub(super) runtime: Arc<R>,
    pub(super) link: Link,
    pub(super) domain: Arc<watch::Sender<Option<Domain>>>,
    pub(super) greeter: Greeter<C>,
}

impl<R: ContainerRuntime, C: Clock + Clone> Parts<R, C> {
    /// The connection, also whether pools are served on it, and what needs nothing but it.
    pub(super) fn serve_bus(
        &self,
        services: &mut Services,
        (config, shared): (bus::Config, bool),
        owner: Option<Address>,
    ) {
        let (desk, node, link) = (&self.intake.desk, self.intake.node, self.link.clone());
        let config = Arc::new(config);
        services.spawn("nats", RETRY, move || link.clone().keep(Arc::clone(&config), shared));
        let (desk_of, effects) = (desk.clone(), Arc::clone(&self.intake.effects));
        services
            .spawn("publish", RETRY, move || outbox::run(desk_of.clone(), Arc::clone(&effects)));
        let (journal, clock) = (desk.journal.clone(), desk.clock.clone());
        let (packed, packed_by) = (journal.clone(), clock.clone());
        services
            .spawn("journal", RETRY, move || housekeeping::forget(journal.clone(), clock.clone()));
        services
            .spawn("pack", RETRY, move || housekeeping::pack(packed.clone(), packed_by.clone()));
        self.serve_trials(services);
        let folders = self.intake.effects.folders.clone();
        let runtime = Arc::clone(&self.runtime);
        services.spawn("trash", RETRY, move || {
            let (reserve, runtime) = (folders.reserve.clone(), Arc::clone(&runtime));
            let open = move |top: PathBuf, closed: Vec<PathBuf>| {
                let runtime = Arc::clone(&runtime);
                async move { runtime.open_folders(node, &top, &closed).await.is_ok() }
            };
            // What is gone may have been what the reserve was spent for.
            folders.trash.clone().sweep(move || drop(reserve.keep()), open)
        });
        let (effects, free_min) = (Arc::clone(&self.intake.effects), self.intake.disk_free_min_mib);
        services.spawn("disk", RETRY, move || disk::watch(Arc::clone(&effects), free_min));
        let (desk_of, effects) = (desk.clone(), Arc::clone(&self.intake.effects));
        services.spawn("leases", RETRY, move || leases::run(desk_of.clone(), Arc::clone(&effects)));
        let retried = Arc::new(Notify::new());
        let (desk_of, effects, asked) =
            (desk.clone(), Arc::clone(&self.intake.effects), Arc::clone(&retried));
        services.spawn("kept outputs", RETRY, move || {
            results::run(desk_of.clone(), Arc::clone(&effects), Arc::clone(&asked))
        });
        let admin = Arc::new(Admin {
            node,
            owner,
            intake: Arc::clone(&self.intake),
            greeter: self.greeter.clone(),
            retried,
        });
        let link = self.link.clone();
        services.spawn("control", RETRY, move || admin::run(Arc::clone(&admin), link.clone()));
        let (greeter, link) = (self.greeter.clone(), self.link.clone());
        services.spawn("hello", RETRY, move || hello::run(greeter.clone(), link.clone()));
    }

    /// What tries the store and the gateways.
    fn serve_trials(&self, services: &mut Services) {
        let (desk, effects) = (&self.intake.desk, &self.intake.effects);
        let (board, clock) = (desk.board.clone(), desk.clock.clone());
        let store = Arc::new(Store::new(effects.pinata.clone(), board, clock.clone()));
        services.spawn("store", RETRY, move || Arc::clone(&store).run());
        let (gateways, told) = (effects.gateways.clone(), Arc::new(Told::default()));
        services.spawn("gateways", RETRY, move || {
            try_gateways(gateways.clone(), clock.clone(), Arc::clone(&told))
        });
    }

    /// Recovery first, then the queues, once nobody else uses the key.
    pub(super) fn serve_jobs(
        &self,
        services: &mut Services,
        pools: Vec<bus::PoolName>,
        slots: usize,
        pool_prefetch: usize,
    ) {
        let recovered = Arc::new(watch::Sender::new(false));
        let (intake, done) = (Arc::clone(&self.intake), Arc::clone(&recovered));
        services.spawn("recovery", RETRY, move || {
            let (intake, done) = (Arc::clone(&intake), Arc::clone(&done));
            async move {
                recover::run(intake).await?;
                done.send_replace(true);
                Ok(())
            }
        });
        let (intake, begun) = (Arc::clone(&self.intake), recovered.subscribe());
        services.spawn("jobs in hand", RETRY, move || {
            recover::keep(Arc::clone(&intake), begun.clone())
        });
        let (intake, begun) = (Arc::clone(&self.intake), recovered.subscribe());
        services.spawn("orphans", RETRY, move || {
            let (intake, mut begun) = (Arc::clone(&intake), begun.clone());
            async move {
                // The sender lives in the recovery's service.
                begun.wait_for(|done| *done).await.ok();
                orphans::run(intake).await
            }
        });
        let (intake, begun) = (Arc::clone(&self.intake), recovered.subscribe());
        services.spawn("waiting jobs", RETRY, move || {
            let (intake, mut begun) = (Arc::clone(&intake), begun.clone());
            async move {
                begun.wait_for(|done| *done).await.ok();
                reconcile::run(intake).await
            }
        });
        let own = (Target::Agent(self.intake.node), slots);
        let shared = pools.into_iter().map(|pool| (Target::Pool(pool), slots * pool_prefetch));
        for (source, ahead) in std::iter::once(own).chain(shared) {
            let (intake, link, ready, sole) = (
                Arc::clone(&self.intake),
                self.link.clone(),
                recovered.subscribe(),
                self.greeter.sole.clone(),
            );
            services.spawn("intake", RETRY, move || {
                let (intake, link, source, mut ready, sole) = (
                    Arc::clone(&intake),
                    link.clone(),
                    source.clone(),
                    ready.clone(),
                    sole.clone(),
                );
                async move {
                    // The sender lives in the service before this one.
                    ready.wait_for(|ready| *ready).await.ok();
                    sole.settled().await;
                    intake.run(link, source, ahead).await
                }
            });
        }
    }

    /// Ends what runs in order, lets the last statuses out and closes the connection.
    pub(super) async fn wind_down(&self, settings: &Settings, graceful: bool) {
        shutdown::wind_down(&self.intake, Graces::of(settings, graceful)).await;
        let Some(bus) = self.link.now() else { return };
        shutdown::let_out(&self.intake).await;
        if let Ok(Err(err)) = tokio::time::timeout(shutdown::FLUSH, bus.drain()).await {
            tracing::debug!("NATS was not closed in order: {err}");
        }
    }
}

/// Whether jobs can be taken.
pub(super) fn serve_lookout<R, G, C>(services: &mut Services, lookout: Lookout<R, G, C>)
where
    R: ContainerRuntime,
    G: GpuProbe,
    C: Clock,
{
    let lookout = Arc::new(lookout);
    services.spawn("lookout", RETRY, move || Arc::clone(&lookout).run());
}

/// Who tells others that the node is there.
pub(super) fn serve_crier<C: Clock>(services: &mut Services, crier: Crier<C>) {
    let crier = Arc::new(crier);
    services.spawn("presence", RETRY, move || Arc::clone(&crier).run());
}

/// The node's life on the chain.
pub(super) fn serve_chain<R, G, Ch, C>(services: &mut Services, heart: Heart<R, G, Ch, C>)
where
    R: ContainerRuntime,
    G: GpuProbe,
    Ch: Chain,
    C: Clock + Clone,
{
    let heart = Arc::new(heart);
    let surveyor = Arc::clone(&heart);
    services.spawn("chain", RETRY, move || {
        let heart = Arc::clone(&heart);
        async move { heart.beat().await }
    });
    services.spawn("endpoints", RETRY, move || {
        let surveyor = Arc::clone(&surveyor);
        async move { surveyor.survey().await }
    });
}
