//! Watches the GPUs: takes in their driver's events and samples them, writes each change of their health into
//! the journal, takes jobs off defective ones, and gives a card to the next job only once the previous one
//! has left it ([`crate::node::health`] and [`crate::node::tenancy`] decide).
//!
//! Invariants: every change gets into the journal, in order, however often a write fails; a job on a
//! defective card is asked to stop until it does; a driver that hangs holds up only this service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use super::containers::stop_misplaced;
use crate::agent::act::Watcher;
use crate::agent::events::Events;
use crate::agent::jobs::board::{Board, Left};
use crate::agent::jobs::desk::Desk;
use crate::clock::Clock;
use crate::fleet::kinds;
use crate::gpu::{Error, GpuProbe};
use crate::host;
use crate::ids::JobId;
use crate::job::phase::StopCause;
use crate::journal::{GpuReturn, Journal};
use crate::node::GpuUuid;
use crate::node::card::{CardEvent, Happened, Round, Sample};
use crate::node::health::{Change, State};
use crate::node::tenancy::{self, Tenant};
use crate::node::visible;
use crate::report::causes;
use crate::seldom::Seldom;
use crate::supervise::Failure;
use crate::usage::MarkKind;

/// Time between two samples while nothing happens.
const EVERY: Duration = Duration::from_secs(10);

/// Bounds of the time between two looks at a card that a job has left.
const LEFT_MIN: Duration = Duration::from_millis(50);
const LEFT_MAX: Duration = Duration::from_secs(1);

/// After this long a card goes to the next job, if the node does not see all processes on it.
const BLIND: Duration = Duration::from_mins(1);

/// Log lines a minute about errors that programs cause.
const PROGRAM_ERRORS: u32 = 10;

/// After this long the log says that a card is not free yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time limit for a job to confirm that it stops: one that is starting answers only after that.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// The latest round of samples and when it was taken, by the monotonic clock; `None` while the driver does not answer.
pub type Latest = watch::Sender<Option<(Duration, Round)>>;

/// The service that watches the GPUs.
#[derive(Debug)]
pub struct Cards<G, C> {
    gpu: Arc<G>,
    latest: Arc<Latest>,
    journal: Journal,
    board: Board,
    yields: bool,
    events: Events,
    watcher: Option<Watcher>,
    clock: C,
    program_errors: Seldom,
}

/// The processes of jobs on cards: card, process id, container.
type Users = BTreeSet<(GpuUuid, u32, String)>;

/// The last sample of each card that was taken while no job had it.
type Before = std::sync::Mutex<BTreeMap<GpuUuid, Sample>>;

impl<G: GpuProbe, C: Clock + Clone> Cards<G, C> {
    /// Watches the cards of this driver for this desk. `yields`: whether a card leaves the pool while a
    /// program of the host uses it (`GPU_YIELD`). Each round of samples is told to `latest`.
    pub(in crate::agent) fn new(
        gpu: Arc<G>,
        desk: &Desk<C>,
        yields: bool,
        watcher: Option<Watcher>,
        latest: Arc<Latest>,
    ) -> Self {
        let (journal, board, clock) =
            (desk.journal.clone(), desk.board.clone(), desk.clock.clone());
        let program_errors = Seldom::new(PROGRAM_ERRORS);
        let events = desk.events.clone();
        Self { gpu, latest, journal, board, yields, events, watcher, clock, program_errors }
    }

    /// Watches the cards as long as the node runs; a service that ends only when it fails.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        self.board.watch_cards();
        let before = Before::default();
        tokio::try_join!(
            self.write_changes(),
            self.listen(),
            self.sample_again_and_again(&before),
            self.free_what_is_left(&before),
        )?;
        Ok(())
    }

    /// A change that can't be written is written when this service is started again.
    async fn write_changes(&self) -> Result<(), Failure> {
        loop {
            let change = self.board.health_change().await;
            let written = self.journal.gpu_changed(&change, self.clock.now()).await;
            written.map_err(|err| Failure::again(err, "DATA_DIR"))?;
            self.board.health_written();
            log(&change);
            self.tell(&change);
            self.stop_jobs().await;
        }
    }

    fn tell(&self, change: &Change) {
        let (uuid, state) = (&change.card, change.now.state);
        let kind = match state {
            // Only its quarantines are forgotten.
            State::Healthy if change.from == State::Healthy => return,
            State::Healthy => kinds::GPU_HEALTHY,
            State::Suspect => kinds::GPU_SUSPECT,
            State::Quarantined => kinds::GPU_QUARANTINED,
            State::Probation => kinds::GPU_PROBATION,
            State::Retired => kinds::GPU_RETIRED,
        };
        // The reason may be in an engine's own words: those are for the log and for `lamda-node gpus`.
        self.events.tell(kind, &format!("the GPU {uuid} is {state}"), |event| {
            event.with("gpu", uuid.to_string()).with("from", change.from.name())
        });
    }

    /// Asks the jobs on defective cards to stop. One that is starting may miss it: it is asked again at the
    /// next sample.
    async fn stop_jobs(&self) {
        let stops = self.board.on_defective_cards().into_iter().map(|id| async move {
            let stop = self.board.stop(&id, StopCause::GpuFailed);
            if timeout(STOP_ASKED, stop).await == Ok(Some(true)) {
                tracing::warn!(job.id = %id, "job {id} is stopped: a GPU of it is defective");
            }
        });
        join_all(stops).await;
    }

    async fn listen(&self) -> Result<(), Failure> {
        let mut events = self.gpu.events();
        while let Some(happened) = events.recv().await {
            self.hear(&happened);
        }
        // A driver without events: samples tell the rest.
        std::future::pending().await
    }

    fn hear(&self, happened: &Happened) {
        self.mark(happened);
        let Some(words) = self.board.happened(happened) else { return };
        // A stranger's program can cause them at will.
        let Some(more) = self.program_errors.line() else { return };
        let holders = self.board.holders();
        let holder = happened.card.as_ref().and_then(|card| holders.get(card));
        if let Some((id, _)) = holder {
            tracing::info!(job.id = %id, "job {id} caused {words} on its GPU{more}");
        } else {
            tracing::info!("a program caused {words} on a GPU{more}");
        }
    }

    /// Has an error of a card be stamped into what is known of the job that has it.
    fn mark(&self, happened: &Happened) {
        let (Some(watcher), CardEvent::Xid(number)) = (&self.watcher, happened.event) else {
            return;
        };
        let holders = self.board.holders();
        let holder = happened.card.as_ref().and_then(|card| holders.get(card));
        if let Some((id, _)) = holder {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            watcher.mark(id.clone(), MarkKind::Xid { number, card: happened.card.clone() });
        }
    }

    async fn sample_again_and_again(&self, before: &Before) -> Result<(), Failure> {
        let mut is_told = false;
        let mut users = Users::new();
        loop {
            let sampled = self.gpu.sample().await;
            let latest = sampled.as_ref().ok().map(|it| (self.clock.monotonic(), it.clone()));
            self.latest.send_replace(latest);
            match sampled {
                Ok(round) => {
                    is_told = false;
                    self.look(&round, before);
                    users = self.stop_strays(&round, &users).await;
                    self.events.sampled(&round);
                    self.board.sampled(round, self.clock.monotonic());
                    self.stop_jobs().await;
                }
                // Whether the driver answers at all is the lookout's to judge.
                Err(err) if !is_told => {
                    is_told = true;
                    tracing::warn!("the GPUs are not watched: {}", causes(&err));
                }
                Err(_) => {}
            }
            self.clock.sleep(EVERY).await;
        }
    }

    /// Notes the cards that programs of the host use, and keeps the samples of cards without a job.
    fn look(&self, round: &Round, before: &Before) {
        let (holders, left) = (self.board.holders(), self.board.left());
        let mut in_use = BTreeMap::new();
        let mut kept = before.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (card, sample) in round.iter().filter_map(|(card, it)| Some((card, it.as_ref().ok()?)))
        {
            if !holders.contains_key(card) && !left.contains_key(card) {
                kept.insert(card.clone(), sample.clone());
            }
            let whose = |pid| whose(pid, &holders, left.get(card));
            if self.yields
                && let Some(why) = tenancy::foreign(sample, whose)
            {
                in_use.insert(card.clone(), why);
            }
        }
        self.board.in_foreign_use(in_use);
    }

    /// Stops the jobs whose containers use cards that they were not given, as the driver tells in two rounds: a
    /// process id may be another process's by the time it is looked up. Returns what this round told.
    async fn stop_strays(&self, round: &Round, before: &Users) -> Users {
        let mut groups: Vec<(&GpuUuid, u32, String)> = Vec::new();
        for (card, sample) in round {
            let processes = sample.as_ref().ok().and_then(|it| it.processes.as_ref().ok());
            for process in processes.into_iter().flatten() {
                groups.extend(host::cgroups_of(process.pid).map(|text| (card, process.pid, text)));
            }
        }
        let mut now = Users::new();
        for tenant in self.board.tenants() {
            let its = groups.iter().filter(|(.., text)| text.contains(&tenant.container));
            let its = its.map(|(card, pid, _)| ((*card).clone(), *pid, tenant.container.clone()));
            let its: Users = its.collect();
            let twice = its.intersection(before).map(|(card, ..)| card);
            if let Some(why) = visible::strays(&tenant.cards, twice) {
                stop_misplaced(&self.board, &tenant, &why).await;
            }
            now.extend(its);
        }
        now
    }

    /// Looks at the cards that jobs have left until each is free.
    async fn free_what_is_left(&self, before: &Before) -> Result<(), Failure> {
        // By card and container: the next job may leave a card before this comes round again.
        let mut since: BTreeMap<(GpuUuid, String), Duration> = BTreeMap::new();
        loop {
            self.board.any_left().await;
            let (left, now) = (self.board.left(), self.clock.monotonic());
            let keys: Vec<_> = left.iter().map(|(card, left)| key(card, left)).collect();
            since.retain(|key, _| keys.contains(key));
            for key in keys {
                since.entry(key).or_insert(now);
            }
            let sampled = self.gpu.sample().await;
            let latest = sampled.as_ref().ok().map(|it| (self.clock.monotonic(), it.clone()));
            self.latest.send_replace(latest);
            match sampled {
                Ok(round) => {
                    let now = self.clock.monotonic();
                    let mut returned = Vec::new();
                    for (card, left) in &left {
                        let waited =
                            now.saturating_sub(since.get(&key(card, left)).copied().unwrap_or(now));
                        let told = self.free(card, left, &round, before, waited);
                        returned.extend(told.map(|told| (&left.job, told)));
                    }
                    // Once all of them are given on: a job must not wait for the record of the one before.
                    for (job, told) in returned {
                        self.record(job, told).await;
                    }
                }
                // A driver that hangs stops all jobs anyway, so these cards can wait.
                Err(Error::Hung { .. }) => {}
                Err(_) => left.keys().for_each(|card| self.board.freed(card)),
            }
            // Most are free at once; the card that was left last decides how soon to look again.
            let newest = since.values().max().copied().unwrap_or(now);
            let waited = self.clock.monotonic().saturating_sub(newest);
            self.clock.sleep((waited / 2).clamp(LEFT_MIN, LEFT_MAX)).await;
        }
    }

    /// Writes what became of a card into its job's record. If that can't be written, the record lacks it.
    async fn record(&self, job: &JobId, returned: GpuReturn) {
        if let Err(err) = self.journal.gpu_returned(job, returned).await {
            tracing::warn!(job.id = %job, "the record of job {job} lacks its GPU: {}", causes(&err));
        }
    }

    /// Gives a card on if it is free. Returns what is to be recorded of it, if that is new.
    fn free(
        &self,
        card: &GpuUuid,
        left: &Left,
        round: &Round,
        before: &Before,
        waited: Duration,
    ) -> Option<GpuReturn> {
        let holders = self.board.holders();
        let whose = |pid| whose(pid, &holders, Some(left));
        let before = before.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sample = round.get(card).and_then(|sample| sample.as_ref().ok());
        let remains = sample.and_then(|now| tenancy::remains(now, before.get(card), whose));
        let (id, ms) = (&left.job, waited.as_millis());
        let told = |free_after: Option<Duration>, why: Option<String>| {
            Some(GpuReturn { card: card.clone(), attempt: left.attempt, free_after, why })
        };
        match remains {
            None => {
                tracing::debug!(job.id = %id, %card, ms, "the GPU of job {id} is free after {ms} ms");
                self.board.freed(card);
                told(Some(waited), None)
            }
            Some(why)
                if waited >= BLIND
                    && !sample.is_some_and(|now| tenancy::is_visible(now, whose)) =>
            {
                tracing::warn!(
                    job.id = %id, %card,
                    "{why} on the GPU {card}, or a program's that this node can't see: it is given on"
                );
                self.board.freed(card);
                told(
                    None,
                    Some(format!("{why}, or a program's that this node can't see: given on")),
                )
            }
            Some(why) if waited >= PATIENCE && left.why.is_none() => {
                tracing::warn!(job.id = %id, %card, "the GPU {card} is given to no job yet: {why}");
                self.board.stays_taken(card, &why);
                told(None, Some(why))
            }
            Some(_) => None,
        }
    }
}

/// A card as it was left by one container.
fn key(card: &GpuUuid, left: &Left) -> (GpuUuid, String) {
    (card.clone(), left.container.clone())
}

/// Whose process this is, by its control groups.
fn whose(
    pid: u32,
    holders: &BTreeMap<GpuUuid, (JobId, Option<String>)>,
    left: Option<&Left>,
) -> Tenant {
    let Some(groups) = host::cgroups_of(pid) else { return Tenant::Unknown };
    if left.is_some_and(|left| groups.contains(&left.container)) {
        return Tenant::Former;
    }
    let mut containers = holders.values().filter_map(|(_, container)| container.as_ref());
    if containers.any(|container| groups.contains(container.as_str())) {
        return Tenant::Job;
    }
    Tenant::Foreign
}

fn log(change: &Change) {
    let (uuid, state, why) = (&change.card, change.now.state, &change.now.why);
    match state {
        // Only its quarantines are forgotten.
        State::Healthy if change.from == State::Healthy => {}
        State::Healthy => tracing::info!(%uuid, "the GPU {uuid} is well again"),
        State::Probation => tracing::info!(%uuid, "the GPU {uuid} is on probation"),
        State::Suspect | State::Quarantined | State::Retired => {
            let advice = state.advice().map(|text| format!("; {text}")).unwrap_or_default();
            tracing::warn!(%uuid, "the GPU {uuid} is {state}: {why}{advice}");
        }
    }
}
