//! Whether a job can run on this node, and whether now: the whole policy, as one pure function.
//!
//! A job that could never run here, however long it waited, is refused. The others are considered in the
//! order of the line: a job that fits in what is left starts; for a job that does not, what it asks for
//! is **set aside, as far as it is free**, and the next one is considered with the rest.
//!
//! So a small job may overtake a waiting big one only if it takes nothing that the big one could use.
//! Strict order would be simpler, but a free 3090 would stay idle because the first in the line wants an
//! H100. Letting a job overtake because it is short enough to be over in time (as batch schedulers do)
//! would fill more cards. But all that is known of a run's length is its limit, which is a stranger's
//! guess, and the big job would pay for a wrong one.
//!
//! Invariants: a card is never given twice; slots, cores, memory and disk of the running jobs never
//! exceed the offer; no job starts later because another overtook it; the first in the line starts at the
//! latest once the jobs have ended that were running when it became the first.

use std::collections::{BTreeMap, BTreeSet};

use super::allocation::{Rack, Wish, choose};
use super::{Gpu, GpuUuid};

/// Most kinds of cards that an error lists. A host has one or two.
const KINDS_MAX: usize = 8;

/// What the node offers to all jobs together.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The cards; empty with `GPU_MODE=none`.
    pub gpus: Vec<Gpu>,
    /// Thousandths of a core for all jobs together.
    pub milli_cpus: u64,
    /// Memory for all jobs together, in MiB.
    pub memory_mib: u64,
    /// Disk in the node's data folder for all jobs together, in MiB, without the part that must stay
    /// free.
    pub disk_mib: u64,
    /// The widest network that the owner lets jobs ask for.
    pub network: Reach,
    /// Number of jobs at a time.
    pub slots: usize,
}

/// What a job asks for, with the node's defaults for what it leaves open.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The cards that it asks for.
    pub gpus: Wish,
    /// Its share of the host.
    pub share: Share,
    /// The network that it wants to reach.
    pub network: Reach,
}

/// A share of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Thousandths of a core.
    pub milli_cpus: u64,
    /// Main memory, in MiB.
    pub memory_mib: u64,
    /// Disk space, in MiB.
    pub disk_mib: u64,
}

/// The network that a job wants to reach; each reaches more than those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// No network at all.
    #[default]
    Nothing,
    /// The internet without the host and the owner's network.
    Internet,
    /// The engine's bridge network.
    Bridge,
}

impl Reach {
    /// All networks, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Internet, Self::Bridge];

    /// As jobs and presences name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Internet => "internet",
            Self::Bridge => "bridge",
        }
    }
}

/// What a running job holds, besides its slot.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The cards that it holds.
    pub gpus: &'a [GpuUuid],
    /// Its share of the host.
    pub share: Share,
}

/// What is decided about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can never run here, however long it waits.
    Never(NeverFits),
    /// It has to wait until others have ended; holds what it waits for.
    Later(Scarce),
    /// It may start at once, on these cards.
    Now(Vec<GpuUuid>),
}

/// Why a job can never run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeverFits {
    /// It wants GPUs; the node has none.
    NoGpu,
    /// It wants more of something than the node has; holds a sentence.
    TooLarge(String),
    /// It wants a network that the owner does not allow; holds the network's name.
    Network(&'static str),
}

/// The resource that is short now, after what running jobs hold and those ahead in the line need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scarce {
    Slots,
    Gpus,
    Cores,
    Memory,
    Disk,
}

/// Decides about a job that asks for `demand`, given the running jobs (`held`) and those `ahead` of it in
/// the line, the first one first.
pub fn decide<'a>(
    offer: &'a Offer,
    held: &[Held<'_>],
    ahead: &[&'a Demand],
    demand: &'a Demand,
) -> Verdict {
    let mut rack = Rack::of(&offer.gpus);
    if let Some(refusal) = refusal(offer, demand, &mut rack) {
        return Verdict::Never(refusal);
    }
    let mut free = Free::beside(offer, held, rack);
    for earlier in ahead {
        if free.slots == 0 {
            break;
        }
        free.serve(offer, earlier);
    }
    let chosen = free.choose(demand);
    match free.lacks(demand, &chosen) {
        Some(scarce) => Verdict::Later(scarce),
        None => Verdict::Now(free.take(demand, &chosen)),
    }
}

/// [`decide`] about every job of a line at once: those that may start now, by their place in the line, with their
/// cards. As long as nothing else changes the verdicts on the others stay the same when one of them starts.
pub fn round<'a>(
    offer: &'a Offer,
    held: &[Held<'_>],
    line: impl IntoIterator<Item = &'a Demand>,
) -> Vec<(usize, Vec<GpuUuid>)> {
    let mut free = Free::beside(offer, held, Rack::of(&offer.gpus));
    let mut starts = Vec::new();
    for (place, demand) in line.into_iter().enumerate() {
        if free.slots == 0 {
            break;
        }
        starts.extend(free.serve(offer, demand).map(|cards| (place, cards)));
    }
    starts
}

/// Why the job could not run even with the whole node to itself; `None` if it could.
fn refusal<'a>(offer: &'a Offer, demand: &'a Demand, rack: &mut Rack<'a>) -> Option<NeverFits> {
    let wish = &demand.gpus;
    if wish.count > 0 && offer.gpus.is_empty() {
        return Some(NeverFits::NoGpu);
    }
    if rack.suitable(wish).len() < wish.count {
        let model = wish.model.as_ref().map(|model| format!(" of model {model:?}"));
        let memory = (wish.min_vram_mib > 0).then(|| format!(" with {} MiB", wish.min_vram_mib));
        let text = format!(
            "the job wants {} GPU(s){}{}; this node has {}",
            wish.count,
            model.unwrap_or_default(),
            memory.unwrap_or_default(),
            cards(&offer.gpus)
        );
        return Some(NeverFits::TooLarge(text));
    }
    let wanted = demand.share;
    let limits = [
        ("thousandths of a core", wanted.milli_cpus, offer.milli_cpus),
        ("MiB of memory", wanted.memory_mib, offer.memory_mib),
        ("MiB of disk", wanted.disk_mib, offer.disk_mib),
    ];
    for (unit, wanted, there) in limits {
        if wanted > there {
            let text = format!("the job wants {wanted} {unit}; this node has {there}");
            return Some(NeverFits::TooLarge(text));
        }
    }
    (demand.network > offer.network).then(|| NeverFits::Network(demand.network.name()))
}

/// The cards of a node in words, with equal ones counted together.
fn cards(gpus: &[Gpu]) -> String {
    let mut kinds: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for gpu in gpus {
        *kinds.entry((&gpu.model, gpu.vram_mib)).or_default() += 1;
    }
    let others = kinds.len().saturating_sub(KINDS_MAX);
    let kinds = kinds.into_iter().take(KINDS_MAX);
    let mut told: Vec<String> =
        kinds.map(|((model, mib), count)| format!("{count} x {model} ({mib} MiB)")).collect();
    told.extend((others > 0).then(|| format!("{others} other kinds")));
    told.join(", ")
}

/// The part of the node that is free.
struct Free<'a> {
    slots: usize,
    share: Share,
    rack: Rack<'a>,
    /// Which cards of the rack are free.
    cards: Vec<bool>,
}

impl<'a> Free<'a> {
    /// What the running jobs leave. They may hold more than the offer, if it was larger before a restart.
    fn beside(offer: &'a Offer, held: &[Held<'_>], rack: Rack<'a>) -> Self {
        let taken: BTreeSet<&GpuUuid> = held.iter().flat_map(|held| held.gpus).collect();
        let whole = Share {
            milli_cpus: offer.milli_cpus,
            memory_mib: offer.memory_mib,
            disk_mib: offer.disk_mib,
        };
        Self {
            slots: offer.slots.saturating_sub(held.len()),
            share: held.iter().fold(whole, |left, held| left.without(held.share)),
            cards: rack.cards().iter().map(|gpu| !taken.contains(&gpu.uuid)).collect(),
            rack,
        }
    }

    /// Serves the next job of the line: returns its cards if it may start.
    fn serve(&mut self, offer: &'a Offer, demand: &'a Demand) -> Option<Vec<GpuUuid>> {
        // A waiting job whose cards are gone since a restart can't run any more: it must not delay the jobs
        // behind it.
        if refusal(offer, demand, &mut self.rack).is_some() {
            return None;
        }
        let chosen = self.choose(demand);
        let starts = self.lacks(demand, &chosen).is_none();
        let cards = self.take(demand, &chosen);
        starts.then_some(cards)
    }

    /// The first resource that is too short for this demand, if any. `chosen`: the cards that it would get.
    fn lacks(&self, demand: &Demand, chosen: &[usize]) -> Option<Scarce> {
        let (there, wanted) = (self.share, demand.share);
        let scarce = [
            (self.slots == 0, Scarce::Slots),
            (chosen.len() < demand.gpus.count, Scarce::Gpus),
            (there.milli_cpus < wanted.milli_cpus, Scarce::Cores),
            (there.memory_mib < wanted.memory_mib, Scarce::Memory),
            (there.disk_mib < wanted.disk_mib, Scarce::Disk),
        ];
        scarce.into_iter().find_map(|(lacks, what)| lacks.then_some(what))
    }

    /// The places of the free cards that it would get.
    fn choose(&mut self, demand: &'a Demand) -> Vec<usize> {
        choose(&self.rack.suitable(&demand.gpus), &self.cards, demand.gpus.count)
    }

    /// Takes what is asked for, as far as it is free. The same for a job that starts and for one that
    /// waits: either way the jobs behind it can't have that.
    fn take(&mut self, demand: &Demand, chosen: &[usize]) -> Vec<GpuUuid> {
        for place in chosen {
            self.cards[*place] = false;
        }
        self.slots = self.slots.saturating_sub(1);
        self.share = self.share.without(demand.share);
        chosen.iter().map(|place| self.rack.cards()[*place].uuid.clone()).collect()
    }
}

impl Share {
    /// What is left without `other`.
    const fn without(self, other: Self) -> Self {
        Self {
            milli_cpus: self.milli_cpus.saturating_sub(other.milli_cpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            disk_mib: self.disk_mib.saturating_sub(other.disk_mib),
        }
    }
}

#[cfg(test)]
mod tests;
