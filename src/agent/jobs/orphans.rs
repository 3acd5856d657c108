//! Periodically removes containers of this node that none of its jobs needs any more.
//!
//! Invariants: no container is removed that a task is about to start, or that belongs to an open
//! job. Only this node's containers are listed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::effects::Effects;
use super::hand::Jobs;
use crate::clock::Clock;
use crate::container::{ContainerId, Found};
use crate::job::phase::Phase;
use crate::journal;
use crate::report::causes;
use crate::supervise::Failure;

/// Interval between two sweeps.
pub const EVERY: Duration = Duration::from_mins(3);

/// A younger container may be one that a job is just being started with.
const AFTER: Duration = Duration::from_mins(1);

/// A container without a job is a probe's, which may hang as long as a start may.
const PROBE_AFTER: Duration = Duration::from_mins(10);

/// How many are removed in one sweep; the rest wait for the next.
const AT_ONCE_MAX: usize = 64;

/// Removes orphans as long as the node runs. A service: returns only when it fails.
pub async fn run<E: Effects, C: Clock + Clone>(jobs: Arc<Jobs<E, C>>) -> Result<(), Failure> {
    let mut told = HashSet::new();
    loop {
        jobs.desk.clock.sleep(EVERY).await;
        let failed = |err: journal::Error| Failure::Again(err.into());
        sweep(&jobs, &mut told).await.map_err(failed)?;
    }
}

/// One sweep. `told`: containers whose failed removal has been logged.
async fn sweep<E: Effects, C: Clock>(
    jobs: &Jobs<E, C>,
    told: &mut HashSet<ContainerId>,
) -> Result<(), journal::Error> {
    let (desk, effects) = (&jobs.desk, jobs.effects.as_ref());
    // Containers first, then the journal: a job is journaled before its container is created.
    // Other parts of the agent report an engine that is away.
    let Ok(found) = effects.containers().await else { return Ok(()) };
    told.retain(|id| found.iter().any(|container| container.id == *id));
    let mut orphans = 0;
    for container in found {
        if orphans < AT_ONCE_MAX && is_old(&container, desk) && is_orphan(&container, desk).await? {
            orphans += 1;
            remove(effects, &container, told).await;
        }
    }
    Ok(())
}

/// Removes a container that belongs to no open job, unless it is too young to be sure.
pub(in crate::agent) async fn remove_old<E: Effects, C: Clock>(
    effects: &E,
    container: &Found,
    desk: &Desk<C>,
) {
    if desk.clock.now().since(container.created_at) >= AFTER {
        remove(effects, container, &mut HashSet::new()).await;
    }
}

fn is_old<C: Clock>(container: &Found, desk: &Desk<C>) -> bool {
    let after = if container.job_id.is_some() { AFTER } else { PROBE_AFTER };
    desk.clock.now().since(container.created_at) >= after
}

/// Whether no open job needs it. A job that was given back has no container: one that exists anyway
/// was created for its present or an earlier attempt, and is not needed.
async fn is_orphan<C: Clock>(container: &Found, desk: &Desk<C>) -> Result<bool, journal::Error> {
    let Some(id) = &container.job_id else { return Ok(true) };
    let known = desk.journal.lookup(id).await?;
    let is_needed = known.filter(|known| known.open).is_some_and(|known| {
        let is_given_back =
            |job: &crate::job::Job| job.phase == Phase::Waiting && container.attempt <= job.attempt;
        !known.job.as_ref().is_some_and(is_given_back)
    });
    Ok(!is_needed && !desk.board.has(id))
}

async fn remove<E: Effects>(effects: &E, container: &Found, told: &mut HashSet<ContainerId>) {
    let id = &container.id;
    match effects.discard(container).await {
        Ok(()) => tracing::info!(container = %id, "removed container {id}, which no open job owns"),
        Err(err) if told.insert(id.clone()) => {
            tracing::warn!(container = %id, "orphan {id} stays: {}", causes(&err));
        }
        Err(_) => {}
    }
}
