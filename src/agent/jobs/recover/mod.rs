//! Recovery: at the start compares the journal with the containers that exist; later looks for open
//! jobs that no task has in hand.
//!
//! Invariants: a running container of this node is taken back with its deadline and its cards; one
//! that exited is collected; one that is gone counts as lost. Containers and folders of this node
//! that belong to no open job are removed, and nothing of anybody else is touched. Jobs that hold a
//! slot or cards get them back before any other job is given some. Jobs that need no engine don't
//! wait for it, and no job waits for the container of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::desk::Desk;
use super::effects::Effects;
use super::hand::Jobs;
use super::orphans;
use crate::bus::AckHandle;
use crate::clock::Clock;
use crate::container::{Found, FoundState};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::{Event, Phase, Retry};
use crate::journal;
use crate::report::causes;
use crate::supervise::Failure;

/// Interval at which [`keep`] looks for jobs without a task.
pub const LOOK: Duration = Duration::from_secs(30);

/// Takes every open job back into hand. A service: repeated until the engine answers.
pub async fn run<E: Effects, C: Clock + Clone>(jobs: Arc<Jobs<E, C>>) -> Result<(), Failure> {
    let journal_failed = |err: journal::Error| Failure::Again(err.into());
    let (desk, effects) = (&jobs.desk, jobs.effects.as_ref());
    let open = desk.journal.open_jobs().await.map_err(journal_failed)?;
    let ids: Vec<JobId> = open.iter().map(|job| job.id().clone()).collect();
    // A job that was given back has no container. One that exists anyway was created by the engine
    // after the process that asked for it had died.
    let given_back: Vec<(JobId, u32)> = open
        .iter()
        .filter(|job| job.phase == Phase::Waiting)
        .map(|job| (job.id().clone(), job.attempt))
        .collect();
    // In a repeated round some jobs have their tasks already.
    let open: Vec<Job> =
        open.into_iter().filter(|job| !desk.board.is_looked_after(job.id())).collect();
    desk.board.occupied_by(&open, effects.disk_max_mib().await);
    // Slots and cards are assigned to their holders before any task can ask for some.
    open.iter().filter(|job| job.phase.holds().is_some()).for_each(|job| desk.board.hold(job));
    // Jobs that have run don't wait for an engine that is away: uploads and answers don't need it.
    let (unfinished, rest): (Vec<Job>, Vec<Job>) =
        open.into_iter().partition(|job| job.phase.wants_slot() || job.phase == Phase::Waiting);
    for job in rest {
        take_back(&jobs, job).await?;
    }
    let found = effects.containers().await.map_err(|err| {
        Failure::again(err, "is the Docker Engine running, and may this user use DOCKER_HOST?")
    })?;
    let mut containers: HashMap<(JobId, u32), Found> = HashMap::new();
    for container in found {
        let is_given_back = |id: &JobId| {
            given_back.iter().any(|(waits, last)| waits == id && container.attempt <= *last)
        };
        match container.job_id.clone().filter(|id| ids.contains(id) && !is_given_back(id)) {
            Some(id) => {
                containers.insert((id, container.attempt), container);
            }
            None => orphans::remove_old(effects, &container, desk).await,
        }
    }
    let kept = desk.journal.kept_ids().await.map_err(journal_failed)?;
    match effects.sweep(&[ids, kept].concat()).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "removed the folders of {count} jobs that are done"),
        Err(err) => tracing::warn!("old job folders can't be removed: {err}"),
    }
    // Running containers come first.
    let (running, waiting): (Vec<Job>, Vec<Job>) =
        unfinished.into_iter().partition(|job| may_have_a_process(&job.phase));
    for job in running {
        let container = containers.remove(&(job.id().clone(), job.attempt));
        adopt(&jobs, job, container).await?;
    }
    for job in waiting {
        take_back(&jobs, job).await?;
    }
    Ok(())
}

/// Looks every [`LOOK`] for open jobs that no task has in hand, and resumes them: jobs that were
/// journaled although the write returned an error, and jobs whose task ended by a defect. A
/// service: returns only when it fails. Until `recovered`, which an absent engine delays, it
/// resumes only jobs that have run and so need no engine.
///
/// A job that is just being taken in is journaled before it is in hand. So only a job whose
/// revision has not changed from one look to the next is resumed. If it has a task all the same,
/// the journal rejects the writes of the second task.
pub async fn keep<E: Effects, C: Clock + Clone>(
    jobs: Arc<Jobs<E, C>>,
    recovered: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    let board = &jobs.desk.board;
    let mut before: Vec<(JobId, u64)> = Vec::new();
    loop {
        jobs.desk.clock.sleep(LOOK).await;
        let mut left = jobs.desk.journal.in_hand().await.map_err(failed)?;
        left.retain(|(id, _)| !board.is_looked_after(id));
        let still: Vec<_> = left.iter().filter(|one| before.contains(one)).cloned().collect();
        before = left;
        if still.is_empty() || board.is_closed() {
            continue;
        }
        // While the engine is away, jobs that have not run wait for it; the others don't.
        let found = if *recovered.borrow() { jobs.effects.containers().await.ok() } else { None };
        take_up(&jobs, &still, found.as_deref()).await?;
    }
}

/// Resumes jobs that no task has in hand, if they are still at these revisions.
async fn take_up<E: Effects, C: Clock + Clone>(
    jobs: &Jobs<E, C>,
    left: &[(JobId, u64)],
    found: Option<&[Found]>,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    // Excludes everybody who moves waiting jobs.
    let _alone = jobs.waiting.lock().await;
    for (id, revision) in left {
        let known = jobs.desk.journal.lookup(id).await.map_err(failed)?;
        let Some(job) = known.and_then(|known| known.job) else { continue };
        let waits = job.phase == Phase::Waiting || job.phase.is_done();
        let needs_engine = found.is_none() && job.phase.wants_slot();
        let has_moved = job.revision != *revision || jobs.desk.board.is_looked_after(id);
        if waits || needs_engine || has_moved {
            continue;
        }
        tracing::warn!(job.id = %id, "nobody had job {id} in hand: it is taken up again");
        if may_have_a_process(&job.phase) {
            let same = |one: &&Found| one.job_id.as_ref() == Some(id) && one.attempt == job.attempt;
            let container = found.unwrap_or_default().iter().find(same).cloned();
            adopt(jobs, job, container).await?;
        } else {
            take_back(jobs, job).await?;
        }
    }
    Ok(())
}

/// Whether the state of its container decides how the job continues.
const fn may_have_a_process(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. })
}

/// Resumes a job without a process: it has not run yet, or has exited.
async fn take_back<E: Effects, C: Clock + Clone>(
    jobs: &Jobs<E, C>,
    job: Job,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    let delivery = delivery(&jobs.desk, &job).await.map_err(failed)?;
    let job = job.taken_up();
    let (id, phase) = (job.id(), job.phase.name());
    let fits = jobs.desk.board.still_admits(&job.spec);
    let job = match (&job.phase, fits) {
        // A pool's job that was given back is redelivered, unless another agent took it. Without a
        // queue that keeps the message there is no redelivery, and it goes on here.
        (Phase::Waiting, _) if job.pool().is_some() && delivery.is_some() => return Ok(()),
        (Phase::Waiting, _) => {
            let resumed = jobs.resume_waiting(id, delivery).await;
            return resumed.map_err(|err| Failure::Again(err.into()));
        }
        // The node lost hardware since it accepted the job, which would wait for ever.
        (Phase::Accepted | Phase::Pulled { .. } | Phase::Ready { .. }, Err(fault)) => {
            let event = Event::Failed { fault, retry: Retry::Never };
            jobs.desk.advance(&job, event).await.map_err(failed)?
        }
        // Inputs fetched before the host went down may be truncated.
        (Phase::Ready { .. } | Phase::Claiming { .. }, _) if !jobs.effects.remembers(&job) => {
            jobs.desk.advance(&job, Event::Doubted).await.map_err(failed)?
        }
        _ => {
            tracing::info!(job.id = %id, "going on with job {id}: {phase}");
            job
        }
    };
    jobs.start(job, delivery);
    Ok(())
}

/// Resumes a job that has or had a container. If its container can't be removed the job keeps what
/// it holds, and [`keep`] tries again: no other job waits for that.
async fn adopt<E: Effects, C: Clock + Clone>(
    jobs: &Jobs<E, C>,
    job: Job,
    container: Option<Found>,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    let delivery = delivery(&jobs.desk, &job).await.map_err(failed)?;
    let (id, phase) = (job.id(), job.phase.name());
    let starting = matches!(job.phase, Phase::Starting { .. });
    let never_ran = matches!(job.phase, Phase::Starting { container: None, .. });
    let state = container.as_ref().map(|found| found.state);
    let job = match state {
        None if !never_ran => {
            tracing::warn!(job.id = %id, "the container of job {id} is gone");
            jobs.desk.advance(&job, Event::Lost).await.map_err(failed)?
        }
        // The container's id is journaled before its start, but neither that nor the inputs are
        // synced: a host that went down since may have lost both.
        None | Some(FoundState::Created) if starting && !jobs.effects.remembers(&job) => {
            tracing::warn!(job.id = %id, "the host went down while job {id} was being started");
            jobs.desk.advance(&job, Event::Lost).await.map_err(failed)?
        }
        // Another agent may have been given a pool's job while this node was away.
        None | Some(FoundState::Created) if starting && job.pool().is_some() => {
            // It is bound to cards that another job may hold by the time this one is claimed again.
            let withdrawn = match &container {
                Some(found) => jobs.effects.withdraw(found).await,
                None => Ok(true),
            };
            match withdrawn {
                Ok(true) => jobs.desk.advance(&job, Event::Doubted).await.map_err(failed)?,
                // The engine has carried out the start that the previous process asked for.
                Ok(false) => job,
                Err(err) => {
                    tracing::warn!(job.id = %id, "job {id} waits for its container: {}", causes(&err));
                    return Ok(());
                }
            }
        }
        _ => {
            tracing::info!(job.id = %id, ?state, "took job {id} back: {phase}");
            job
        }
    };
    jobs.start(job, delivery);
    Ok(())
}

async fn delivery<C>(desk: &Desk<C>, job: &Job) -> Result<Option<AckHandle>, journal::Error> {
    let known = desk.journal.lookup(job.id()).await?;
    let delivery = known.and_then(|known| known.delivery);
    Ok(delivery.and_then(|delivery| serde_json::from_str(&delivery).ok()))
}

#[cfg(test)]
mod tests;
