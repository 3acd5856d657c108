//! What a GPU's driver says of the card: what it is, how it does now, and what happened to it.
//!
//! Pure. Invariant: a value that the card or its driver does not give is absent, with the reason, and
//! never 0 (`docs/hardware.md` lists what an H100 does not give).

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::GpuUuid;

/// A value, or why it is not known.
pub type Reading<T> = Result<T, Unknown>;

/// Why a value is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// This card does not have it.
    NotSupported,
    /// The node's user may not read it.
    Denied,
    /// The driver is too old to be asked.
    TooOld,
    /// The card fell off the bus.
    Lost,
    /// Any other error; holds the driver's words.
    Failed(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSupported => "not supported by this card",
            Self::Denied => "not allowed to this user",
            Self::TooOld => "the driver is too old",
            Self::Lost => "the card fell off the bus",
            Self::Failed(why) => why,
        })
    }
}

/// What a card is, beside its UUID, model and memory. Does not change while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Address on the PCI bus, such as `00000000:00:06.0`; a MIG instance has its card's.
    pub pci: Reading<String>,
    /// CUDA compute capability, such as `9.0`.
    pub compute_capability: Reading<String>,
    /// The enforced power limit, in milliwatts; for a MIG instance that of its whole card.
    pub power_limit_mw: Reading<u32>,
    /// Whether its memory corrects errors.
    pub ecc: Reading<bool>,
    /// Whether it is split into MIG instances.
    pub mig: Reading<bool>,
    /// Whether the driver stays loaded while nobody uses the card.
    pub persistence: Reading<bool>,
    /// The number of its device node, `/dev/nvidia<number>`; a MIG instance has its card's. May be another one after
    /// the driver was loaded again.
    pub minor: Reading<u32>,
    /// The card of which this device is a MIG instance; `None` for a whole card.
    pub parent: Option<GpuUuid>,
}

impl Facts {
    /// The facts as a person reads them, in one line. What is not known stands at its end, with the reason.
    pub fn in_words(&self) -> String {
        let on = |is_on: bool| if is_on { "on" } else { "off" };
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        let mut tell = |name: &str, fact: Reading<String>| match fact {
            Ok(fact) => known.push(fact),
            Err(why) => unknown.push(format!("{name} ({why})")),
        };
        tell(
            "compute capability",
            self.compute_capability.clone().map(|it| format!("compute {it}")),
        );
        tell("PCI address", self.pci.clone().map(|it| format!("at {it}")));
        tell("power limit", self.power_limit_mw.clone().map(watts));
        tell("ECC", self.ecc.clone().map(|is_on| format!("ECC {}", on(is_on))));
        tell("MIG", self.mig.clone().map(|is_on| format!("MIG {}", on(is_on))));
        tell("persistence", self.persistence.clone().map(|it| format!("persistence {}", on(it))));
        if let Some(parent) = &self.parent {
            known.push(format!("instance of {parent}"));
        }
        if !unknown.is_empty() {
            known.push(format!("unknown: {}", unknown.join(", ")));
        }
        known.join(", ")
    }

    /// [`Facts::in_words`] as it follows a card's name.
    pub fn in_brackets(&self) -> String {
        format!(" ({})", self.in_words())
    }
}

fn watts(milliwatts: u32) -> String {
    format!("at most {} W", milliwatts / 1000)
}

/// How one card does at a moment. A MIG instance has memory and processes of its own; clocks, temperature,
/// errors and rows are those of its card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Share of the last moment in which a kernel ran, in percent. Not known of a MIG instance.
    pub busy_percent: Reading<u32>,
    /// Memory in use, in bytes, without what the driver reserves.
    pub used_bytes: Reading<u64>,
    /// Memory that is free, in bytes.
    pub free_bytes: Reading<u64>,
    /// Power drawn, in milliwatts. Not known of a MIG instance.
    pub power_mw: Reading<u32>,
    /// Energy since the driver was loaded, in millijoules; up to a minute old, since asking is slow. Not
    /// known of a MIG instance.
    pub energy_mj: Reading<u64>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Reading<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Reading<u32>,
    /// Temperature of the chip, in degrees Celsius.
    pub celsius: Reading<u32>,
    /// Why the clocks are lower than they could be.
    pub slowed: Reading<Slowed>,
    /// Memory errors since the driver was loaded that could not be corrected; up to a minute old (an
    /// event tells them at once).
    pub uncorrected_errors: Reading<u64>,
    /// State of the memory rows that stand in for defective ones; up to a minute old.
    pub rows: Reading<Rows>,
    /// The processes that hold a context on the card, in the order of their ids.
    pub processes: Reading<Vec<CardProcess>>,
}

impl Sample {
    /// A sample of which nothing is known, for this reason.
    pub fn unknown(why: &Unknown) -> Self {
        Self {
            busy_percent: Err(why.clone()),
            used_bytes: Err(why.clone()),
            free_bytes: Err(why.clone()),
            power_mw: Err(why.clone()),
            energy_mj: Err(why.clone()),
            sm_mhz: Err(why.clone()),
            memory_mhz: Err(why.clone()),
            celsius: Err(why.clone()),
            slowed: Err(why.clone()),
            uncorrected_errors: Err(why.clone()),
            rows: Err(why.clone()),
            processes: Err(why.clone()),
        }
    }
}

/// Reasons for lower clocks that say that something is wrong with the card or its surroundings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Slowed {
    /// It is too hot: the hardware or the software slows it.
    pub thermal: bool,
    /// Its supply tells it to draw less: the power brake.
    pub power_brake: bool,
}

/// Row remapping of a card with HBM memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// A row will be replaced at the next reset of the card.
    pub pending: bool,
    /// A row could not be replaced: no spare row is left.
    pub failed: bool,
}

/// A process that uses a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CardProcess {
    /// Its id on the host, whatever it is inside of a container.
    pub pid: u32,
    /// Memory of the card that it holds, in bytes.
    pub bytes: Reading<u64>,
}

/// The cards' samples of one round, or why one of them has none.
pub type Round = BTreeMap<GpuUuid, Reading<Sample>>;

/// Something that the driver reports the moment it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The card it happened to; `None` if the driver did not say. What happens to a card that is split is
    /// told of each of its MIG instances, since the driver does not say of which.
    pub card: Option<GpuUuid>,
    /// What happened.
    pub event: CardEvent,
}

/// What can happen to a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardEvent {
    /// An error with NVIDIA's number for it (<https://docs.nvidia.com/deploy/xid-errors/>).
    Xid(u64),
    /// A memory error that could not be corrected.
    UncorrectedError,
    /// The driver can't reach the card any more.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_one_line_and_what_is_not_known_is_said_so() {
        let facts = Facts {
            pci: Ok("00000000:00:06.0".to_owned()),
            compute_capability: Ok("9.0".to_owned()),
            power_limit_mw: Ok(700_000),
            ecc: Ok(true),
            mig: Ok(false),
            persistence: Ok(true),
            minor: Ok(0),
            parent: None,
        };
        let told =
            "compute 9.0, at 00000000:00:06.0, at most 700 W, ECC on, MIG off, persistence on";
        assert_eq!(facts.in_words(), told);
        let less = Facts {
            power_limit_mw: Err(Unknown::NotSupported),
            ecc: Err(Unknown::TooOld),
            mig: Ok(true),
            parent: GpuUuid::new("GPU-a"),
            ..facts
        };
        let told = "compute 9.0, at 00000000:00:06.0, MIG on, persistence on, instance of GPU-a, \
                    unknown: power limit (not supported by this card), ECC (the driver is too old)";
        assert_eq!(less.in_words(), told);
    }
}
