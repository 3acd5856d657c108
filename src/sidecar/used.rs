//! What programs and the machine use now, for all who only look.
//!
//! Invariants: a value that could not be read is unknown, with the reason, and never 0; nothing of this is part of what
//! a verdict rests on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::host::machine::Memory;
use crate::node::GpuUuid;
use crate::usage::{CardMetric, CardReadings, Metric, Reading, Readings, Unknown};

/// The shortest time after which a sample is too old.
const STALE_MIN: Duration = Duration::from_secs(30);

/// Where a figure of a program is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// In the control group of its unit or container.
    Group,
    /// At its single processes.
    Processes,
}

impl By {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Processes => "processes",
        }
    }
}

/// What a program used at one look. Counters count from when the sidecar began to look.
#[derive(Debug, Clone)]
pub struct Used {
    /// When.
    pub at: Timestamp,
    /// Its share of one core since the look before, in percent: two busy cores are 200.
    pub cpu_percent: Result<f64, Unknown>,
    /// What it used as a whole. What is not sampled of programs is [`Unknown::Off`].
    pub readings: Readings,
    /// Where CPU time, memory and disk are counted.
    pub by: [(&'static str, By); 3],
    /// The first digits of its container's id, if it has one.
    pub container: Option<String>,
    /// Bytes free on the disk of its folder.
    pub disk_free: Reading,
    /// What it uses of each card, or why nobody knows which it uses.
    pub cards: Result<Vec<(GpuUuid, CardReadings)>, Unknown>,
}

impl Used {
    /// How busy its busiest card is, in percent; unknown also if it has none.
    pub fn gpu_busy(&self) -> Reading {
        let cards = self.cards.as_ref().map_err(|why| *why)?;
        let busy = cards.iter().map(|(_, card)| card[CardMetric::Busy]);
        busy.max_by_key(|it| it.ok()).unwrap_or(Err(Unknown::Gone))
    }

    /// Bytes that it holds of all its cards; unknown also if it has none.
    pub fn gpu_memory(&self) -> Reading {
        let cards = self.cards.as_ref().map_err(|why| *why)?;
        let held = cards.iter().map(|(_, card)| card[CardMetric::Memory]);
        held.reduce(|sum, more| Ok(sum?.saturating_add(more?))).unwrap_or(Err(Unknown::Gone))
    }

    /// The value of a figure that rules can name, or why it is not known.
    #[expect(clippy::cast_precision_loss, reason = "no size comes near 2^52")]
    pub fn figure(&self, name: &str) -> Result<f64, Unknown> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        match name {
            "cpu_percent" => self.cpu_percent,
            "memory_mib" => self.readings[Metric::Memory].map(mib),
            "gpu_busy_percent" => self.gpu_busy().map(|it| it as f64),
            "disk_free_mib" => self.disk_free.map(mib),
            _ => Err(Unknown::NotSupported),
        }
    }
}

/// What the machine did at one look.
#[derive(Debug, Clone)]
pub struct MachineUsed {
    /// When.
    pub at: Timestamp,
    /// How busy all processors together were since the look before, from 0 to 100.
    pub cpu_percent: Result<f64, Unknown>,
    /// Number of processors.
    pub cores: Reading,
    /// The processors' temperature in degrees Celsius.
    pub celsius: Reading,
    /// Its memory.
    pub memory: Result<Memory, Unknown>,
    /// Its load over 1, 5 and 15 minutes.
    pub load: Result<[f64; 3], Unknown>,
    /// CPU time, memory, swap and traffic, for its series.
    pub readings: Readings,
    /// Its cards, in the driver's order, or why they can't be told.
    pub cards: Result<Vec<Card>, Unknown>,
}

/// A card as a whole.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its number, as the driver counts.
    pub index: u32,
    /// Its UUID.
    pub uuid: GpuUuid,
    /// What the driver says of it; its memory is what all programs hold.
    pub readings: CardReadings,
    /// All its memory, in bytes.
    pub memory_total: Reading,
}

/// The newest of all. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Newest>>);

#[derive(Debug, Default)]
struct Newest {
    programs: BTreeMap<String, Arc<Used>>,
    machine: Option<Arc<MachineUsed>>,
    every: Duration,
    cost: Duration,
}

impl Board {
    /// What a program used at the last look; `None` if it was never looked at.
    pub fn of(&self, name: &str) -> Option<Arc<Used>> {
        self.newest().programs.get(name).cloned()
    }

    /// What the machine did at the last look.
    pub fn machine(&self) -> Option<Arc<MachineUsed>> {
        self.newest().machine.clone()
    }

    /// How often is looked; zero: never.
    pub fn every(&self) -> Duration {
        self.newest().every
    }

    /// Whether what was sampled then says nothing of now: some looks in a row were missed.
    pub fn is_old(&self, at: Timestamp, now: Timestamp) -> bool {
        now.since(at) > self.every().saturating_mul(3).max(STALE_MIN)
    }

    /// CPU time that sampling has cost so far.
    pub fn cost(&self) -> Duration {
        self.newest().cost
    }

    /// Says how often is looked.
    pub fn begins(&self, every: Duration) {
        self.newest().every = every;
    }

    /// Puts a look in the place of the last one.
    pub fn put(&self, programs: BTreeMap<String, Arc<Used>>, machine: MachineUsed, cost: Duration) {
        let mut newest = self.newest();
        newest.programs = programs;
        newest.machine = Some(Arc::new(machine));
        newest.cost = cost;
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
