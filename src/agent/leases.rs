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

/// A lease that nobody answered for is asked for again after this long, and none sooner.
const TICK: Duration = Duration::from_secs(1);

/// A lease that is too old is asked for this long all the same, and no lease longer than that.
const ASK_MIN: Duration = Duration::from_secs(2);
const ASK_MAX: Duration = Duration::from_secs(10);

/// Leases that are renewed at the same time.
const AT_ONCE_MAX: usize = 32;

/// How long a job may take to answer that it stops: one whose container is starting stops after
/// that, and is not waited for here.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// How long a renewal may take to be noted.
const NOTE_MAX: Duration = Duration::from_secs(1);

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
    /// Whether nobody answered then.
    unanswered: bool,
    /// How long the server waits for a sign of life.
    ack_wait: Duration,
}

impl Lease {
    /// In how long it is to be renewed: at a third of its ack wait, and at the next tick where nobody
    /// answered the last time, so that the moment to stop is not slept through.
    fn due_in(&self, now: Duration) -> Duration {
        let Some(asked) = self.asked else { return Duration::ZERO };
        let every = if self.unanswered { TICK } else { self.ack_wait / 3 };
        every.saturating_sub(now.saturating_sub(asked))
    }

    /// Since when nobody has said that it is ours.
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.confirmed) + self.older_by
    }
}

/// How a lease stands once it was to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is ours.
    Confirmed,
    /// Nobody answered, and it is not old yet.
    Unknown,
    /// Its job is to stop.
    GivenUp,
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
        let seen = desk.board.taken();
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
                Lease {
                    confirmed: now,
                    older_by: age.unwrap_or_default(),
                    asked,
                    unanswered: false,
                    ack_wait: delivery.ack_wait(),
                }
            });
            if lease.due_in(now).is_zero() {
                lease.asked = Some(now);
                due.push((id, delivery, *lease));
            }
        }
        let renewed = stream::iter(due).map(|(id, delivery, lease)| {
            let (desk, effects) = (&desk, effects.as_ref());
            async move { (renew(&id, &delivery, lease, effects, desk).await, id) }
        });
        let renewed: Vec<_> = renewed.buffer_unordered(AT_ONCE_MAX).collect().await;
        for (standing, id) in renewed {
            let Some(lease) = leases.get_mut(&id) else { continue };
            lease.unanswered = standing == Standing::Unknown;
            if standing == Standing::Confirmed {
                (lease.confirmed, lease.older_by) = (now, Duration::ZERO);
            }
        }
        let now = desk.clock.monotonic();
        let next = leases.values().map(|lease| lease.due_in(now).max(TICK)).min();
        tokio::select! {
            biased;
            () = desk.board.taken_more_than(seen) => {}
            () = desk.clock.sleep(next.unwrap_or_default()), if next.is_some() => {}
        }
    }
}

/// Renews one lease, and stops its job where it is lost.
async fn renew<E: Effects, C: Clock>(
    id: &JobId,
    delivery: &AckHandle,
    lease: Lease,
    effects: &E,
    desk: &Desk<C>,
) -> Standing {
    let Ok(Some(job)) =
        desk.journal.lookup(id).await.map(|known| known.and_then(|known| known.job))
    else {
        return Standing::Unknown;
    };
    let unconfirmed_max = delivery.ack_wait() * 4 / 5;
    let left = unconfirmed_max.saturating_sub(lease.age(desk.clock.monotonic()));
    let is_pools = job.pool().is_some();
    let renewal = tokio::select! {
        biased;
        renewal = ask(&job, delivery, effects, desk) => renewal,
        // A server that is silent, or was never there, must hold up neither the end nor others.
        () = desk.clock.sleep(if is_pools { left.clamp(ASK_MIN, ASK_MAX) } else { ASK_MAX }) => {
            Renewal::Unanswered(bus::Error::Timeout { what: "renew a lease" })
        }
    };
    match renewal {
        Renewal::Ours => {
            if is_pools {
                note_renewal(id, desk).await;
            }
            Standing::Confirmed
        }
        Renewal::Lost => {
            tracing::warn!(job.id = %id, "job {id} went to another agent of its pool: it stops here");
            stop(desk, id).await;
            Standing::GivenUp
        }
        Renewal::Unanswered(err) => {
            tracing::debug!(job.id = %id, "the lease of job {id} was not renewed: {}", chain(&err));
            if is_pools && lease.age(desk.clock.monotonic()) >= unconfirmed_max {
                tracing::warn!(
                    job.id = %id,
                    "the lease of job {id} could not be renewed: it stops here, before its pool \
                     gives it to another agent"
                );
                stop(desk, id).await;
                return Standing::GivenUp;
            }
            Standing::Unknown
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

/// For the next start. A journal that is stuck must not hold up the other leases.
async fn note_renewal<C: Clock>(id: &JobId, desk: &Desk<C>) {
    tokio::select! {
        biased;
        _ = desk.journal.renewed(id, desk.clock.now()) => {}
        () = desk.clock.sleep(NOTE_MAX) => {}
    }
}

async fn stop<C: Clock>(desk: &Desk<C>, id: &JobId) {
    tokio::select! {
        biased;
        _ = desk.board.stop(id, StopCause::LeaseLost) => {}
        () = desk.clock.sleep(STOP_ASKED) => {}
    }
}
