//! Tells the monitor which containers run, and takes from it what they used.
//!
//! Invariant: the start of a job waits for nothing here; its end waits for its place at most [`LATE`] and for its figures
//! at most [`WAIT`].

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Act;
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::Run;
use crate::job::spec::NetworkNeed;
use crate::usage::Unknown;
use crate::usage::batch::MarkKind;
use crate::usage::figures::Usage;
use crate::usage::profile::Profile;
use crate::usage::watch::{Answer, Attempt, Place, RunningJob, Watch};

/// How long the end of a job waits for its figures; without them they are unknown.
const WAIT: Duration = Duration::from_secs(2);

/// How long the engine may take to say where a container is counted.
const ENGINE: Duration = Duration::from_secs(5);

/// How long an ended container's place is waited for.
const LATE: Duration = Duration::from_secs(1);

/// How long a stop of the node waits until what was sampled is journaled.
const REST: Duration = Duration::from_secs(2);

/// The way to the monitor.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    /// What the monitor is told.
    pub tell: mpsc::Sender<Watch>,
    /// How jobs are watched that ask for nothing (`MONITORING_PROFILE`).
    pub profile: Profile,
}

impl Watcher {
    /// Has this be stamped into what is known of a job; lost if the monitor has too much to do.
    pub(crate) fn mark(&self, job: JobId, kind: MarkKind) {
        self.tell.try_send(Watch::Marked(job, kind)).ok();
    }

    /// Has all that was sampled told and journaled, within [`REST`]: what runs is left to the node's next start.
    pub(crate) async fn rest(&self) {
        let (tell, told) = oneshot::channel();
        let answer = Answer::new(move |()| {
            tell.send(()).ok();
        });
        let rests = async {
            if self.tell.send(Watch::Rest(answer)).await.is_ok() {
                told.await.ok();
            }
        };
        if timeout(REST, rests).await.is_err() {
            tracing::warn!("what was sampled of running jobs last is not told in time");
        }
    }

    /// How closely this job is watched.
    fn profile_of(&self, job: &Job) -> Profile {
        job.spec.needs.monitoring.unwrap_or(self.profile)
    }
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    /// Does this, and tells the monitor of the run meanwhile. A container that is gone before the engine has said where
    /// it is counted is waited for a moment only.
    pub(super) async fn watched<T>(
        &self,
        job: &Job,
        run: &Run,
        work: impl Future<Output = T>,
    ) -> T {
        let (mut work, mut watch) = (std::pin::pin!(work), std::pin::pin!(self.watch(job, run)));
        let done = tokio::select! {
            done = &mut work => done,
            () = &mut watch => return work.await,
        };
        timeout(LATE, watch).await.ok();
        done
    }

    /// Tells the monitor that this run's container is there. It may have ended already.
    async fn watch(&self, job: &Job, run: &Run) {
        let Some(watcher) = &self.watcher else { return };
        let profile = watcher.profile_of(job);
        if !profile.enabled {
            return;
        }
        let place = self.place(&ContainerId(run.container.clone())).await;
        let key = (job.id().clone(), job.attempt);
        let running = RunningJob {
            attempt: attempt(job),
            place,
            has_network: job.spec.needs.network != NetworkNeed::None,
            cards: run.gpus.clone(),
            memory_bytes: self.base.terms.memory_bytes(&job.spec),
            profile,
            is_new: self.memory.fresh().remove(&key),
            age: self.clock.now().since(run.started_at),
            so_far: None,
        };
        watcher.tell.try_send(Watch::Started(Box::new(running))).ok();
    }

    /// Where the container is counted; asked twice, since it is the place for the whole of its life.
    async fn place(&self, id: &ContainerId) -> Result<Place, Unknown> {
        let ask = || timeout(ENGINE, self.runtime.group(id));
        match ask().await {
            Ok(place @ (Ok(_) | Err(Unknown::NotSupported | Unknown::Gone))) => place,
            _ => ask().await.unwrap_or(Err(Unknown::Failed)),
        }
    }

    /// What this job's run used; `None` if the monitor does not say so in time. `oom`: whether the kernel ended a
    /// process of it for lack of memory.
    pub(super) async fn used(&self, job: &Job, oom: bool) -> Option<Usage> {
        let watcher = self.watcher.as_ref()?;
        if oom {
            watcher.mark(job.id().clone(), MarkKind::Oom);
        }
        let (tell, told) = oneshot::channel();
        // The end of the job may no longer wait for it.
        let answer = Answer::new(move |usage| {
            tell.send(usage).ok();
        });
        watcher.tell.try_send(Watch::Exited { attempt: attempt(job), answer }).ok()?;
        timeout(WAIT, told).await.ok()?.ok()
    }

    /// Tells the monitor that this attempt's container is gone, whatever was told of its end.
    pub(super) fn unwatch(&self, job: &Job, number: u32) {
        if let Some(watcher) = &self.watcher {
            let attempt = Attempt { job: job.id().clone(), number };
            watcher.tell.try_send(Watch::Lost(attempt)).ok();
        }
    }

    /// Removes the control group of a container that is gone. What can't be removed now is swept later.
    pub(super) fn remove_group(&self, name: &str) {
        if let Some(path) = self.runtime.group_path(name)
            && let Err(err) = crate::host::cgroup::remove(&path)
        {
            tracing::debug!("the control group {path} is left for later: {err}");
        }
    }
}

fn attempt(job: &Job) -> Attempt {
    Attempt { job: job.id().clone(), number: job.attempt }
}
