//! Keeps and publishes what the monitor says of jobs, and tells it what the journal knows of them.
//!
//! Invariants: batches are journaled before they are published, and published in order; live messages are lost rather
//! than delay anything; nothing here holds a job up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc};

use super::act::{Act, Watcher};
use super::beat;
use super::events::Events;
use super::jobs::hand::Jobs;
use super::link::Link;
use crate::backoff::Backoff;
use crate::bus::{self, MessageIds, MetricsTopic};
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Found};
use crate::fleet::kinds;
use crate::host::cgroup;
use crate::ids::Address;
use crate::journal::{self, Journal};
use crate::report::causes;
use crate::supervise::{Failure, Services};
use crate::usage::Profile;
use crate::usage::watch::{Attempt, Said, Watch};

/// What the jobs' tasks have told and nobody has passed on yet.
const ASKED_MAX: usize = 1024;
/// Retry interval while NATS is away.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// Tries with the journal before something is given up.
const TRIES_MAX: u32 = 4;
/// Live messages that wait for NATS; more are lost.
const LIVE_MAX: usize = 256;
/// Failures on a connection after which the owner is told.
const TRIES_UNTOLD: u32 = 3;
/// Time between two sweeps of control groups that were left.
const SWEEP: Duration = Duration::from_mins(10);
/// Most groups that are looked at in one sweep.
const GROUPS_MAX: usize = 4_096;

/// The two ends of the way to and from the monitor.
#[derive(Debug)]
pub struct MonitorLink {
    /// What the monitor is told.
    pub watches: mpsc::Sender<Watch>,
    /// What it says.
    pub said: mpsc::Receiver<Said>,
    /// Where live figures are published.
    pub topic: MetricsTopic,
    /// How jobs are watched that ask for nothing.
    pub profile: Profile,
    /// Time between two of the node's own beats.
    pub beat: Duration,
}

/// The way from the jobs' tasks to the monitor and back, before its services start.
#[derive(Debug)]
pub(super) struct Way {
    link: MonitorLink,
    tell: mpsc::Sender<Watch>,
    asked: mpsc::Receiver<Watch>,
}

impl Way {
    /// Begins the way.
    pub(super) fn new(link: MonitorLink) -> Self {
        let (tell, asked) = mpsc::channel(ASKED_MAX);
        Self { link, tell, asked }
    }

    /// The end that the jobs' tasks have.
    pub(super) fn watcher(&self) -> Watcher {
        Watcher { tell: self.tell.clone(), profile: self.link.profile }
    }
}

/// Starts the services that keep what jobs use.
pub(super) fn serve<R, C>(
    services: &mut Services,
    retry: Backoff,
    way: Way,
    jobs: &Jobs<Act<R, C>, C>,
    link: &Link,
) where
    R: ContainerRuntime,
    C: Clock + Clone,
{
    let (desk, node) = (&jobs.desk, jobs.node);
    let (live, lively) = mpsc::channel(LIVE_MAX);
    let keeper = Arc::new(Keeper {
        node,
        journal: desk.journal.clone(),
        events: desk.events.clone(),
        link: link.clone(),
        ids: jobs.effects.ids.clone(),
        topic: way.link.topic.clone(),
        clock: desk.clock.clone(),
        asked: Mutex::new(way.asked),
        watches: way.link.watches,
        said: Mutex::new(way.link.said),
        live,
        lively: Mutex::new(lively),
        more: Notify::new(),
    });
    services.spawn_with("watches", retry, Arc::clone(&keeper), Keeper::pass_on);
    services.spawn_with("usage", retry, Arc::clone(&keeper), Keeper::take);
    services.spawn_with("live figures", retry, Arc::clone(&keeper), Keeper::publish_live);
    services.spawn_with("usage batches", retry, keeper, Keeper::publish);
    let (beats, every) =
        ((link.clone(), way.link.topic.clone(), desk.clock.clone()), way.link.beat);
    services.spawn_with("beat", retry, beats, move |(link, topic, clock)| {
        beat::run(node, link, topic, every, clock)
    });
    let swept = (Arc::clone(&jobs.effects.runtime), desk.clock.clone());
    services.spawn_with("control groups", retry, swept, move |(runtime, clock)| {
        sweep_groups(node, runtime, clock)
    });
}

/// The services that keep what jobs use.
#[derive(Debug)]
struct Keeper<C> {
    node: Address,
    journal: Journal,
    events: Events,
    link: Link,
    ids: MessageIds,
    topic: MetricsTopic,
    clock: C,
    /// What the jobs' tasks tell, on its way to the monitor.
    asked: Mutex<mpsc::Receiver<Watch>>,
    watches: mpsc::Sender<Watch>,
    said: Mutex<mpsc::Receiver<Said>>,
    live: mpsc::Sender<Vec<u8>>,
    lively: Mutex<mpsc::Receiver<Vec<u8>>>,
    more: Notify,
}

impl<C: Clock> Keeper<C> {
    /// Passes on what is told of jobs, with what an earlier process of the node saw of them. A service.
    async fn pass_on(self: Arc<Self>) -> Result<(), Failure> {
        let mut asked = self.asked.lock().await;
        while let Some(mut watch) = asked.recv().await {
            if let Watch::Started(running) = &mut watch
                && !running.is_new
            {
                let mut failures = 0;
                running.so_far = loop {
                    match self.journal.usage_so_far(&running.attempt).await {
                        Ok(found) => break found,
                        // Without it the job's chain would begin anew, and nobody could follow it.
                        Err(err) if failures == TRIES_MAX => {
                            let err = causes(&err);
                            tracing::warn!("what a job used so far can't be read: {err}");
                            break None;
                        }
                        Err(_) => {
                            failures += 1;
                            self.clock.sleep(AGAIN.jittered(failures)).await;
                        }
                    }
                };
            }
            if self.watches.send(watch).await.is_err() {
                // The monitor has ended by a defect, which the log tells: nobody should wait for it.
                asked.close();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what the monitor says. A service.
    async fn take(self: Arc<Self>) -> Result<(), Failure> {
        let mut said = self.said.lock().await;
        while let Some(said) = said.recv().await {
            let said = match said {
                Said::Done(answer, usage) => {
                    answer.give(usage);
                    continue;
                }
                Said::Rested(answer) => {
                    answer.give(());
                    continue;
                }
                said => said,
            };
            let mut failures = 0;
            while let Err(err) = self.heed(&said).await {
                failures += 1;
                if failures == TRIES_MAX {
                    // Readers of its chain see the gap. It must not hold up what comes after it.
                    tracing::warn!("a part of what a job used is lost: {}", causes(&err));
                    break;
                }
                self.clock.sleep(AGAIN.jittered(failures)).await;
            }
        }
        Ok(())
    }

    async fn heed(&self, said: &Said) -> Result<(), journal::Error> {
        match said {
            Said::Done(..) | Said::Rested(_) => {}
            Said::Batch { attempt, so_far, body, is_public, keep } => {
                let (so_far, body) = ((**so_far).clone(), body.clone());
                self.journal.keep_usage(attempt, so_far, body, *is_public, *keep).await?;
                self.more.notify_one();
            }
            Said::Bucket(attempt, bucket) => {
                self.journal.keep_rollup(attempt, (**bucket).clone()).await?;
            }
            // By another task: NATS may be slow, and what must not be lost comes after it.
            Said::Message(_, body) => drop(self.live.try_send(body.clone())),
            Said::HeldIdle { attempt, cards, idle, has_process } => {
                let Attempt { job, .. } = attempt;
                let (cards, minutes) = (cards.len(), idle.as_secs() / 60);
                let why = if *has_process {
                    "its program does nothing on them"
                } else {
                    "no program uses them"
                };
                self.events.tell(
                    kinds::GPU_HELD_IDLE,
                    &format!("job {job} holds {cards} GPUs idle: {why}"),
                    |event| {
                        let event = event
                            .about(job)
                            .with("cards", cards as u64)
                            .with("idle_s", idle.as_secs());
                        // Cards are reserved when all that a job needs is here, so neither a pull nor the node can
                        // be to blame.
                        event.with("blame", "job").with("has_process", *has_process)
                    },
                );
                tracing::warn!(
                    job.id = %job, cards, minutes,
                    "job {job} holds {cards} GPUs idle for {minutes} minutes: {why}"
                );
            }
        }
        Ok(())
    }

    /// Publishes live messages, and drops those that NATS does not take at once. A service.
    async fn publish_live(self: Arc<Self>) -> Result<(), Failure> {
        let mut lively = self.lively.lock().await;
        while let Some(body) = lively.recv().await {
            if let Some(bus) = self.link.now()
                && let Err(err) = bus.publish_metrics(&self.topic, body.into()).await
            {
                tracing::debug!("live figures are lost: {}", causes(&err));
            }
        }
        Ok(())
    }

    /// Publishes the batches that wait in the journal. A service.
    async fn publish(self: Arc<Self>) -> Result<(), Failure> {
        let mut failures = 0;
        loop {
            // Registered before the look, so that a batch between the two is not missed.
            let more = self.more.notified();
            match self.publish_some().await {
                Ok(0) => more.await,
                Ok(_) => failures = 0,
                Err(Error::Bus(err)) => {
                    failures += 1;
                    // While NATS is away this is no news; on a connection it is.
                    if self.link.now().is_some() && failures > TRIES_UNTOLD {
                        let what = "may this account publish usage.<address>.*, and is there room for the stream USAGE?";
                        return Err(Failure::again(err, what));
                    }
                    tracing::debug!("what jobs use waits in the journal: {}", causes(&err));
                    self.clock.sleep(AGAIN.jittered(failures)).await;
                }
                Err(Error::Journal(err)) => return Err(Failure::again(err, "DATA_DIR")),
            }
        }
    }

    async fn publish_some(&self) -> Result<usize, Error> {
        let waiting = self.journal.waiting_usage().await?;
        for batch in &waiting {
            let bus = self.link.bus().await;
            let body = batch.body.clone().into();
            let (attempt, number) = (&batch.attempt, batch.number);
            match bus.publish_usage(&self.ids, self.node, attempt, number, body).await {
                // It will never be taken, and must not hold up the others: readers see the gap.
                Err(bus::Error::TooLarge { .. }) | Ok(()) => {}
                Err(err) => return Err(err.into()),
            }
            self.journal.usage_published(batch.id).await?;
        }
        Ok(waiting.len())
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the batches can't be read or marked")]
    Journal(#[from] journal::Error),
    #[error("a batch can't be published")]
    Bus(#[from] bus::Error),
}

/// Removes the control groups of containers that are gone, which a killed node left or may not remove itself. A
/// service.
async fn sweep_groups<R: ContainerRuntime, C: Clock>(
    node: Address,
    runtime: Arc<R>,
    clock: C,
) -> Result<(), Failure> {
    loop {
        if let Err(err) = sweep_once(node, &*runtime).await {
            tracing::warn!("control groups of ended jobs are left: {}", causes(&err));
        }
        clock.sleep(SWEEP).await;
    }
}

async fn sweep_once<R: ContainerRuntime>(
    node: Address,
    runtime: &R,
) -> Result<(), crate::container::Error> {
    let prefix = format!("lamda-{}-", &node.lower_hex()[2..10]);
    let Some(parent) = runtime.group_path("") else { return Ok(()) };
    let left = cgroup::below(&parent, GROUPS_MAX);
    let mut left: Vec<String> = left.into_iter().filter(|name| name.starts_with(&prefix)).collect();
    if left.is_empty() {
        return Ok(());
    }
    // Listed after the groups: a container has one only while it is listed.
    let found = runtime.list(node).await?;
    let named = |there: &Found| {
        let job = there.job_id.as_ref()?;
        Some(format!("{prefix}{job}-{}", there.attempt))
    };
    let there: Vec<String> = found.iter().filter_map(named).collect();
    left.retain(|name| !there.contains(name));
    left.retain(|name| runtime.group_path(name).is_some_and(|path| cgroup::remove(&path).is_err()));
    if left.is_empty() { Ok(()) } else { runtime.remove_groups(node, &left).await }
}
