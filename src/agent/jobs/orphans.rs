//! Containers of this node that no job of its own needs any more: removed, now and again.
//!
//! What must hold: none goes that a task is about to start, or that runs for a job that is open; what
//! is not this node's is not seen here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Desk;
use super::effects::Effects;
use super::intake::Intake;
use crate::clock::Clock;
use crate::container::{ContainerId, Found};
use crate::job::phase::Phase;
use crate::journal;
use crate::report::causes;
use crate::supervise::Failure;

/// How often it is looked for some.
pub const EVERY: Duration = Duration::from_mins(3);

/// A container that is younger may be another start's work in progress.
const AFTER: Duration = Duration::from_mins(1);

/// A container of no job is a probe's, which may hang for as long as a start may.
const PROBE_AFTER: Duration = Duration::from_mins(10);

/// Removed in one round: what is more waits for the next.
const AT_ONCE_MAX: usize = 64;

/// Removes them as long as the node runs. A service that ends only when it fails.
pub async fn run<E: Effects, C: Clock + Clone>(intake: Arc<Intake<E, C>>) -> Result<(), Failure> {
    let mut told = HashSet::new();
    loop {
        intake.desk.clock.sleep(EVERY).await;
        let failed = |err: journal::Error| Failure::Again(err.into());
        sweep(&intake, &mut told).await.map_err(failed)?;
    }
}

/// One round. `told`: what could not be removed, and was spoken of.
async fn sweep<E: Effects, C: Clock>(
    intake: &Intake<E, C>,
    told: &mut HashSet<ContainerId>,
) -> Result<(), journal::Error> {
    let (desk, effects) = (&intake.desk, intake.effects.as_ref());
    // First what is there, and then whose it is: a job is written down before its container is made.
    // An engine that is away is spoken of by others.
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

/// Removes one that is known to be nobody's, unless it is too young to tell.
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

/// Whether nothing that is open needs it. What was given back has no container: one that is there was
/// made for an attempt before.
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
