//! Renews the leases of the jobs in hand, so that the server delivers them to nobody else, and
//! detects when a pool's job may have gone to another agent anyway.
//!
//! Invariants: renewal runs concurrently with everything else and never waits for the journal, so
//! that no slow step lets a lease expire. A claim is checked before its lease is renewed, so that
//! no agent renews another's lease. A dispatch job is never stopped because the bus is away. A
//! pool's job whose lease could not be renewed for 0.8 of its ack wait is stopped before the server
//! redelivers it, unless the server itself reports that `JetStream` has no leader: then it can't
//! deliver the job to anybody else either.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use futures_util::stream::{self, StreamExt as _};

use super::board::InHand;
use super::desk::Desk;
use super::effects::Effects;
use super::pool_claim;
use crate::bus::{self, AckHandle, Settle};
use crate::clock::{Clock, Timestamp};
use crate::ids::JobId;
use crate::job::phase::StopCause;
use crate::report::causes;
use crate::supervise::Failure;

/// Delay before an unanswered renewal is repeated; no lease is renewed more often.
const TICK: Duration = Duration::from_secs(1);

/// Bounds one renewal's wait: even an overdue lease gets `ASK_MIN`, and none more than `ASK_MAX`.
const ASK_MIN: Duration = Duration::from_secs(2);
const ASK_MAX: Duration = Duration::from_secs(10);

/// How many leases are renewed concurrently.
const AT_ONCE_MAX: usize = 256;

/// How long to wait for a job to confirm a stop request: a job whose container is starting answers
/// only once that is done, and must not delay the other leases.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// How long a consumer's ack wait is trusted before a renewal reads it again. A lease in doubt has
/// it read at once.
const ACK_WAIT_KNOWN_FOR: Duration = Duration::from_secs(10);

/// How long a pool's job may run without a confirmed renewal; the rest of its ack wait is the time
/// to stop it.
pub(super) fn unconfirmed_max(ack_wait: Duration) -> Duration {
    ack_wait * 4 / 5
}

/// The lease of a job in hand. Times are monotonic: setting the host's clock must neither end nor
/// extend a lease.
#[derive(Debug, Clone, Copy)]
struct Lease {
    /// When the server last confirmed it, or when this process first saw it.
    confirmed: Duration,
    /// How old it was already at `confirmed`: nonzero only for a lease from before a restart.
    older_by: Duration,
    /// When a renewal was last tried.
    asked: Option<Duration>,
    /// Whether that renewal got no answer.
    unanswered: bool,
    /// The value of [`InHand::doubts`] at that renewal.
    doubts: u64,
    /// Whether that renewal found it lost, which has been logged.
    given_up: bool,
}

impl Lease {
    /// Time until the next renewal: a third of the ack wait after the last one. Only one `TICK` if
    /// the last one got no answer, so that the moment to stop is not missed; if the lease was
    /// doubted since; or if it was given up and its job has not stopped yet, since a stop request
    /// that came while a container was being started may have been dropped.
    fn due_in(&self, job: &InHand, now: Duration) -> Duration {
        let Some(asked) = self.asked else { return Duration::ZERO };
        let must_stop = self.given_up && job.can_stop;
        let soon = self.unanswered || must_stop || self.doubts != job.doubts;
        let every = if soon { TICK } else { job.delivery.ack_wait() / 3 };
        every.saturating_sub(now.saturating_sub(asked))
    }

    /// Time since the lease was last confirmed.
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.confirmed) + self.older_by
    }
}

/// The state of the renewal loop.
#[derive(Debug, Default)]
struct Leases {
    all: BTreeMap<JobId, Lease>,
    /// When the leases from before this start were last confirmed, by the wall clock.
    known: BTreeMap<JobId, Timestamp>,
    /// When the ack wait of each consumer was last read.
    waits_read: BTreeMap<String, Duration>,
}

/// The work of one pass over the leases.
#[derive(Debug, Default)]
struct Pass {
    due: Vec<(InHand, Lease)>,
    /// One delivery per consumer whose ack wait must be read.
    waits: Vec<AckHandle>,
    /// Time until the next lease is due, of those that are not due in this pass.
    next: Option<Duration>,
}

impl Leases {
    /// Updates the leases from `in_hand`, which must be sorted by id, and returns what is due.
    fn pass(&mut self, in_hand: Vec<InHand>, now: Duration, at: Timestamp) -> Pass {
        self.all.retain(|id, _| in_hand.binary_search_by(|job| job.id.cmp(id)).is_ok());
        let mut pass = Pass::default();
        let mut consumers = BTreeSet::new();
        for job in in_hand {
            let is_new = !self.all.contains_key(&job.id);
            let known = &mut self.known;
            let lease = self.all.entry(job.id.clone()).or_insert_with(|| {
                // A restart does not make a lease younger.
                let age = known.remove(&job.id).map(|confirmed| at.since(confirmed));
                // A new delivery needs no renewal yet.
                let asked = age.is_none().then_some(now);
                let older_by = age.unwrap_or_default();
                let doubts = job.doubts;
                let (unanswered, given_up) = (false, false);
                Lease { confirmed: now, older_by, asked, unanswered, doubts, given_up }
            });
            let is_due = lease.due_in(&job, now).is_zero();
            let doubted = lease.doubts != job.doubts;
            // At most one read per consumer and pass.
            if (is_due || is_new) && !consumers.contains(&job.delivery.consumer) {
                let read = self.waits_read.get(&job.delivery.consumer);
                let is_fresh = |read: &Duration| now.saturating_sub(*read) < ACK_WAIT_KNOWN_FOR;
                if doubted || !read.is_some_and(is_fresh) {
                    consumers.insert(job.delivery.consumer.clone());
                    self.waits_read.insert(job.delivery.consumer.clone(), now);
                    pass.waits.push(job.delivery.clone());
                }
            }
            if is_due {
                (lease.asked, lease.doubts) = (Some(now), job.doubts);
                pass.due.push((job, *lease));
            } else {
                let due_in = lease.due_in(&job, now);
                pass.next = Some(pass.next.map_or(due_in, |next| next.min(due_in)));
            }
        }
        // If nobody answers, the pools' jobs must be judged before their leases expire: they go
        // first, the oldest lease before the others.
        let urgency =
            |(job, lease): &(InHand, Lease)| (job.pool.is_none(), Reverse(lease.age(now)));
        pass.due.sort_by_key(urgency);
        pass
    }

    /// Records the result of a renewal that was started at `asked`.
    fn stands(&mut self, id: &JobId, standing: Standing, asked: Duration) {
        let Some(lease) = self.all.get_mut(id) else { return };
        lease.unanswered = standing == Standing::Unknown;
        lease.given_up = standing == Standing::GivenUp;
        if standing == Standing::Confirmed {
            (lease.confirmed, lease.older_by) = (asked, Duration::ZERO);
        }
    }
}

/// The state of a lease after an attempt to renew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// This node holds it.
    Confirmed,
    /// No answer, but no reason yet to give it up.
    Unknown,
    /// It is lost or expired: its job must stop.
    GivenUp,
}

/// The answer to a renewal.
enum Renewal {
    /// This node still holds the lease.
    Ours,
    /// Another agent has the job.
    Lost,
    /// The server did not answer, or refused.
    Unanswered(bus::Error),
}

/// Confirmed leases for the journal. A separate task writes them, since renewals must not wait.
#[derive(Debug, Default)]
struct Confirmed {
    jobs: Mutex<BTreeMap<JobId, Timestamp>>,
    some: Notify,
}

impl Confirmed {
    fn jobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, Timestamp>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: &JobId, at: Timestamp) {
        self.jobs().insert(id.clone(), at);
        self.some.notify_one();
    }

    /// Journals confirmations, so that the next start knows how old its leases are.
    async fn write_down<C>(&self, desk: &Desk<C>) {
        loop {
            self.some.notified().await;
            let jobs = std::mem::take(&mut *self.jobs());
            if let Err(err) = desk.journal.renewed(jobs).await {
                tracing::debug!("renewals were not written down: {}", causes(&err));
            }
        }
    }
}

/// Renews every lease at a third of its ack wait. A service: returns only when it fails.
pub async fn run<E: Effects, C: Clock>(desk: Desk<C>, effects: Arc<E>) -> Result<(), Failure> {
    let known = desk.journal.renewals().await.map_err(|err| Failure::Again(err.into()))?;
    let confirmed = Confirmed::default();
    tokio::select! {
        () = confirmed.write_down(&desk) => {}
        () = renew_all(known, &confirmed, effects.as_ref(), &desk) => {}
    }
    Ok(())
}

async fn renew_all<E: Effects, C: Clock>(
    known: BTreeMap<JobId, Timestamp>,
    confirmed: &Confirmed,
    effects: &E,
    desk: &Desk<C>,
) {
    let mut leases = Leases { known, ..Leases::default() };
    loop {
        let seen = desk.board.stirred();
        let now = desk.clock.monotonic();
        let pass = leases.pass(desk.board.in_hand(), now, desk.clock.now());
        let any_due = !pass.due.is_empty();
        let renewed = stream::iter(pass.due).map(|(job, lease)| async move {
            let standing = renew(&job, lease, effects, desk).await;
            if standing == Standing::Confirmed && job.pool.is_some() {
                confirmed.add(&job.id, desk.clock.now());
            }
            (job.id, standing)
        });
        let renewed = renewed.buffer_unordered(AT_ONCE_MAX).collect::<Vec<_>>();
        let ((), renewed) = tokio::join!(read_waits(pass.waits, effects, desk), renewed);
        for (id, standing) in renewed {
            leases.stands(&id, standing, now);
        }
        // The next pass computes when a lease that was just renewed is due again.
        let next = if any_due { Some(TICK) } else { pass.next.map(|next| next.max(TICK)) };
        tokio::select! {
            biased;
            () = desk.board.stirred_more_than(seen) => {}
            () = desk.clock.sleep(next.unwrap_or_default()), if next.is_some() => {}
        }
    }
}

/// Reads the ack waits of these deliveries' consumers: an administrator may have changed them.
async fn read_waits<E: Effects, C: Clock>(waits: Vec<AckHandle>, effects: &E, desk: &Desk<C>) {
    for delivery in waits {
        let read = tokio::select! {
            biased;
            read = effects.ack_wait(&delivery) => read,
            () = desk.clock.sleep(ASK_MIN) => return,
        };
        match read {
            Ok(ack_wait) => desk.board.ack_wait_is(&delivery.consumer, ack_wait),
            Err(err) => tracing::debug!("an ack wait was not read: {}", causes(&err)),
        }
    }
}

/// Renews one lease, and stops its job if the lease is lost.
async fn renew<E: Effects, C: Clock>(
    job: &InHand,
    lease: Lease,
    effects: &E,
    desk: &Desk<C>,
) -> Standing {
    let id = &job.id;
    let unconfirmed_max = unconfirmed_max(job.delivery.ack_wait());
    let left = unconfirmed_max.saturating_sub(lease.age(desk.clock.monotonic()));
    let is_pools = job.pool.is_some();
    let renewal = tokio::select! {
        biased;
        renewal = ask(job, lease.unanswered, effects, desk) => renewal,
        // A silent or absent server must delay neither the stop of this job nor other renewals.
        () = desk.clock.sleep(if is_pools { left.clamp(ASK_MIN, ASK_MAX) } else { ASK_MAX }) => {
            Renewal::Unanswered(bus::Error::Timeout { what: "renew a lease" })
        }
    };
    match renewal {
        Renewal::Ours => Standing::Confirmed,
        Renewal::Lost => {
            give_up(job, lease, "went to another agent of its pool", desk).await;
            Standing::GivenUp
        }
        Renewal::Unanswered(err) => {
            tracing::debug!(job.id = %id, "the lease of job {id} was not renewed: {}", causes(&err));
            let is_old = lease.age(desk.clock.monotonic()) >= unconfirmed_max;
            if is_pools && is_old && may_be_given_away(&err) {
                let why = "could not be renewed, and its pool may give it to another agent";
                give_up(job, lease, why, desk).await;
                return Standing::GivenUp;
            }
            Standing::Unknown
        }
    }
}

/// Stops a job that may be another agent's. A job whose container has exited continues: before its
/// terminal status it learns from the claim whose it is.
async fn give_up<C: Clock>(job: &InHand, lease: Lease, why: &str, desk: &Desk<C>) {
    let id = &job.id;
    if !lease.given_up {
        let so = if job.can_stop { "it stops here" } else { "its result may not count" };
        tracing::warn!(job.id = %id, "job {id} {why}: {so}");
    }
    if job.can_stop {
        stop(desk, id).await;
    }
}

/// Whether the queue may redeliver a job after this failure to renew its lease. It can't if the
/// server itself reports that there is no leader: then nothing is delivered, and the agent that is
/// given the job afterwards asks this one first. Silence may mean that only this node is cut off.
fn may_be_given_away(err: &bus::Error) -> bool {
    !err.is_leaderless()
}

/// Renews the claim, then the lease: an agent that lost the claim must not keep the job from the
/// agent that holds it.
async fn ask<E: Effects, C: Clock>(
    job: &InHand,
    was_away: bool,
    effects: &E,
    desk: &Desk<C>,
) -> Renewal {
    match pool_claim::renew(job, was_away, effects, desk).await {
        Ok(true) => {}
        Ok(false) => return Renewal::Lost,
        Err(err) => return Renewal::Unanswered(err),
    }
    match effects.settle(&job.delivery, Settle::Progress).await {
        // Acknowledged already, or lost with its stream: it can't be delivered to another agent.
        Ok(()) | Err(bus::Error::StaleAck { .. }) => Renewal::Ours,
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

#[cfg(test)]
mod tests;
