//! Whether this node can ever run a job: decided before anything is fetched.
//!
//! Pure. What must hold: a job that is refused here could not have run on this node however long it
//! waited; everything else is taken and waits for its turn.

use super::{Gpu, allocation::Wish};

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
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The cards.
    pub gpus: Wish<'a>,
    /// Thousandths of a core.
    pub milli_cpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in MiB: the job's own word where it gave one.
    pub disk_mib: u64,
    /// What it wants to reach.
    pub network: Reach,
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

/// Why a job can never run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It wants GPUs; the node has none.
    NoGpu,
    /// It wants more of something than the node has: what, in words.
    TooLarge(String),
    /// It wants a network that the owner does not allow: which, in words.
    Network(&'static str),
}

/// `Err` where the node can never run the job.
pub fn admit(offer: &Offer, demand: &Demand<'_>) -> Result<(), Refusal> {
    if demand.gpus.count > 0 && offer.gpus.is_empty() {
        return Err(Refusal::NoGpu);
    }
    if !demand.gpus.can_fit(&offer.gpus) {
        let wish = &demand.gpus;
        let model = wish.model.map(|model| format!(" of model {model:?}")).unwrap_or_default();
        let text = format!(
            "{} GPU(s){model} with {} MiB each are not in this node",
            wish.count, wish.min_vram_mib
        );
        return Err(Refusal::TooLarge(text));
    }
    let limits = [
        ("thousandths of a core", demand.milli_cpus, offer.milli_cpus),
        ("MiB of memory", demand.memory_mib, offer.memory_mib),
        ("MiB of disk", demand.disk_mib, offer.disk_mib),
    ];
    for (unit, wanted, there) in limits {
        if wanted > there {
            let text = format!("the job wants {wanted} {unit}; this node has {there}");
            return Err(Refusal::TooLarge(text));
        }
    }
    match demand.network {
        Reach::Bridge if !offer.bridge => Err(Refusal::Network("bridge")),
        Reach::Internet => Err(Refusal::Network("internet")),
        Reach::Nothing | Reach::Bridge => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            gpus: Vec::new(),
            milli_cpus: 2000,
            memory_mib: 1000,
            disk_mib: 1000,
            bridge: false,
            slots: 2,
        }
    }

    fn demand() -> Demand<'static> {
        Demand {
            gpus: Wish { count: 0, model: None, min_vram_mib: 0 },
            milli_cpus: 2000,
            memory_mib: 1000,
            disk_mib: 1000,
            network: Reach::Nothing,
        }
    }

    #[test]
    fn what_fits_exactly_is_taken() {
        assert_eq!(admit(&offer(), &demand()), Ok(()));
    }

    #[test]
    fn each_thing_that_never_fits_is_refused_by_name() {
        let gpu = Wish { count: 1, model: None, min_vram_mib: 0 };
        assert_eq!(admit(&offer(), &Demand { gpus: gpu, ..demand() }), Err(Refusal::NoGpu));
        for (demand, word) in [
            (Demand { milli_cpus: 2001, ..demand() }, "core"),
            (Demand { memory_mib: 1001, ..demand() }, "memory"),
            (Demand { disk_mib: 1001, ..demand() }, "disk"),
        ] {
            let Err(Refusal::TooLarge(text)) = admit(&offer(), &demand) else { panic!("{word}") };
            assert!(text.contains(word), "{text}");
        }
        for network in [Reach::Internet, Reach::Bridge] {
            let refusal = admit(&offer(), &Demand { network, ..demand() });
            assert!(matches!(refusal, Err(Refusal::Network(_))));
        }
    }
}
