//! The board's view of the cards: their health, and whether the previous job has left them.
//!
//! Invariant: once [`Board::watch_cards`] was called, a card whose job has ended goes to no other job until
//! [`Board::freed`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Board, Entry, JobId, JobSpec, Process, State};
use crate::node::GpuUuid;
use crate::node::card::{Happened, Round};
use crate::node::health::{Change, Health, Record};

/// A card that a job has left, until it is seen free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The job that had it.
    pub job: JobId,
    /// The job's attempt.
    pub attempt: u32,
    /// The engine's id of the job's container.
    pub container: String,
    /// Why it is not free; set after a while.
    pub why: Option<String>,
}

/// A job whose container runs, with the cards that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenancy {
    /// The job.
    pub job: JobId,
    /// The engine's id of its container.
    pub container: String,
    /// Its cards; empty for a job without.
    pub cards: Vec<GpuUuid>,
}

impl State {
    /// Notes that this job has left these cards.
    pub(super) fn leaves(&mut self, id: &JobId) {
        if !self.watches_cards {
            return;
        }
        let Some(Entry { process, holds: Some(cards), attempt, .. }) = self.entries.get(id) else {
            return;
        };
        let Some(container) = process.container() else { return };
        let (job, container) = (id.clone(), container.to_owned());
        let left = Left { job, attempt: *attempt, container, why: None };
        self.left.extend(cards.iter().map(|card| (card.clone(), left.clone())));
    }

    /// The cards that jobs left a moment ago and that will soon be free.
    pub(super) fn just_left(&self) -> Vec<GpuUuid> {
        let just = self.left.iter().filter(|(_, left)| left.why.is_none());
        just.map(|(card, _)| card.clone()).collect()
    }

    /// Holds back the cards that programs of the host use, and those that are not free long after their job.
    fn hold_back(&mut self) {
        let mut cards = self.foreign.clone();
        for (card, left) in &self.left {
            cards.extend(left.why.clone().map(|why| (card.clone(), why)));
        }
        self.fitness.hold_back(cards);
        self.tell();
    }

    fn has(&self, card: &GpuUuid) -> bool {
        self.terms.offer.gpus.iter().any(|gpu| gpu.uuid == *card)
    }
}

impl Board {
    /// No process of the job is left: frees what it held, before that is journaled.
    pub fn exited(&self, id: &JobId) {
        let mut state = self.state();
        state.leaves(id);
        if let Some(entry) = state.entries.get_mut(id) {
            entry.process = Process::Exited;
            entry.wants_slot = false;
            entry.holds = None;
        }
        drop(state);
        self.notify();
    }

    /// From now on the caller watches the cards that jobs leave, and calls [`Board::freed`].
    pub fn watch_cards(&self) {
        self.state().watches_cards = true;
    }

    /// The cards that jobs have left and that were not yet seen free.
    pub fn left(&self) -> BTreeMap<GpuUuid, Left> {
        self.seen().left.clone()
    }

    /// Waits until a job has left a card.
    pub async fn any_left(&self) {
        self.wait_for(|| (!self.seen().left.is_empty()).then_some(())).await;
    }

    /// The card is free of the job that left it.
    pub fn freed(&self, card: &GpuUuid) {
        let mut state = self.state();
        state.left.remove(card);
        state.hold_back();
        drop(state);
        self.notify();
    }

    /// The card is still not free after a while.
    pub fn stays_taken(&self, card: &GpuUuid, why: &str) {
        let mut state = self.state();
        if let Some(left) = state.left.get_mut(card) {
            left.why = Some(why.to_owned());
        }
        state.hold_back();
        drop(state);
        self.notify();
    }

    /// The jobs that hold a card now, and their containers if they run.
    pub fn holders(&self) -> BTreeMap<GpuUuid, (JobId, Option<String>)> {
        let state = self.seen();
        let mut holders = BTreeMap::new();
        for (id, entry) in &state.entries {
            let container = entry.process.container().map(str::to_owned);
            for card in entry.holds.iter().flatten() {
                holders.insert(card.clone(), (id.clone(), container.clone()));
            }
        }
        holders
    }

    /// The jobs whose containers were started and run, as far as is known.
    pub fn tenants(&self) -> Vec<Tenancy> {
        let state = self.seen();
        let tenant = |(job, entry): (&JobId, &Entry)| match (&entry.process, &entry.holds) {
            // Before it is journaled that it runs, it may not have been started.
            (Process::Runs(running), Some(cards)) if entry.phase == "running" => Some(Tenancy {
                job: job.clone(),
                container: running.container.clone(),
                cards: cards.clone(),
            }),
            _ => None,
        };
        state.entries.iter().filter_map(tenant).collect()
    }

    /// Waits until a container runs that is not one of those known.
    pub async fn runs_another(&self, is_known: impl Fn(&str) -> bool) {
        let another = || self.tenants().iter().any(|it| !is_known(&it.container));
        self.wait_for(|| another().then_some(())).await;
    }

    /// Restores the health of the cards that are here from an earlier process's records. Other cards may have
    /// been taken out of the host.
    pub fn restore_health(&self, mut records: BTreeMap<GpuUuid, Record>) {
        records.retain(|card, _| self.state().has(card));
        self.health(|health| health.restore(records));
    }

    /// Takes in an event of the driver. Returns a text for the log if a job's program caused it.
    pub fn happened(&self, happened: &Happened) -> Option<String> {
        let card = happened.card.clone().or_else(|| self.only_card())?;
        if !self.state().has(&card) {
            return None;
        }
        self.health(|health| health.happened(&card, happened.event))
    }

    /// Takes in a round of samples. `now` is monotonic.
    pub fn sampled(&self, mut round: Round, now: Duration) {
        round.retain(|card, _| self.state().has(card));
        self.health(|health| {
            health.sampled(&round);
            health.pass(now);
        });
    }

    /// Readmits a retired card at its owner's word. Returns `false` if it is not retired.
    pub fn readmit(&self, card: &GpuUuid) -> bool {
        self.health(|health| health.readmit(card))
    }

    /// Waits for a change of the cards' health that is not in the journal, and returns the oldest.
    pub async fn health_change(&self) -> Change {
        self.wait_for(|| self.seen().fitness.health().change().cloned()).await
    }

    /// Notes that this change is in the journal.
    pub fn health_written(&self) {
        self.state().fitness.health_mut().written();
    }

    /// The jobs that have a defective card, with the container running or not.
    pub fn on_defective_cards(&self) -> Vec<JobId> {
        let state = self.seen();
        let health = state.fitness.health();
        let has_one =
            |entry: &Entry| entry.holds.iter().flatten().any(|it| health.is_defective(it));
        state.entries.iter().filter(|(_, entry)| has_one(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether one of these cards is defective.
    pub fn is_any_defective(&self, cards: &[GpuUuid]) -> bool {
        let state = self.seen();
        cards.iter().any(|card| state.fitness.health().is_defective(card))
    }

    /// Sets the cards that programs of the host use, with the reasons: jobs get others meanwhile.
    pub fn in_foreign_use(&self, cards: BTreeMap<GpuUuid, String>) {
        let mut state = self.state();
        if state.foreign == cards {
            return;
        }
        state.foreign = cards;
        state.hold_back();
        drop(state);
        self.notify();
    }

    /// Sets whether strangers' jobs get no GPU.
    pub fn bar_strangers(&self, are_barred: bool) {
        self.state().bars_strangers = are_barred;
    }

    /// Whether a stranger's job with this spec is not taken because it wants GPUs.
    pub fn bars_stranger(&self, spec: &JobSpec) -> bool {
        let state = self.seen();
        state.bars_strangers && state.terms.demand(spec).gpus.count > 0
    }

    fn only_card(&self) -> Option<GpuUuid> {
        match self.seen().terms.offer.gpus.as_slice() {
            [only] => Some(only.uuid.clone()),
            _ => None,
        }
    }

    fn health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut state = self.state();
        let answer = change(state.fitness.health_mut());
        state.tell();
        drop(state);
        self.notify();
        answer
    }
}
