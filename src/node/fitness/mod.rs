//! Whether the node is fit to take jobs, judged by its engine, its cards, its disk, its store and its
//! last jobs.
//!
//! Pure: checks of the host and jobs report what they saw; the time is an argument. Invariants: a node
//! that can't run a job takes none; a card that failed a job, or that still has to be tried, gets none
//! until a probe finds it well; once a problem is gone, the node becomes fit again without its owner;
//! what a stranger's jobs can do to it passes within the longest [`REST`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::GpuUuid;
use crate::backoff::Backoff;

/// After this many jobs in a row that failed before their command ran, possibly by this node's fault, the
/// node rests. One or two may have been the jobs' own fault.
pub const FAULTS_MAX: u32 = 3;

/// How long a node rests then. Each further rest is longer, until a job runs.
pub const REST: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(5));

/// How long a card that failed is left alone before it is probed; longer after each failure.
const ASIDE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(10));

/// What is known about the node. What is unknown counts as well: a node that was never checked is fit.
#[derive(Debug, Clone, Default)]
pub struct Fitness {
    engine: Option<String>,
    driver: Option<String>,
    /// Why no container gets any card; cleared once one does.
    hook: Option<String>,
    cards: usize,
    missing: BTreeSet<GpuUuid>,
    aside: BTreeMap<GpuUuid, Aside>,
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

/// A card that was set aside because it failed.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    failures: u32,
    /// Whether a probe found it well since, so that jobs may get it again.
    well: bool,
    /// When it may be probed; set by the first check after the failure.
    probe_at: Option<Duration>,
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

/// Why the node takes no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No container can be started.
    #[error("the container engine can't be used: {0}")]
    Engine(String),
    /// The driver does not answer, or no container gets a card.
    #[error("the GPUs can't be used: {0}")]
    Driver(String),
    /// Every card is gone, or was set aside.
    #[error("none of the {0} GPUs works")]
    NoCard(usize),
    /// Too little disk space is free.
    #[error("{} MiB of disk are free, {} must stay", .0.free_mib, .0.min_mib)]
    Disk(Disk),
    /// The store refuses the output of a job.
    #[error("the store refuses what was run")]
    Store,
    /// The store takes no upload at all; holds its words.
    #[error("the store takes no upload: {0}")]
    Upload(String),
    /// A trial has no result yet, and will have one in a moment; holds what is tried.
    #[error("it was not tried yet whether {0}")]
    Untried(&'static str),
    /// Too many results wait to be published; holds how many.
    #[error("{0} results wait to be published")]
    Unpublished(usize),
    /// Jobs failed in a row before they ran.
    #[error("{count} jobs in a row failed before they ran, the last one so: {last}")]
    Faults {
        /// Number of such jobs.
        count: u32,
        /// The error of the last one.
        last: String,
    },
}

impl Unfit {
    /// The reason for strangers: without the words of the engine, the driver or a service.
    pub fn told(&self) -> String {
        match self {
            Self::Engine(_) => "the container engine can't be used".to_owned(),
            Self::Driver(_) => "the GPUs can't be used".to_owned(),
            Self::Upload(_) => "the store takes no upload".to_owned(),
            Self::Faults { count, .. } => format!("{count} jobs in a row failed before they ran"),
            other => other.to_string(),
        }
    }

    /// Whether the two differ in kind, and not only in an engine's words or a number.
    pub fn is_other_than(&self, other: &Self) -> bool {
        std::mem::discriminant(self) != std::mem::discriminant(other)
    }
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
        self.cards > 0 && self.out().len() >= self.cards
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

    /// The cards that no job gets: gone, or set aside. A card that was not tried yet is not among them:
    /// jobs wait for it.
    pub fn out(&self) -> BTreeSet<&GpuUuid> {
        let aside = self.aside.iter().filter(|(_, card)| !card.well).map(|(uuid, _)| uuid);
        self.missing.iter().chain(aside).collect()
    }

    /// The cards to probe now.
    pub fn to_probe(&self, now: Duration) -> Vec<GpuUuid> {
        let due = |card: &Aside| !card.well && card.probe_at.is_some_and(|at| at <= now);
        let due = self.aside.iter().filter(|(_, card)| due(card));
        self.untried.iter().chain(due.map(|(uuid, _)| uuid)).cloned().collect()
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
        self.schedule(now);
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
        let is_known = |uuid: &&GpuUuid| {
            self.untried.contains(*uuid)
                || self.missing.contains(*uuid)
                || self.aside.get(*uuid).is_some_and(|card| !card.well)
        };
        let others: Vec<GpuUuid> = known.iter().filter(|uuid| !is_known(uuid)).cloned().collect();
        self.cards_failed(&others);
    }

    /// Takes in probes of cards that were set aside, or not tried yet.
    pub fn probed(&mut self, probes: BTreeMap<GpuUuid, Probed>, now: Duration) {
        for (uuid, found) in probes {
            if self.untried.remove(&uuid) {
                self.tried_first(uuid, found);
                continue;
            }
            let Some(card) = self.aside.get_mut(&uuid) else { continue };
            card.probe_at = None;
            match found {
                Probed::Well => {
                    // It starts afresh: its failure may have been the job's own doing.
                    *card = Aside { failures: 0, well: true, probe_at: None };
                    self.hook = None;
                }
                Probed::Failed(_) => card.failures += 1,
                Probed::NoDriver(why) => {
                    card.failures += 1;
                    self.hook = Some(why);
                }
            }
        }
        self.schedule(now);
    }

    fn tried_first(&mut self, uuid: GpuUuid, found: Probed) {
        match found {
            Probed::Well => self.hook = None,
            Probed::Failed(_) => self.cards_failed(&[uuid]),
            Probed::NoDriver(why) => self.no_driver(&[uuid], &why),
        }
    }

    /// Sets when each card that is set aside may be probed.
    fn schedule(&mut self, now: Duration) {
        for card in self.aside.values_mut().filter(|card| !card.well) {
            card.probe_at.get_or_insert(now + ASIDE.delay(card.failures, 1.0));
        }
    }

    /// No container gets any card, as seen when one was to get these.
    pub fn no_driver(&mut self, cards: &[GpuUuid], why: &str) {
        if !cards.is_empty() {
            self.hook = Some(why.to_owned());
            self.cards_failed(cards);
        }
    }

    /// These cards could not be given to a container.
    pub fn cards_failed(&mut self, cards: &[GpuUuid]) {
        for uuid in cards {
            self.untried.remove(uuid);
            let card = self.aside.entry(uuid.clone()).or_default();
            *card = Aside { failures: card.failures + 1, well: false, probe_at: None };
        }
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
            self.aside.remove(uuid);
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
