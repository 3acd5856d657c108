//! The health of the node's GPUs, as a state machine for each card.
//!
//! ```text
//!            doubt                defect, or three doubts in an hour
//!  healthy ─────────► suspect ─────────────────────────────► quarantined ◄──────────┐
//!     ▲  ▲               │                                       │ quiet time over   │ fails
//!     │  └── proved ─────┘                                       ▼                   │
//!     └─────────────────────────── proved ────────────────── probation ──────────────┘
//!
//!  the fifth quarantine, or a defect for good ─► retired ─readmitted by the owner─► probation
//! ```
//!
//! A *doubt* is a sign of a possible fault: a container did not get the card, a mild Xid, a card that stays
//! slowed by heat. A *defect* is a sign of a certain one. A *proof* is a container that gets the card and, if
//! the owner named an image for that, computes on it.
//!
//! Pure: observations come in, with the time as a span since the start of the process; each change comes out
//! for the journal. Invariants: jobs get only healthy cards; only a proof brings a card back; an error that a
//! program is known to cause by itself never changes a card's state; a restart forgets no state other than
//! `suspect`, since every card is tried at a start.

mod signs;
pub mod xid;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::GpuUuid;
use crate::backoff::Backoff;

/// How long a suspect card is left alone before it is proved; longer after each failure.
pub const ASIDE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(10));

/// How long a card stays in quarantine before it is proved; longer after each one.
pub const QUIET: Backoff = Backoff::new(Duration::from_mins(10), Duration::from_mins(80));

/// The quarantine with this number retires the card.
const QUARANTINES_MAX: u32 = 5;

/// This many doubts within [`DOUBTS_WITHIN`] put a card into quarantine: each was cleared by a proof, and
/// came back.
const DOUBTS_MAX: usize = 3;
const DOUBTS_WITHIN: Duration = Duration::from_hours(1);

/// A card that was healthy for this long starts afresh: its former quarantines don't count any more.
const HEALED: Duration = Duration::from_hours(7 * 24);

/// Whether jobs get a card, and if not, what it waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Jobs get it.
    #[default]
    Healthy,
    /// Something may be wrong: a proof is due soon.
    Suspect,
    /// Something is wrong: left alone for a while.
    Quarantined,
    /// After the quarantine: a proof decides.
    Probation,
    /// Not used any more, until the owner readmits it.
    Retired,
}

impl State {
    /// The state's name in the journal and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Quarantined => "quarantined",
            Self::Probation => "probation",
            Self::Retired => "retired",
        }
    }

    /// The state with this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Healthy, Self::Suspect, Self::Quarantined, Self::Probation, Self::Retired];
        all.into_iter().find(|state| state.name() == name)
    }

    /// What the card's owner should do; `None` if nothing.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Healthy | Self::Suspect | Self::Probation => None,
            Self::Quarantined => Some(
                "nothing at first: it is tried again by itself; if it comes back to this, look for Xid in \
                 dmesg, at its power and cooling, and reset it (nvidia-smi --gpu-reset) or reboot",
            ),
            Self::Retired => Some(
                "replace it, or have it repaired; if that is done, readmit it (lamda-node gpus --readmit)",
            ),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What survives a restart of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The card's state.
    pub state: State,
    /// Why it is in that state, in one sentence; empty if it was never out.
    pub why: String,
    /// The quarantines that count against it.
    pub quarantines: u32,
}

/// A card's change from one state to another, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The card that changed.
    pub card: GpuUuid,
    /// The state that it left.
    pub from: State,
    /// The card's record after the change.
    pub now: Record,
}

#[derive(Debug, Clone, Default)]
struct Card {
    record: Record,
    /// Proofs that failed in a row in this state.
    failures: u32,
    /// When the next proof may be tried; set by the first look after the failure.
    proof_at: Option<Duration>,
    /// Since when it is known to be healthy again, if quarantines count against it.
    healthy_since: Option<Duration>,
    /// The times of its recent doubts.
    doubts: VecDeque<Duration>,
    /// Samples in a row in which it was slowed.
    slowed: u32,
    /// Memory errors that its last sample counted; `None` before the first.
    errors: Option<u64>,
}

/// The health of all cards that this node has or had.
#[derive(Debug, Clone, Default)]
pub struct Health {
    cards: BTreeMap<GpuUuid, Card>,
    changes: VecDeque<Change>,
    now: Duration,
}

impl Health {
    /// Restores the records of an earlier process. A card in quarantine starts its quiet time anew.
    pub fn restore(&mut self, records: BTreeMap<GpuUuid, Record>) {
        for (uuid, mut record) in records {
            // Every card is tried at the start: a doubt need not outlive the process.
            if record.state == State::Suspect {
                record.state = State::Healthy;
                let card = uuid.clone();
                self.changes.push_back(Change { card, from: State::Suspect, now: record.clone() });
            }
            self.cards.insert(uuid, Card { record, ..Card::default() });
        }
    }

    /// The oldest change that is not in the journal yet.
    pub fn change(&self) -> Option<&Change> {
        self.changes.front()
    }

    /// Notes that the oldest change is in the journal.
    pub fn written(&mut self) {
        self.changes.pop_front();
    }

    /// The card's state.
    pub fn state(&self, uuid: &GpuUuid) -> State {
        self.cards.get(uuid).map_or(State::Healthy, |card| card.record.state)
    }

    /// The cards that jobs don't get.
    pub fn out(&self) -> impl Iterator<Item = &GpuUuid> {
        let out = self.cards.iter().filter(|(_, card)| card.record.state != State::Healthy);
        out.map(|(uuid, _)| uuid)
    }

    /// Whether something is wrong with the card for certain, so that no work on it can be trusted.
    pub fn is_defective(&self, uuid: &GpuUuid) -> bool {
        matches!(self.state(uuid), State::Quarantined | State::Retired)
    }

    /// The cards for which a proof is due.
    pub fn to_prove(&self, now: Duration) -> impl Iterator<Item = &GpuUuid> {
        let is_due = move |card: &Card| {
            // Not while it is slowed: the next job would get a hot card.
            matches!(card.record.state, State::Suspect | State::Probation)
                && card.slowed == 0
                && card.proof_at.is_some_and(|at| at <= now)
        };
        self.cards.iter().filter(move |(_, card)| is_due(card)).map(|(uuid, _)| uuid)
    }

    /// Lets time pass: sets when proofs are due, ends quarantines, forgets old ones.
    pub fn pass(&mut self, now: Duration) {
        self.now = now;
        for (uuid, card) in &mut self.cards {
            match card.record.state {
                State::Healthy if card.record.quarantines > 0 => {
                    if *card.healthy_since.get_or_insert(now) + HEALED <= now {
                        card.record.quarantines = 0;
                        let why = card.record.why.clone();
                        self.changes.push_back(card.enter(uuid, State::Healthy, why));
                    }
                }
                State::Healthy | State::Retired => {}
                State::Suspect => {
                    card.proof_at.get_or_insert(now + ASIDE.delay(card.failures, 1.0));
                }
                State::Quarantined => {
                    let quiet = QUIET.delay(card.record.quarantines, 1.0);
                    if *card.proof_at.get_or_insert(now + quiet) <= now {
                        let why = card.record.why.clone();
                        self.changes.push_back(card.enter(uuid, State::Probation, why));
                        card.proof_at = Some(now);
                    }
                }
                State::Probation => {
                    let wait = match card.failures {
                        0 => Duration::ZERO,
                        failures => ASIDE.delay(failures, 1.0),
                    };
                    card.proof_at.get_or_insert(now + wait);
                }
            }
        }
    }

    /// Something may be wrong with the card.
    pub fn doubt(&mut self, uuid: &GpuUuid, why: &str) {
        let now = self.now;
        let card = self.cards.entry(uuid.clone()).or_default();
        card.doubts.retain(|at| *at + DOUBTS_WITHIN > now);
        card.doubts.push_back(now);
        while card.doubts.len() > DOUBTS_MAX {
            card.doubts.pop_front();
        }
        let is_frequent = card.doubts.len() >= DOUBTS_MAX;
        if is_frequent && card.record.state == State::Healthy {
            self.defect(uuid, why);
        } else {
            self.not_given(uuid, why);
        }
    }

    /// A container did not get the card. That alone never puts the card into quarantine: often the fault is
    /// the host's.
    pub fn not_given(&mut self, uuid: &GpuUuid, why: &str) {
        let card = self.cards.entry(uuid.clone()).or_default();
        match card.record.state {
            State::Healthy => {
                self.changes.push_back(card.enter(uuid, State::Suspect, why.to_owned()));
                card.failures = 1;
            }
            State::Suspect => {
                card.failures = card.failures.saturating_add(1);
                card.proof_at = None;
            }
            State::Probation => self.defect(uuid, why),
            State::Quarantined | State::Retired => {}
        }
    }

    /// No container gets any card, so a proof of this one has to wait.
    pub fn not_tried(&mut self, uuid: &GpuUuid, why: &str) {
        match self.cards.get_mut(uuid) {
            Some(card) if card.record.state == State::Probation => {
                card.failures = card.failures.saturating_add(1);
                card.proof_at = None;
            }
            _ => self.not_given(uuid, why),
        }
    }

    /// Something is wrong with the card.
    pub fn defect(&mut self, uuid: &GpuUuid, why: &str) {
        let card = self.cards.entry(uuid.clone()).or_default();
        if matches!(card.record.state, State::Quarantined | State::Retired) {
            // Not quiet: the quiet time begins anew.
            card.proof_at = None;
            return;
        }
        card.record.quarantines += 1;
        let is_last = card.record.quarantines >= QUARANTINES_MAX;
        let next = if is_last { State::Retired } else { State::Quarantined };
        self.changes.push_back(card.enter(uuid, next, why.to_owned()));
    }

    /// The card is defective for good.
    pub fn retire(&mut self, uuid: &GpuUuid, why: &str) {
        let card = self.cards.entry(uuid.clone()).or_default();
        if card.record.state != State::Retired {
            self.changes.push_back(card.enter(uuid, State::Retired, why.to_owned()));
        }
    }

    /// The card did its work: a container got it, or computed on it. Ends a doubt and a probation.
    pub fn proved(&mut self, uuid: &GpuUuid) {
        let Some(card) = self.cards.get_mut(uuid) else { return };
        if matches!(card.record.state, State::Suspect | State::Probation) {
            let why = card.record.why.clone();
            self.changes.push_back(card.enter(uuid, State::Healthy, why));
        }
    }

    /// The owner says that a retired card was repaired. Returns `false` if it was not retired.
    pub fn readmit(&mut self, uuid: &GpuUuid) -> bool {
        let Some(card) = self.cards.get_mut(uuid) else { return false };
        if card.record.state != State::Retired {
            return false;
        }
        card.record.quarantines = 0;
        self.changes.push_back(card.enter(
            uuid,
            State::Probation,
            "readmitted by its owner".to_owned(),
        ));
        true
    }
}

impl Card {
    fn enter(&mut self, uuid: &GpuUuid, state: State, why: String) -> Change {
        let from = self.record.state;
        self.record.state = state;
        self.record.why = why;
        self.proof_at = None;
        self.failures = 0;
        self.healthy_since = None;
        Change { card: uuid.clone(), from, now: self.record.clone() }
    }
}

#[cfg(test)]
mod tests;
