//! The cards as the board knows them: their health, and what is left on them of the job before.
//!
//! Invariant: a card whose job has ended is given to nobody before somebody looked whether it is free, if
//! anybody looks at all ([`Board::watch_cards`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Board, Entry, JobId, Process, State};
use crate::node::GpuUuid;
use crate::node::card::{Happened, Round};
use crate::node::health::{Change, Health, Record};

/// A card that a job has left, until it is seen free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The job that had it.
    pub job: JobId,
    /// The engine's id of the job's container.
    pub container: String,
}

impl State {
    /// Notes that this job has left these cards.
    pub(super) fn leaves(&mut self, id: &JobId) {
        if !self.watches_cards {
            return;
        }
        let Some(Entry { process: Process::Runs(running), holds: Some(cards), .. }) =
            self.entries.get(id)
        else {
            return;
        };
        let left = Left { job: id.clone(), container: running.container.clone() };
        self.left.extend(cards.iter().map(|card| (card.clone(), left.clone())));
    }
}

impl Board {
    /// From here on somebody looks at the cards that jobs leave, and calls [`Board::freed`].
    pub fn watch_cards(&self) {
        self.state().watches_cards = true;
    }

    /// The cards that jobs have left and that were not seen free yet.
    pub fn left(&self) -> BTreeMap<GpuUuid, Left> {
        self.state().left.clone()
    }

    /// Waits until a job has left a card.
    pub async fn any_left(&self) {
        self.wait_for(|| (!self.state().left.is_empty()).then_some(())).await;
    }

    /// The card is free of the job that left it.
    pub fn freed(&self, card: &GpuUuid) {
        self.state().left.remove(card);
        self.notify();
    }

    /// The jobs that hold a card now, and their containers as far as they run.
    pub fn holders(&self) -> BTreeMap<GpuUuid, (JobId, Option<String>)> {
        let state = self.state();
        let mut holders = BTreeMap::new();
        for (id, entry) in &state.entries {
            let container = match &entry.process {
                Process::Runs(running) => Some(running.container.clone()),
                Process::None | Process::Exited => None,
            };
            for card in entry.holds.iter().flatten() {
                holders.insert(card.clone(), (id.clone(), container.clone()));
            }
        }
        holders
    }

    /// Takes over what an earlier process knew of the cards' health.
    pub fn restore_health(&self, records: BTreeMap<GpuUuid, Record>) {
        self.health(|health| health.restore(records));
    }

    /// Takes in an event of the driver. Returns the words for the log if a job's program caused it.
    pub fn happened(&self, happened: &Happened) -> Option<String> {
        let card = happened.card.clone().or_else(|| self.only_card())?;
        self.health(|health| health.happened(&card, happened.event))
    }

    /// Takes in a round of samples. `now` is monotonic.
    pub fn sampled(&self, round: &Round, now: Duration) {
        self.health(|health| {
            health.sampled(round);
            health.pass(now);
        });
    }

    /// Readmits a retired card at its owner's word. Returns `false` if it is not retired.
    pub fn readmit(&self, card: &GpuUuid) -> bool {
        self.health(|health| health.readmit(card))
    }

    /// The changes of the cards' health since the last call.
    pub fn take_health_changes(&self) -> Vec<Change> {
        self.state().fitness.health_mut().take_changes()
    }

    /// Waits for such changes, and takes them.
    pub async fn health_changes(&self) -> Vec<Change> {
        self.wait_for(|| Some(self.take_health_changes()).filter(|changes| !changes.is_empty()))
            .await
    }

    /// The jobs that have a defective card, with the container running or not.
    pub fn on_defective_cards(&self) -> Vec<JobId> {
        let state = self.state();
        let health = state.fitness.health();
        let has_one =
            |entry: &Entry| entry.holds.iter().flatten().any(|it| health.is_defective(it));
        state.entries.iter().filter(|(_, entry)| has_one(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether one of these cards is defective.
    pub fn is_any_defective(&self, cards: &[GpuUuid]) -> bool {
        let state = self.state();
        cards.iter().any(|card| state.fitness.health().is_defective(card))
    }

    /// Sets the cards that are given to nobody for the moment, with the reasons.
    pub fn hold_back(&self, cards: BTreeMap<GpuUuid, String>) {
        let mut state = self.state();
        if *state.fitness.held_back() == cards {
            return;
        }
        state.fitness.hold_back(cards);
        state.tell();
        drop(state);
        self.notify();
    }

    fn only_card(&self) -> Option<GpuUuid> {
        match self.state().terms.offer.gpus.as_slice() {
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
