//! Watches the GPUs: takes in what their driver reports and samples them, writes each change of their
//! health into the journal, takes jobs off defective ones, and gives a card on only once it is free of the
//! job before ([`crate::node::health`] and [`crate::node::tenancy`] decide).
//!
//! Invariants: a change is in the journal before its cards are given to anybody again; a job on a defective
//! card is asked to stop until it does; a driver that hangs holds up nothing but this service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::agent::jobs::board::{Board, Left};
use crate::agent::jobs::desk::Desk;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::gpu::{Error, GpuProbe};
use crate::host;
use crate::ids::JobId;
use crate::job::phase::StopCause;
use crate::journal::Journal;
use crate::node::GpuUuid;
use crate::node::card::{Happened, Round, Sample};
use crate::node::health::{Change, State};
use crate::node::tenancy::{self, Tenant};
use crate::report::causes;
use crate::supervise::Failure;

/// Time between two samples while nothing happens.
const EVERY: Duration = Duration::from_secs(10);

/// Times between two looks at a card that a job has left: most are free at once.
const LEFT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// After this long it is said that a card is not free yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time limit for a job to confirm that it stops: one that is starting answers only after that.
const STOP_ASKED: Duration = Duration::from_secs(1);

/// The service that watches the GPUs.
#[derive(Debug)]
pub struct Cards<G, C> {
    gpu: Arc<G>,
    journal: Journal,
    board: Board,
    yields: bool,
    clock: C,
}

/// The last sample of each card while no job had it.
type Before = std::sync::Mutex<BTreeMap<GpuUuid, Sample>>;

impl<G: GpuProbe, C: Clock + Clone> Cards<G, C> {
    /// Watches the cards of this driver for this desk. `yields`: whether a card leaves the pool while a
    /// program of the host uses it (`GPU_YIELD`).
    pub fn new(gpu: Arc<G>, desk: &Desk<C>, yields: bool) -> Self {
        let (journal, board, clock) =
            (desk.journal.clone(), desk.board.clone(), desk.clock.clone());
        Self { gpu, journal, board, yields, clock }
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

    async fn write_changes(&self) -> Result<(), Failure> {
        loop {
            for change in self.board.health_changes().await {
                let written = self.journal.gpu_changed(&change, self.clock.now()).await;
                written.map_err(|err| Failure::again(err, "DATA_DIR"))?;
                log(&change);
            }
            self.stop_jobs().await;
        }
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
        if let Some(words) = self.board.happened(happened) {
            let holders = self.board.holders();
            let holder = happened.card.as_ref().and_then(|card| holders.get(card));
            if let Some((id, _)) = holder {
                tracing::info!(job.id = %id, "job {id} caused {words} on its GPU");
            } else {
                tracing::info!("a program caused {words} on a GPU");
            }
        }
    }

    async fn sample_again_and_again(&self, before: &Before) -> Result<(), Failure> {
        let mut is_told = false;
        loop {
            match self.gpu.sample().await {
                Ok(round) => {
                    is_told = false;
                    self.board.sampled(&round, self.clock.monotonic());
                    self.look(&round, before);
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

    /// Holds back the cards that the host's own programs use, and keeps the samples of those that no job has.
    fn look(&self, round: &Round, before: &Before) {
        let (holders, left) = (self.board.holders(), self.board.left());
        let mut held_back = BTreeMap::new();
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
                held_back.insert(card.clone(), why);
            }
        }
        self.board.hold_back(held_back);
    }

    /// Looks at the cards that jobs have left until each is free.
    async fn free_what_is_left(&self, before: &Before) -> Result<(), Failure> {
        loop {
            self.board.any_left().await;
            let since = self.clock.monotonic();
            let mut is_told = false;
            for looks in 1.. {
                let left = self.board.left();
                if left.is_empty() {
                    break;
                }
                let waited = self.clock.monotonic().saturating_sub(since);
                let tell = !is_told && waited >= PATIENCE;
                is_told |= tell;
                match self.gpu.sample().await {
                    Ok(round) => {
                        for (card, job) in left {
                            self.free(&card, &job, &round, before, (waited, tell));
                        }
                    }
                    // Nothing says that it is not free, and a driver that hangs stops all jobs anyway.
                    Err(Error::Hung { .. }) => {}
                    Err(_) => left.keys().for_each(|card| self.board.freed(card)),
                }
                self.clock.sleep(LEFT.delay(looks, 1.0)).await;
            }
        }
    }

    fn free(
        &self,
        card: &GpuUuid,
        left: &Left,
        round: &Round,
        before: &Before,
        (waited, tell): (Duration, bool),
    ) {
        let holders = self.board.holders();
        let whose = |pid| whose(pid, &holders, Some(left));
        let before = before.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sample = round.get(card).and_then(|sample| sample.as_ref().ok());
        let remains = sample.and_then(|now| tenancy::remains(now, before.get(card), whose));
        let (id, ms) = (&left.job, waited.as_millis());
        match remains {
            None => {
                tracing::debug!(job.id = %id, %card, ms, "the GPU of job {id} is free after {ms} ms");
                self.board.freed(card);
            }
            Some(why) if tell => {
                tracing::warn!(job.id = %id, %card, "the GPU {card} is given to no job yet: {why}");
            }
            Some(_) => {}
        }
    }
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
        State::Healthy => tracing::info!(%uuid, "the GPU {uuid} is well again"),
        State::Probation => tracing::info!(%uuid, "the GPU {uuid} is on probation"),
        State::Suspect | State::Quarantined | State::Retired => {
            let advice = state.advice().map(|text| format!("; {text}")).unwrap_or_default();
            tracing::warn!(%uuid, "the GPU {uuid} is {state}: {why}{advice}");
        }
    }
}
