//! Whether a job can run on this node, and whether now: the whole policy, as one pure function.
//!
//! A job that could not run here however long it waited is refused. Of the others each is asked in
//! turn, in the order of the line: whoever fits in what is left goes; whoever does not has what it
//! asks for **set aside, as far as it is there**, and the next is asked about the rest.
//!
//! So a small job may pass a big one that waits, but only where it takes nothing that the big one
//! could use. Strict order would be simpler; it would also keep a free 3090 waiting because the
//! first in the line wants an H100. To let a job pass that is short enough to be over in time (as
//! batch schedulers do) would fill more cards; but all that is known of a run's length is its limit,
//! which is a guess of strangers, and the big job would pay for a wrong one.
//!
//! What must hold: a card is never given twice; slots, cores, memory and disk of the jobs that run
//! never exceed the offer; no job starts later because another went past it; whoever is first in
//! the line goes at the latest when those who ran when it came there have ended.

use std::collections::{BTreeMap, BTreeSet};

use super::{Gpu, GpuUuid, allocation::Wish};

/// A host has one or two kinds of cards; a status holds no more than these.
const KINDS_MAX: usize = 8;

/// What the node offers, once and for all jobs.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The cards; empty with `GPU_MODE=none`.
    pub gpus: Vec<Gpu>,
    /// Thousandths of a core for all jobs together.
    pub milli_cpus: u64,
    /// Memory for all jobs together, in MiB.
    pub memory_mib: u64,
    /// Disk under the node's data folder, in MiB, below which nothing is taken left out.
    pub disk_mib: u64,
    /// Whether the owner lets jobs use the engine's bridge.
    pub bridge: bool,
    /// Jobs at a time.
    pub slots: usize,
}

/// What a job asks for, resolved against the node's defaults.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The cards.
    pub gpus: Wish,
    /// What it takes of the host.
    pub share: Share,
    /// What it wants to reach.
    pub network: Reach,
}

/// A part of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Thousandths of a core.
    pub milli_cpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in MiB.
    pub disk_mib: u64,
}

/// What a job wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// The internet without the owner's network: not offered by this version.
    Internet,
    /// The engine's bridge.
    Bridge,
}

/// What a job that runs holds, beside its slot.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Its cards.
    pub gpus: &'a [GpuUuid],
    /// Its part of the host.
    pub share: Share,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can't run here, however long it waits.
    Never(NeverFits),
    /// Not before others have ended: what it waits for.
    Later(Scarce),
    /// At once, on these cards.
    Now(Vec<GpuUuid>),
}

/// Why a job can never run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeverFits {
    /// It wants GPUs; the node has none.
    NoGpu,
    /// It wants more of something than the node has: what, in words.
    TooLarge(String),
    /// It wants a network that the owner does not allow: which, in words.
    Network(&'static str),
}

/// What there is not enough of now, where jobs that run or stand before have what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scarce {
    Slots,
    Gpus,
    Cores,
    Memory,
    Disk,
}

/// What becomes of a job that asks for `demand`, where these run and those stand before it in the
/// line, the first one first.
pub fn decide(offer: &Offer, held: &[Held<'_>], ahead: &[&Demand], demand: &Demand) -> Verdict {
    if let Some(refusal) = refusal(offer, demand) {
        return Verdict::Never(refusal);
    }
    let mut free = Free::beside(offer, held);
    // One that lost its cards to a restart can't run any more: it must not hold up those behind.
    for earlier in ahead.iter().filter(|earlier| refusal(offer, earlier).is_none()) {
        free.take(earlier);
    }
    match free.lacks(demand) {
        Some(scarce) => Verdict::Later(scarce),
        None => Verdict::Now(free.take(demand)),
    }
}

/// Why the job could not run even with the whole node for itself.
fn refusal(offer: &Offer, demand: &Demand) -> Option<NeverFits> {
    let wish = &demand.gpus;
    if wish.count > 0 && offer.gpus.is_empty() {
        return Some(NeverFits::NoGpu);
    }
    if offer.gpus.iter().filter(|gpu| wish.accepts(gpu)).count() < wish.count {
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
    match demand.network {
        Reach::Bridge if !offer.bridge => Some(NeverFits::Network("bridge")),
        Reach::Internet => Some(NeverFits::Network("internet")),
        Reach::Nothing | Reach::Bridge => None,
    }
}

/// The cards of a node in words, equal ones together.
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

/// What of the node nobody has.
struct Free<'o> {
    slots: usize,
    share: Share,
    gpus: Vec<&'o Gpu>,
}

impl<'o> Free<'o> {
    /// What those who run leave. They may hold more than the offer: it was larger before a restart.
    fn beside(offer: &'o Offer, held: &[Held<'_>]) -> Self {
        let taken: BTreeSet<&GpuUuid> = held.iter().flat_map(|held| held.gpus).collect();
        let whole = Share {
            milli_cpus: offer.milli_cpus,
            memory_mib: offer.memory_mib,
            disk_mib: offer.disk_mib,
        };
        Self {
            slots: offer.slots.saturating_sub(held.len()),
            share: held.iter().fold(whole, |left, held| left.without(held.share)),
            gpus: offer.gpus.iter().filter(|gpu| !taken.contains(&gpu.uuid)).collect(),
        }
    }

    /// What there is too little of for this demand.
    fn lacks(&self, demand: &Demand) -> Option<Scarce> {
        let (there, wanted) = (self.share, demand.share);
        let scarce = [
            (self.slots == 0, Scarce::Slots),
            (demand.gpus.choose(&self.gpus).len() < demand.gpus.count, Scarce::Gpus),
            (there.milli_cpus < wanted.milli_cpus, Scarce::Cores),
            (there.memory_mib < wanted.memory_mib, Scarce::Memory),
            (there.disk_mib < wanted.disk_mib, Scarce::Disk),
        ];
        scarce.into_iter().find_map(|(lacks, what)| lacks.then_some(what))
    }

    /// Takes what is asked for, as far as it is there. The same for one who goes and for one who
    /// waits: either way it is not for those behind.
    fn take(&mut self, demand: &Demand) -> Vec<GpuUuid> {
        let chosen = demand.gpus.choose(&self.gpus);
        let uuids: Vec<GpuUuid> = chosen.into_iter().map(|gpu| gpu.uuid.clone()).collect();
        self.gpus.retain(|gpu| !uuids.contains(&gpu.uuid));
        self.slots = self.slots.saturating_sub(1);
        self.share = self.share.without(demand.share);
        uuids
    }
}

impl Share {
    /// What is left of it.
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
