//! The board in numbers: what is in hand now, and what has ended since the process began.
//!
//! Invariants: a job that ends is counted once, by the process that decided its end; nothing here names a job.

use std::collections::BTreeMap;

use super::{Board, State};
use crate::job::Job;
use crate::job::phase::{Outcome, Phase};
use crate::node::GpuUuid;
use crate::node::fitness::Unfit;
use crate::node::health::State as Health;
use crate::usage::Reading;
use crate::usage::figures::Usage;

/// What [`stage`] gives.
const STAGES: [&str; 7] =
    ["preparing", "queued", "starting", "running", "publishing", "cleaning", "returning"];

/// How jobs end, as their statuses say, and `rejected` for messages that became none.
const ENDS: [&str; 5] = ["completed", "failed", "timed_out", "cancelled", "rejected"];

/// The board in numbers.
#[derive(Debug, Clone)]
pub struct Census {
    /// Jobs that may run at the same time.
    pub slots: usize,
    /// Slots that jobs hold.
    pub used: usize,
    /// Jobs in hand in each of a few coarse phases, whose words are a closed list.
    pub stages: BTreeMap<&'static str, usize>,
    /// Jobs that wait for a slot or for cards.
    pub queued: usize,
    /// Why no job is taken, in one word of a closed list; `None` if jobs are taken.
    pub unready: Option<&'static str>,
    /// The state of each card.
    pub cards: Vec<(GpuUuid, Health)>,
    /// What has ended.
    pub tally: Tally,
}

/// What has ended since the process began.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Jobs by how they ended, and rejected messages; the words are a closed list.
    pub ended: BTreeMap<&'static str, u64>,
    /// Runs that ended and whose use was watched.
    pub runs: u64,
    /// CPU time of the runs, in microseconds.
    pub cpu_us: Sum,
    /// Time in which the runs' cards were busy, in milliseconds; of runs with cards.
    pub gpu_ms: Sum,
    /// Energy of the runs' cards, in millijoules; of runs with cards.
    pub energy_mj: Sum,
}

/// The sum of what is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// The sum of the known ones, and how many they are.
    known: u64,
    count: u64,
    /// Of how many it is not known.
    pub unknown: u64,
}

impl Sum {
    fn add(&mut self, reading: Reading) {
        if let Ok(value) = reading {
            self.known = self.known.saturating_add(value);
            self.count += 1;
        } else {
            self.unknown += 1;
        }
    }

    /// The sum; `None` if there are values and none of them is known.
    pub const fn value(&self) -> Option<u64> {
        if self.count == 0 && self.unknown > 0 { None } else { Some(self.known) }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            ended: ENDS.map(|end| (end, 0)).into(),
            runs: 0,
            cpu_us: Sum::default(),
            gpu_ms: Sum::default(),
            energy_mj: Sum::default(),
        }
    }
}

impl Tally {
    /// Takes in a job's transition out of the phase of this name.
    pub(super) fn moved(&mut self, before: &str, job: &Job) {
        if before == job.phase.name() {
            return;
        }
        match &job.phase {
            Phase::Ended { outcome } => *self.ended.entry(word(outcome)).or_default() += 1,
            Phase::Exited { run, exit, .. } => {
                if let Some(usage) = &exit.usage {
                    self.ran(usage, !run.gpus.is_empty());
                }
            }
            _ => {}
        }
    }

    fn ran(&mut self, usage: &Usage, has_cards: bool) {
        self.runs += 1;
        self.cpu_us.add(usage.cpu_us);
        if has_cards {
            self.gpu_ms.add(usage.gpu_ms);
            self.energy_mj.add(usage.energy_mj);
        }
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed(_) => "failed",
        Outcome::TimedOut(_) => "timed_out",
        Outcome::Cancelled(_) => "cancelled",
    }
}

/// The coarse phase that a phase belongs to.
fn stage(phase: &str) -> &'static str {
    match phase {
        "accepted" | "pulled" => "preparing",
        "ready" => "queued",
        "claiming" | "starting" => "starting",
        "running" | "stopping" => "running",
        "exited" | "collected" | "published" | "concluding" => "publishing",
        "ended" | "cleaned" | "buried" | "settled" => "cleaning",
        _ => "returning",
    }
}

impl State {
    fn unready(&self) -> Option<&'static str> {
        let unfit = || self.unfit.as_ref().map(Unfit::word);
        if self.draining { Some("draining") } else { unfit() }
    }
}

impl Board {
    /// The board in numbers.
    pub fn census(&self) -> Census {
        let state = self.seen();
        let mut stages = BTreeMap::from(STAGES.map(|stage| (stage, 0)));
        for entry in state.entries.values() {
            *stages.entry(stage(entry.phase)).or_default() += 1;
        }
        let health = state.fitness.health();
        let cards = state.terms.offer.gpus.iter();
        Census {
            slots: state.terms.offer.slots,
            used: state.entries.values().filter(|entry| entry.holds.is_some()).count(),
            stages,
            queued: state.queue.len(),
            unready: state.unready(),
            cards: cards.map(|gpu| (gpu.uuid.clone(), health.state(&gpu.uuid))).collect(),
            tally: state.tally.clone(),
        }
    }

    /// Counts the transition of a job that no task has in hand.
    pub fn moved_aside(&self, before: &Phase, job: &Job) {
        self.lock().tally.moved(before.name(), job);
    }

    /// Counts a message that was rejected.
    pub fn rejected(&self) {
        *self.lock().tally.ended.entry("rejected").or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Unknown;

    #[test]
    fn a_sum_of_which_nothing_is_known_is_no_zero() {
        let mut sum = Sum::default();
        assert_eq!((sum.value(), sum.unknown), (Some(0), 0), "nothing has run");
        sum.add(Err(Unknown::NotSupported));
        assert_eq!((sum.value(), sum.unknown), (None, 1));
        sum.add(Ok(7));
        assert_eq!((sum.value(), sum.unknown), (Some(7), 1));
    }

    #[test]
    fn every_phase_belongs_to_a_stage_of_the_closed_list() {
        for phase in ["accepted", "ready", "running", "exited", "ended", "yielded", "unheard of"] {
            assert!(STAGES.contains(&stage(phase)), "{phase}");
        }
    }

    #[test]
    fn runs_without_cards_say_nothing_of_cards() {
        let mut tally = Tally::default();
        let usage = Usage { cpu_us: Ok(5), ..Usage::unknown(Unknown::NotSupported) };
        tally.ran(&usage, false);
        let of_cards = (tally.gpu_ms.value(), tally.energy_mj.unknown);
        assert_eq!((tally.cpu_us.value(), of_cards), (Some(5), (Some(0), 0)));
        tally.ran(&usage, true);
        assert_eq!((tally.runs, tally.energy_mj.value(), tally.energy_mj.unknown), (2, None, 1));
    }
}
