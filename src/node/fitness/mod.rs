//! Whether the node is fit to take jobs, judged by its engine, its cards, its disk, its store and its
//! last jobs.
//!
//! Pure: checks of the host and jobs report what they saw; the time is an argument. Invariants: a node
//! that can't run a job takes none; a card that failed a job, or that still has to be tried, gets none
//! until a probe finds it well; once a problem is gone, the node becomes fit again without its owner;
//! what a stranger's jobs can do to it passes within the longest [`REST`].

mod unfit;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::GpuUuid;
use super::health::Health;
use crate::backoff::Backoff;

pub use unfit::Unfit;

/// After this many jobs in a row that failed before their command ran, possibly by this node's fault, the
/// node rests. One or two may have been the jobs' own fault.
pub const FAULTS_MAX: u32 = 3;

/// How long a node rests then. Each further rest is longer, until a job runs.
pub const REST: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(5));

/// What is known about the node. What is unknown counts as well: a node that was never checked is fit.
#[derive(Debug, Clone, Default)]
pub struct Fitness {
    engine: Option<String>,
    driver: Option<String>,
    /// Why no container gets any card; cleared once one does.
    hook: Option<String>,
    cards: usize,
    missing: BTreeSet<GpuUuid>,
    health: Health,
    /// Cards that no job gets for the moment though nothing is wrong with them, and why.
    held_back: BTreeMap<GpuUuid, String>,
    /// Cards that no container has had since the node started.
    untried: BTreeSet<GpuUuid>,
    disk: Option<Disk>,
    /// Whether the store refuses the output of a job that has run.
    store_refuses: bool,
    /// The store's answer to a few bytes that the node uploads as a trial.
    upload: Upload,
    /// Whether no gateway would give an input, whichever it is.
    gateways_away: bool,
    faults: u32,
    last_fault: String,
    /// Number of rests since a job ran.
    rests: u32,
    rest_until: Option<Duration>,
}

/// Whether the store takes uploads, as the node's trial showed.
#[derive(Debug, Clone, Default)]
enum Upload {
    /// It does, or it could not be asked.
    #[default]
    Taken,
    /// The node has not tried since its start.
    Untried,
    /// It does not; holds the store's words.
    Refused(String),
}

/// A shortage of disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Free space, in MiB.
    pub free_mib: u64,
    /// Space that must stay free, in MiB.
    pub min_mib: u64,
}

/// What one check of the host saw.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Why the engine can't be used; `None` if it can.
    pub engine: Option<String>,
    /// The cards that the driver knows; `Err` if it does not answer; `None` if it was not asked.
    pub cards: Option<Result<BTreeSet<GpuUuid>, String>>,
    /// The disk, if too little is free.
    pub disk: Option<Disk>,
}

/// What a probe of a card found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// A container gets the card.
    Well,
    /// No container gets this card; holds why.
    Failed(String),
    /// No container gets any card; holds why.
    NoDriver(String),
}

impl Fitness {
    /// The fitness of a node with this many cards.
    pub fn of(cards: usize) -> Self {
        Self { cards, ..Self::default() }
    }

    /// From here on, these cards and the store must be tried before the first job.
    pub fn expect_trials(&mut self, cards: impl IntoIterator<Item = GpuUuid>) {
        self.untried.extend(cards);
        self.upload = Upload::Untried;
    }

    /// Whether any trial is still to be made.
    pub fn is_untried(&self) -> bool {
        !self.untried.is_empty() || matches!(self.upload, Upload::Untried)
    }

    /// An error with the reason if the node should take no job now.
    pub fn verdict(&self) -> Result<(), Unfit> {
        if let Some(why) = &self.engine {
            return Err(Unfit::Engine(why.clone()));
        }
        if let Some(why) = self.driver.as_ref().or(self.hook.as_ref()) {
            return Err(Unfit::Driver(why.clone()));
        }
        if self.has_no_card() {
            return Err(Unfit::NoCard(self.cards));
        }
        if self.cards > 0
            && self.out().len() >= self.cards
            && let Some(why) = self.held_back.values().next()
        {
            return Err(Unfit::HeldBack(why.clone()));
        }
        if let Some(disk) = self.disk {
            return Err(Unfit::Disk(disk));
        }
        if let Some(why) = self.store_lacks() {
            return Err(why);
        }
        if self.faults >= FAULTS_MAX {
            let last = self.last_fault.clone();
            return Err(Unfit::Faults { count: self.faults, last });
        }
        match self.not_known_yet() {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// What every job needs and the node tries by itself, if a trial failed or is still to be made. A
    /// node that lacks something sends no heartbeats.
    pub fn lacks(&self) -> Option<Unfit> {
        let driver = self.driver.as_ref().or(self.hook.as_ref());
        let driver = driver.map(|why| Unfit::Driver(why.clone()));
        let cards = self.has_no_card().then_some(Unfit::NoCard(self.cards));
        driver.or(cards).or_else(|| self.store_lacks()).or_else(|| self.not_known_yet())
    }

    fn has_no_card(&self) -> bool {
        self.cards > 0 && self.lost().len() >= self.cards
    }

    fn store_lacks(&self) -> Option<Unfit> {
        match &self.upload {
            Upload::Refused(words) => Some(Unfit::Upload(words.clone())),
            _ => self.store_refuses.then_some(Unfit::Store),
        }
    }

    /// The trial that still has to be made before the first job. One card that is well is enough.
    fn not_known_yet(&self) -> Option<Unfit> {
        let unusable: BTreeSet<&GpuUuid> = self.out().into_iter().chain(&self.untried).collect();
        if !self.untried.is_empty() && unusable.len() >= self.cards {
            return Some(Unfit::Untried("containers get the GPUs"));
        }
        let untried = matches!(self.upload, Upload::Untried);
        untried.then_some(Unfit::Untried("the store takes an upload"))
    }

    /// Whether this card needs no trial, or was tried since the node started.
    pub fn was_tried(&self, card: &GpuUuid) -> bool {
        !self.untried.contains(card)
    }

    /// The cards that no job gets: gone, not healthy, or held back. A card that was not tried yet is not
    /// among them: jobs wait for it.
    pub fn out(&self) -> BTreeSet<&GpuUuid> {
        self.missing.iter().chain(self.health.out()).chain(self.held_back.keys()).collect()
    }

    /// The cards that are gone from the host, or not healthy: the rest may be given to jobs sooner or later.
    fn lost(&self) -> BTreeSet<&GpuUuid> {
        self.missing.iter().chain(self.health.out()).collect()
    }

    /// The cards to probe now. A card in quarantine needs its quiet time first, even if it was not tried.
    pub fn to_probe(&self, now: Duration) -> Vec<GpuUuid> {
        let untried = self.untried.iter().filter(|uuid| !self.health.is_defective(uuid));
        untried
            .chain(self.health.to_prove(now))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Takes in a check of the host; `known`: the node's cards.
    pub fn looked(&mut self, look: Look, known: &[GpuUuid], now: Duration) {
        self.engine = look.engine;
        self.disk = look.disk;
        match look.cards {
            None => {}
            Some(Err(why)) => self.driver = Some(why),
            Some(Ok(found)) => {
                self.driver = None;
                self.missing = known.iter().filter(|uuid| !found.contains(uuid)).cloned().collect();
            }
        }
        if self.hook.is_some() {
            self.suspect_all(known);
        }
        self.health.pass(now);
        if self.faults >= FAULTS_MAX {
            let rest = REST.delay(self.rests + 1, 1.0);
            let until = *self.rest_until.get_or_insert(now + rest);
            if until <= now {
                // The next job decides: it runs, or it is one more failure in the row.
                self.faults = FAULTS_MAX - 1;
                self.rests = self.rests.saturating_add(1);
                self.rest_until = None;
            }
        }
    }

    /// The engine gave a container no card at all: every card needs a probe of its own, or one that is dead
    /// and probed alone would keep the others out of use.
    fn suspect_all(&mut self, known: &[GpuUuid]) {
        let lost = self.lost();
        let is_known = |uuid: &&GpuUuid| self.untried.contains(*uuid) || lost.contains(*uuid);
        let others: Vec<GpuUuid> = known.iter().filter(|uuid| !is_known(uuid)).cloned().collect();
        self.cards_failed(&others, "the engine gave a container no GPU at all");
    }

    /// Takes in probes of cards that were not tried yet, or whose proof was due.
    pub fn probed(&mut self, probes: BTreeMap<GpuUuid, Probed>, now: Duration) {
        for (uuid, found) in probes {
            let was_untried = self.untried.remove(&uuid);
            match found {
                Probed::Well => {
                    self.health.proved(&uuid);
                    self.hook = None;
                }
                Probed::Failed(why) => self.cards_failed(&[uuid], &why),
                Probed::NoDriver(why) if was_untried => self.no_driver(&[uuid], &why),
                Probed::NoDriver(why) => {
                    self.health.not_tried(&uuid, &why);
                    self.hook = Some(why);
                }
            }
        }
        self.health.pass(now);
    }

    /// No container gets any card, as seen when one was to get these.
    pub fn no_driver(&mut self, cards: &[GpuUuid], why: &str) {
        if !cards.is_empty() {
            self.hook = Some(why.to_owned());
            self.cards_failed(cards, why);
        }
    }

    /// These cards could not be given to a container.
    pub fn cards_failed(&mut self, cards: &[GpuUuid], why: &str) {
        for uuid in cards {
            self.untried.remove(uuid);
            self.health.not_given(uuid, why);
        }
    }

    /// The health of the cards.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The health of the cards, to tell it what was seen of them.
    pub const fn health_mut(&mut self) -> &mut Health {
        &mut self.health
    }

    /// Sets the cards that no job gets for the moment though nothing is wrong with them, each with the
    /// reason.
    pub fn hold_back(&mut self, cards: BTreeMap<GpuUuid, String>) {
        self.held_back = cards;
    }

    /// The cards that are held back, with the reasons.
    pub const fn held_back(&self) -> &BTreeMap<GpuUuid, String> {
        &self.held_back
    }

    /// A job failed before its command ran, possibly by this node's own fault.
    pub fn job_failed(&mut self, error: &str) {
        self.faults = self.faults.saturating_add(1);
        error.clone_into(&mut self.last_fault);
        self.rest_until = None;
    }

    /// Takes in whether a gateway serves what the node itself asks for.
    pub const fn gateways(&mut self, serve: bool) {
        self.gateways_away = !serve;
    }

    /// Whether a missing input is the fault of its job: the gateways serve. A stranger who names content
    /// that nobody has must not keep the node from others' jobs.
    pub const fn gateways_serve(&self) -> bool {
        !self.gateways_away
    }

    /// A job's command runs on these cards.
    pub fn job_runs(&mut self, cards: &[GpuUuid]) {
        (self.faults, self.rests, self.rest_until) = (0, 0, None);
        if !cards.is_empty() {
            self.hook = None;
        }
        for uuid in cards {
            self.health.proved(uuid);
            self.untried.remove(uuid);
        }
    }

    /// Takes in whether the store refuses the output of a job.
    pub const fn store(&mut self, refuses: bool) {
        self.store_refuses = refuses;
    }

    /// Takes in the store's answer to the node's trial upload: its words if it refuses.
    pub fn uploaded(&mut self, refusal: Option<String>) {
        self.upload = refusal.map_or(Upload::Taken, Upload::Refused);
    }

    /// The store can't be asked now. That alone stops no job; what it answered before still counts.
    pub fn not_uploaded(&mut self) {
        if matches!(self.upload, Upload::Untried) {
            self.upload = Upload::Taken;
        }
    }
}

#[cfg(test)]
mod tests;
