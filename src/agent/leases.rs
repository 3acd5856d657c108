//! Tells the server that the jobs in hand are being worked on, so that it gives them to nobody
//! else; and notices where a pool's job may have been given to another agent all the same.
//!
//! What must hold: this runs beside everything else, so that no slow step lets a lease run out; a
//! dispatch job is never stopped because the bus is away; a pool's job whose lease could not be
//! renewed for 0.8 of its ack wait is stopped before the server gives it away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Desk;
use super::claims;
use super::effects::Effects;
use crate::bus::{self, AckHandle, Settle};
use crate::clock::Clock;
use crate::job::phase::StopCause;
use crate::job::{Job, JobId};
use crate::supervise::{Failure, chain};
use futures_util::stream::{self, StreamExt as _};

/// How often it is looked which leases are due.
const TICK: Duration = Duration::from_secs(1);

/// Leases that are renewed at the same time.
const AT_ONCE_MAX: usize = 32;

/// How long a job may take to answer that it stops: one whose container is starting stops after
/// that, and is not waited for here.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// A job in hand, as far as its lease goes. By the monotonic clock: a host's clock that is set must
/// neither end a lease nor prolong it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    /// When the server last said that it is ours, or when it was found at a start.
    confirmed: Duration,
    /// How much older it was by then.
    older_by: Duration,
    /// When it was last asked.
    asked: Option<Duration>,
}

/// What came of a renewal.
enum Renewal {
    /// It is ours.
    Ours,
    /// Another agent has the job.
    Lost,
    /// Nobody answered.
    Unanswered(bus::Error),
}

/// Renews every lease at a third of its ack wait; a service that ends only when it fails.
pub async fn run<E: Effects, C: Clock>(desk: Desk<C>, effects: Arc<E>) -> Result<(), Failure> {
    let mut leases: BTreeMap<JobId, Lease> = BTreeMap::new();
    let mut known = desk.journal.renewals().await.map_err(|err| Failure::Again(err.into()))?;
    loop {
        let held = desk.board.deliveries();
        leases.retain(|id, _| held.iter().any(|(job, _)| job == id));
        let now = desk.clock.monotonic();
        let mut due = Vec::new();
        for (id, delivery) in held {
            let lease = leases.entry(id.clone()).or_insert_with(|| {
                // What was renewed before a restart is as old as it is.
                let age = known.remove(&id).map(|at| desk.clock.now().since(at));
                // A delivery that has just come needs no renewal yet.
                let asked = age.is_none().then_some(now);
                Lease { confirmed: now, older_by: age.unwrap_or_default(), asked }
            });
            if lease.asked.is_none_or(|asked| now.saturating_sub(asked) >= delivery.ack_wait() / 3)
            {
                lease.asked = Some(now);
                due.push((id, delivery, *lease));
            }
        }
        let renewed = stream::iter(due).map(|(id, delivery, lease)| {
            let (desk, effects) = (&desk, effects.as_ref());
            async move { (renew(&id, &delivery, lease, effects, desk).await, id) }
        });
        let renewed: Vec<_> = renewed.buffer_unordered(AT_ONCE_MAX).collect().await;
        for (ours, id) in renewed {
            if let Some(lease) = leases.get_mut(&id).filter(|_| ours) {
                (lease.confirmed, lease.older_by) = (now, Duration::ZERO);
            }
        }
        desk.clock.sleep(TICK).await;
    }
}

/// Renews one lease, and stops its job where it is lost. Whether it is confirmed.
async fn renew<E: Effects, C: Clock>(
    id: &JobId,
    delivery: &AckHandle,
    lease: Lease,
    effects: &E,
    desk: &Desk<C>,
) -> bool {
    let Ok(Some(job)) =
        desk.journal.lookup(id).await.map(|known| known.and_then(|known| known.job))
    else {
        return false;
    };
    match ask(&job, delivery, effects, desk).await {
        Renewal::Ours => {
            if job.pool().is_some() {
                desk.journal.renewed(id, desk.clock.now()).await.ok();
            }
            true
        }
        Renewal::Lost => {
            tracing::warn!(job.id = %id, "job {id} went to another agent of its pool: it stops here");
            stop(desk, id).await;
            false
        }
        Renewal::Unanswered(err) => {
            tracing::debug!(job.id = %id, "the lease of job {id} was not renewed: {}", chain(&err));
            let age = desk.clock.monotonic().saturating_sub(lease.confirmed) + lease.older_by;
            if job.pool().is_some() && age >= delivery.ack_wait() * 4 / 5 {
                tracing::warn!(
                    job.id = %id,
                    "the lease of job {id} could not be renewed: it stops here, before its pool \
                     gives it to another agent"
                );
                stop(desk, id).await;
            }
            false
        }
    }
}

async fn ask<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    desk: &Desk<C>,
) -> Renewal {
    match effects.settle(delivery, Settle::Progress).await {
        // It is acknowledged already, or its stream was lost with it: nobody else is given it.
        Ok(()) | Err(bus::Error::StaleAck { .. }) => {}
        Err(err) => return Renewal::Unanswered(err),
    }
    match claims::is_lost(job, delivery, effects, &desk.clock).await {
        Ok(false) => Renewal::Ours,
        Ok(true) => Renewal::Lost,
        Err(err) => Renewal::Unanswered(err),
    }
}

async fn stop<C: Clock>(desk: &Desk<C>, id: &JobId) {
    tokio::select! {
        biased;
        _ = desk.board.stop(id, StopCause::LeaseLost) => {}
        () = desk.clock.sleep(STOP_ASKED) => {}
    }
}
