//! At the start: what the journal says is set against what is really there.
//!
//! What must hold: a container of ours that runs is taken back with its deadline and its cards; one
//! that exited is collected; one that is gone counts as lost; nothing of ours that belongs to no
//! open job stays, and nothing of anybody else is touched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Desk, Effects};
use super::folders::Folders;
use super::intake::Intake;
use crate::bus::AckHandle;
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Found};
use crate::job::phase::{Event, Phase, Retry};
use crate::job::{Job, JobId};
use crate::journal;
use crate::supervise::{Failure, chain};

/// A container that is younger may be another start's work in progress.
const ORPHAN_AFTER: Duration = Duration::from_mins(1);

/// Takes every open job back into hand. Run as a service: tried again until the engine answers.
pub async fn run<R: ContainerRuntime, E: Effects, C: Clock + Clone>(
    intake: Arc<Intake<E, C>>,
    runtime: Arc<R>,
    folders: Folders,
) -> Result<(), Failure> {
    let journal_failed = |err: journal::Error| Failure::Again(err.into());
    let desk = &intake.desk;
    let jobs = desk.journal.open_jobs().await.map_err(journal_failed)?;
    let found = runtime.list(intake.node).await.map_err(|err| {
        Failure::again(err, "is the Docker Engine running, and may this user use DOCKER_HOST?")
    })?;
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id().clone()).collect();
    let mut containers: HashMap<(JobId, u32), Found> = HashMap::new();
    for container in found {
        match container.job_id.clone().filter(|id| ids.contains(id)) {
            Some(id) => {
                containers.insert((id, container.attempt), container);
            }
            None => remove_orphan(runtime.as_ref(), &container, desk).await,
        }
    }
    match folders.sweep(&ids) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "removed the folders of {count} jobs that are done"),
        Err(err) => tracing::warn!("old job folders can't be removed: {err}"),
    }
    for job in jobs {
        let container = containers.remove(&(job.id().clone(), job.attempt));
        take_back(&intake, job, container).await.map_err(journal_failed)?;
    }
    Ok(())
}

async fn take_back<E: Effects, C: Clock + Clone>(
    intake: &Intake<E, C>,
    job: Job,
    container: Option<Found>,
) -> Result<(), journal::Error> {
    let desk = &intake.desk;
    let known = desk.journal.lookup(job.id()).await?;
    let delivery: Option<AckHandle> = known
        .and_then(|known| known.delivery)
        .and_then(|delivery| serde_json::from_str(&delivery).ok());
    let id = job.id();
    let fits = intake.terms.admit(&job.spec);
    let job = match (&job.phase, &container) {
        (Phase::Waiting, _) if job.target.starts_with("dispatch.") => {
            intake.resume_waiting(job, delivery).await;
            return Ok(());
        }
        // A pool's job was given back: it comes again if nobody else took it.
        (Phase::Waiting, _) => return Ok(()),
        (Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. }, None) => {
            tracing::warn!(job.id = %id, "the container of job {id} is gone");
            apply(desk, &job, Event::Lost).await?
        }
        // The node has lost hardware since it took the job, which would wait for ever.
        (Phase::Accepted | Phase::Pulled { .. } | Phase::Ready { .. }, _) if fits.is_err() => {
            let Err(fault) = fits else { return Ok(()) };
            apply(desk, &job, Event::Failed { fault, retry: Retry::Never }).await?
        }
        (phase, Some(found)) => {
            let state = found.state;
            tracing::info!(job.id = %id, ?state, "took job {id} back: {}", phase.name());
            job
        }
        (phase, None) => {
            tracing::info!(job.id = %id, "going on with job {id}: {}", phase.name());
            job
        }
    };
    intake.start(job, delivery);
    Ok(())
}

/// Writes down what follows from `event`; the job as it stands then.
async fn apply<C: Clock>(desk: &Desk<C>, job: &Job, event: Event) -> Result<Job, journal::Error> {
    let now = desk.clock.now();
    let Ok(moved) = job.apply(event.clone(), now, &desk.rules) else { return Ok(job.clone()) };
    desk.journal.record(&event, &moved, now).await?;
    desk.outbox.notify_one();
    Ok(moved.job)
}

async fn remove_orphan<R: ContainerRuntime, C: Clock>(
    runtime: &R,
    container: &Found,
    desk: &Desk<C>,
) {
    if desk.clock.now().since(container.created_at) < ORPHAN_AFTER {
        return;
    }
    let id = &container.id;
    match runtime.remove(id).await {
        Ok(()) => tracing::info!(container = %id, "removed container {id}, which no open job owns"),
        Err(err) => tracing::warn!(container = %id, "orphan {id} stays: {}", chain(&err)),
    }
}
