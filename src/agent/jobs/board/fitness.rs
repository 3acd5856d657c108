//! Feeds the node's fitness with the failures of jobs and the findings of looks at the host.
//!
//! Invariant: each change is logged once, when it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Board, State};
use crate::agent::events::Events;
use crate::agent::jobs::terms::Terms;
use crate::fleet::kinds;
use crate::job::phase::Phase;
use crate::job::{Job, JobSpec, Reason};
use crate::node::GpuUuid;
use crate::node::admission::{Offer, Verdict, decide};
use crate::node::fitness::{Look, Probed, Unfit};
use crate::node::health::State as Health;
use crate::node::presence::UNSAFE;

impl State {
    /// Updates the node's fitness from a job's transition. `before`: its previous phase; `held`:
    /// the cards it held then.
    pub(super) fn learn(&mut self, before: &'static str, held: &[GpuUuid], job: &Job) {
        let moved = before != job.phase.name();
        match &job.phase {
            Phase::Running { run } if moved => self.fitness.job_runs(&run.gpus),
            phase
                if moved
                    && is_before_run(before)
                    && let Some(fault) = phase.nodes_fault() =>
            {
                if fault.reason == Reason::GpuFailed {
                    self.fitness.cards_failed(held, &fault.error);
                }
                let is_missing = fault.reason == Reason::InputUnavailable;
                self.unfetched += u64::from(is_missing);
                // A fault of one job alone says nothing about the node.
                let is_of_one_job =
                    fault.reason.is_of_one_job() || is_missing && self.fitness.gateways_serve();
                if !is_of_one_job {
                    self.fitness.job_failed(&fault.error);
                    self.symptoms += 1;
                }
            }
            // It gave up its cards, to reserve these or others later.
            Phase::Ready { .. } if moved && before == "starting" => {
                let why = job.trouble.as_ref().map_or("", |trouble| &trouble.fault.error);
                self.fitness.cards_failed(held, why);
                self.symptoms += 1;
            }
            phase if !moved && let Some(trouble) = &job.trouble => {
                if trouble.fault.reason == Reason::GpuFailed {
                    let cards = phase.holds().unwrap_or_default();
                    self.fitness.cards_failed(cards, &trouble.fault.error);
                }
                self.symptoms += u64::from(phase.wants_slot());
            }
            _ => {}
        }
    }

    /// Judges the node's fitness, and logs a change once.
    pub(super) fn tell(&mut self) {
        self.fitness.store(self.is_refused());
        let unfit = self.fitness.verdict().err().or_else(|| self.is_full());
        match (&self.unfit, &unfit) {
            (Some(_), None) if self.is_unfit_told => {
                self.is_unfit_told = false;
                tracing::info!("the node is ready again: jobs are taken");
                self.events.tell(kinds::NODE_READY, "jobs are taken again", |event| event);
            }
            // Every start passes through `Untried`: not worth a line.
            (_, None | Some(Unfit::Untried(_))) => {}
            (before, Some(why)) if before.as_ref().is_none_or(|was| was.is_other_than(why)) => {
                self.is_unfit_told = true;
                tracing::warn!("no job is taken: {why}");
                // Others read it: without the words of the engine or a service.
                let text = format!("no job is taken: {}", why.told());
                self.events.tell(kinds::NODE_NOT_READY, &text, |event| event);
            }
            _ => {}
        }
        self.unfit = unfit;
    }
}

impl Board {
    /// Records what a look at the host saw. `now` is monotonic.
    pub fn looked(&self, look: Look, now: Duration) {
        let mut state = self.state();
        let known: Vec<GpuUuid> =
            state.terms.offer.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        state.fitness.looked(look, &known, now);
        state.tell();
        drop(state);
        self.notify();
    }

    /// Records what probes of cards found. `now` is monotonic.
    pub fn probed(&self, probes: BTreeMap<GpuUuid, Probed>, now: Duration) {
        let mut state = self.state();
        state.fitness.probed(probes, now);
        state.tell();
        drop(state);
        self.notify();
    }

    /// Records that the engine gives cards to no container, as seen by the job that should have got these.
    pub fn no_driver(&self, cards: &[GpuUuid], why: &str) {
        let mut state = self.state();
        state.fitness.no_driver(cards, why);
        state.symptoms += 1;
        state.tell();
        drop(state);
        self.notify();
    }

    /// An empty board of a node that tries every card and the store before it takes its first job.
    pub fn untried(terms: Terms) -> Self {
        let cards: Vec<GpuUuid> = terms.offer.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        let board = Self::new(terms);
        let mut state = board.state();
        state.fitness.expect_trials(cards);
        state.tell();
        drop(state);
        board
    }

    /// Has this board tell here whether jobs are taken.
    pub fn tells(&self, events: Events) {
        self.lock().events = events;
    }

    /// Where the parts that share this board tell events.
    pub fn events(&self) -> Events {
        self.lock().events.clone()
    }

    /// Waits until every card and the store were tried, or did not answer.
    pub async fn tried(&self) {
        self.wait_for(|| (!self.seen().fitness.is_untried()).then_some(())).await;
    }

    /// Whether this card was tried since the start.
    pub fn was_tried(&self, card: &GpuUuid) -> bool {
        self.seen().fitness.was_tried(card)
    }

    /// Records how the store answered a test upload; `Some` with its words if it refused.
    pub fn uploaded(&self, refusal: Option<String>) {
        let mut state = self.state();
        state.fitness.uploaded(refusal);
        state.tell();
        drop(state);
        self.notify();
    }

    /// Records whether a gateway serves what the node itself asks for.
    pub fn gateways(&self, serve: bool) {
        self.state().fitness.gateways(serve);
    }

    /// The number of jobs that did not get their inputs.
    pub fn unfetched(&self) -> u64 {
        self.seen().unfetched
    }

    /// Waits until there are more of them than `seen`.
    pub async fn more_unfetched_than(&self, seen: u64) {
        self.wait_for(|| (self.unfetched() > seen).then_some(())).await;
    }

    /// Records that the store can't be reached for a test upload.
    pub fn not_uploaded(&self) {
        let mut state = self.state();
        state.fitness.not_uploaded();
        state.tell();
        drop(state);
        self.notify();
    }

    /// The first missing or untried thing that every job needs; `None` if all were tried and work.
    pub fn lacks(&self) -> Option<Unfit> {
        self.seen().fitness.lacks()
    }

    /// Why no job is taken; `None` if the node is fit.
    pub fn unfit(&self) -> Option<Unfit> {
        self.seen().unfit.clone()
    }

    /// Waits until the node is fit, or with `fit` false until it is not.
    pub async fn becomes_fit(&self, fit: bool) {
        self.wait_for(|| (self.seen().unfit.is_none() == fit).then_some(())).await;
    }

    /// Whether a job with this spec could ever start, with the cards that work at present.
    pub fn may_go(&self, spec: &JobSpec) -> bool {
        let state = self.seen();
        !matches!(decide(&state.offer(), &[], &[], &state.terms.demand(spec)), Verdict::Never(_))
    }

    /// The node's full offer, and which of its cards are out of use, with the reason in one word.
    pub fn offered(&self) -> (Offer, BTreeMap<GpuUuid, &'static str>) {
        let state = self.seen();
        if state.bars_strangers {
            // Those who ask what a node offers are strangers.
            let cards = state.terms.offer.gpus.iter();
            let out = cards.map(|gpu| (gpu.uuid.clone(), UNSAFE)).collect();
            return (state.terms.offer.clone(), out);
        }
        let word = |card: &GpuUuid| match state.fitness.health().state(card) {
            Health::Healthy => "aside",
            state => state.name(),
        };
        let out = state.fitness.out().into_iter().map(|card| (card.clone(), word(card))).collect();
        (state.terms.offer.clone(), out)
    }

    /// The number of slots that no job holds.
    pub fn free_slots(&self) -> usize {
        let state = self.seen();
        let held = state.entries.values().filter(|entry| entry.holds.is_some()).count();
        state.terms.offer.slots.saturating_sub(held)
    }

    /// The cards that are due for a probe. `now` is monotonic.
    pub fn to_probe(&self, now: Duration) -> Vec<GpuUuid> {
        self.seen().fitness.to_probe(now)
    }

    /// A counter of job failures that a look at the host may explain.
    pub fn symptoms(&self) -> u64 {
        self.seen().symptoms
    }

    /// Waits until that counter exceeds `seen`.
    pub async fn more_symptoms_than(&self, seen: u64) {
        self.wait_for(|| (self.symptoms() > seen).then_some(())).await;
    }
}

/// Whether a job in the phase of this name has not run yet.
fn is_before_run(phase: &str) -> bool {
    ["accepted", "pulled", "ready", "claiming", "starting"].contains(&phase)
}
