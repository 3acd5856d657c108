//! Looks from outside which cards each job's container has: soon after its start, and again and again, since
//! `systemctl daemon-reload` can take them away. [`crate::node::visible`] judges. A job whose container has another
//! card than its own, or lacks its own, is stopped and given back: that is the node's fault.
//!
//! Invariants: no start waits for a look; what can't be looked at stops no job, and is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::timeout;

use crate::agent::jobs::board::{Board, Tenancy};
use crate::agent::jobs::desk::Desk;
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime};
use crate::gpu::GpuProbe;
use crate::host::nodes::{self, Blind, Seen};
use crate::job::phase::StopCause;
use crate::node::GpuInventory;
use crate::node::visible;
use crate::report::causes;
use crate::supervise::Failure;

/// Time between two looks at a container.
const EVERY: Duration = Duration::from_secs(30);

/// Shortest time between two rounds: many jobs may start at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Time limit for a job to confirm that it stops.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// The service that looks at the containers.
#[derive(Debug)]
pub(in crate::agent) struct Containers<R, G, C> {
    runtime: Arc<R>,
    gpu: Arc<G>,
    board: Board,
    clock: C,
    /// Whether it was said that nothing can be seen.
    is_told: AtomicBool,
}

impl<R: ContainerRuntime, G: GpuProbe, C: Clock> Containers<R, G, C> {
    /// Looks at the containers of this desk's jobs.
    pub(in crate::agent) fn new(runtime: Arc<R>, gpu: Arc<G>, desk: &Desk<C>) -> Self
    where
        C: Clone,
    {
        let (board, clock) = (desk.board.clone(), desk.clock.clone());
        Self { runtime, gpu, board, clock, is_told: AtomicBool::new(false) }
    }

    /// Looks as long as the node runs; a service that never ends.
    pub(in crate::agent) async fn run(self: Arc<Self>) -> Result<(), Failure> {
        // When each container was looked at.
        let mut looked: BTreeMap<String, Duration> = BTreeMap::new();
        loop {
            tokio::select! {
                () = self.board.runs_another(|container| looked.contains_key(container)) => {}
                () = self.clock.sleep(EVERY) => {}
            }
            let now = self.clock.monotonic();
            let tenants = self.board.tenants();
            looked.retain(|container, _| tenants.iter().any(|it| it.container == *container));
            let is_due = |it: &&Tenancy| {
                looked.get(&it.container).is_none_or(|at| now.saturating_sub(*at) >= EVERY)
            };
            let due: Vec<&Tenancy> = tenants.iter().filter(is_due).collect();
            // A driver that does not answer is told elsewhere.
            let inventory = if due.is_empty() { None } else { self.gpu.inventory().await.ok() };
            let mut stopping = BTreeSet::new();
            for tenant in &due {
                let Some(why) = self.wrong(tenant, inventory.as_ref()).await else { continue };
                stopping.insert(tenant.container.clone());
                stop_misplaced(&self.board, tenant, &why).await;
            }
            // One that has to stop is looked at again until it is gone: it may have missed the request.
            let seen = due.iter().filter(|it| !stopping.contains(&it.container));
            looked.extend(seen.map(|it| (it.container.clone(), now)));
            self.clock.sleep(if stopping.is_empty() { PAUSE } else { STOP_ASKED }).await;
        }
    }

    async fn wrong(&self, tenant: &Tenancy, host: Option<&GpuInventory>) -> Option<String> {
        let seen = self.look(&tenant.container).await?;
        let seen = visible::Seen { nodes: &seen.nodes, allowed: seen.allowed.as_ref() };
        visible::wrong(&tenant.cards, host?, seen)
    }

    /// What the container has; `None` if it has ended, or can't be looked at.
    async fn look(&self, container: &str) -> Option<Seen> {
        let id = ContainerId(container.to_owned());
        let first = match self.runtime.first_process(&id).await {
            Ok(pid) => pid?,
            Err(err) => {
                tracing::debug!(%container, "a container can't be looked at: {}", causes(&err));
                return None;
            }
        };
        let named = container.to_owned();
        let seen = tokio::task::spawn_blocking(move || nodes::seen(first, &named)).await.ok()?;
        match seen {
            Ok(seen) => return Some(seen),
            Err(Blind::Nowhere) => {
                // If it still runs, its processes are out of sight.
                let is_there =
                    self.runtime.first_process(&id).await.is_ok_and(|pid| pid == Some(first));
                if is_there {
                    self.tell(
                        "its processes are out of the node's sight, in another PID namespace",
                    );
                }
            }
            Err(Blind::Denied) => {
                self.tell(
                    "the node's user may not look at its processes (root or CAP_SYS_PTRACE may)",
                );
            }
            Err(Blind::Failed(why)) => self.tell(&why),
        }
        None
    }

    fn tell(&self, why: &str) {
        if !self.is_told.swap(true, Relaxed) {
            tracing::warn!("which GPUs a container has is not checked from outside: {why}");
        }
    }
}

/// Stops a job whose container has other cards than the job was given.
pub(super) async fn stop_misplaced(board: &Board, tenant: &Tenancy, why: &str) {
    let id = &tenant.job;
    if timeout(STOP_ASKED, board.stop(id, StopCause::GpuFailed)).await == Ok(Some(true)) {
        tracing::warn!(job.id = %id, "job {id} is stopped: its container has wrong GPUs: {why}");
        // Whatever mixed them up may do so again: they are tried before the next job gets them.
        board.no_driver(&tenant.cards, why);
    }
}
