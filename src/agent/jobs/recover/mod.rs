//! At the start: what the journal says is set against what is really there. Later: whether somebody
//! has in hand what is open.
//!
//! What must hold: a container of ours that runs is taken back with its deadline and its cards; one
//! that exited is collected; one that is gone counts as lost; nothing of ours that belongs to no
//! open job stays, and nothing of anybody else is touched; whoever holds a slot or cards has them
//! before anybody is given some. What needs no engine does not wait for it, and no job for another's
//! container.

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

/// How often it is looked for open that nobody has in hand.
pub const LOOK: Duration = Duration::from_secs(30);

/// Takes every open job back into hand. Run as a service: tried again until the engine answers.
pub async fn run<E: Effects, C: Clock + Clone>(jobs: Arc<Jobs<E, C>>) -> Result<(), Failure> {
    let journal_failed = |err: journal::Error| Failure::Again(err.into());
    let (desk, effects) = (&jobs.desk, jobs.effects.as_ref());
    let open = desk.journal.open_jobs().await.map_err(journal_failed)?;
    let ids: Vec<JobId> = open.iter().map(|job| job.id().clone()).collect();
    // What was given back has no container: one that is there was made when its process was dead.
    let given_back: Vec<(JobId, u32)> = open
        .iter()
        .filter(|job| job.phase == Phase::Waiting)
        .map(|job| (job.id().clone(), job.attempt))
        .collect();
    // A second round, after the engine was away: what is in hand has its own task.
    let open: Vec<Job> =
        open.into_iter().filter(|job| !desk.board.is_looked_after(job.id())).collect();
    // Slots and cards are with whoever has them before any task can ask for some.
    open.iter().filter(|job| job.phase.holds().is_some()).for_each(|job| desk.board.hold(job));
    // Uploads and answers of what has run don't wait for an engine that is away.
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
        Ok(count) => tracing::info!(count, "removed the folders of {count} open that are done"),
        Err(err) => tracing::warn!("old job folders can't be removed: {err}"),
    }
    // What runs is looked after before anything else.
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

/// Looks every [`LOOK`] for open that the journal has open and that no task has in hand, and takes
/// them up again: what was written down though the answer was an error, and what a task left that
/// ended by a defect. A service that ends only when it fails. Before `recovered`, which an engine that
/// is away holds up, only what has run, and so needs none.
///
/// What jobs takes at this moment is written down before it is in hand: only what has not moved
/// from one look to the next counts, and a task that has it all the same finds that the journal takes
/// nothing of the second one.
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
        // An engine that is away says nothing of what may run: that waits, and the rest does not.
        let found = if *recovered.borrow() { jobs.effects.containers().await.ok() } else { None };
        take_up(&jobs, &still, found.as_deref()).await?;
    }
}

/// Takes up open that nobody has in hand, where they still stand at these revisions.
async fn take_up<E: Effects, C: Clock + Clone>(
    jobs: &Jobs<E, C>,
    left: &[(JobId, u64)],
    found: Option<&[Found]>,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    // Nobody moves a job that waits meanwhile.
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

/// Whether what is there decides how the job goes on.
const fn may_have_a_process(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. })
}

/// A job that has no process: not yet, or not any more.
async fn take_back<E: Effects, C: Clock + Clone>(
    jobs: &Jobs<E, C>,
    job: Job,
) -> Result<(), Failure> {
    let failed = |err: journal::Error| Failure::Again(err.into());
    let delivery = delivery(&jobs.desk, &job).await.map_err(failed)?;
    let job = job.taken_up();
    let (id, phase) = (job.id(), job.phase.name());
    let fits = jobs.terms.admit(&job.spec);
    let job = match (&job.phase, fits) {
        // A pool's job was given back: it comes again if nobody else took it. Without a queue that
        // keeps it, nobody else can.
        (Phase::Waiting, _) if job.pool().is_some() && delivery.is_some() => return Ok(()),
        (Phase::Waiting, _) => {
            let resumed = jobs.resume_waiting(id, delivery).await;
            return resumed.map_err(|err| Failure::Again(err.into()));
        }
        // The node has lost hardware since it took the job, which would wait for ever.
        (Phase::Accepted | Phase::Pulled { .. } | Phase::Ready { .. }, Err(fault)) => {
            let event = Event::Failed { fault, retry: Retry::Never };
            jobs.desk.advance(&job, event).await.map_err(failed)?
        }
        // What was fetched before the host went down may be cut short.
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

/// A job whose container is there, or was. One whose container can't be removed keeps what it holds
/// and is tried again by [`keep`]: no other job waits for that.
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
        // The container's id is written down before it is started, but not synced, and neither are
        // the inputs: a host that went down since may have forgotten both.
        None | Some(FoundState::Created) if starting && !jobs.effects.remembers(&job) => {
            tracing::warn!(job.id = %id, "the host went down while job {id} was being started");
            jobs.desk.advance(&job, Event::Lost).await.map_err(failed)?
        }
        // Another agent may have been given a pool's job while this node was away.
        None | Some(FoundState::Created) if starting && job.pool().is_some() => {
            // It is bound to cards that may be another's by the time it is claimed again.
            let withdrawn = match &container {
                Some(found) => jobs.effects.withdraw(found).await,
                None => Ok(true),
            };
            match withdrawn {
                Ok(true) => jobs.desk.advance(&job, Event::Doubted).await.map_err(failed)?,
                // What the process before this one asked for was carried out only now.
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
