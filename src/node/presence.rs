//! What a node publishes about itself in the bucket `NODES`: what it offers, and whether it takes jobs
//! now.
//!
//! Pure. Invariants: a bucket value is untrusted: it is bounded, parsed once, and only used to judge
//! whether a job is worth waiting; a node leaves out what it does not know about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::admission::{Offer, Reach};
use super::{Gpu, GpuUuid};

/// How often a node renews its presence, in seconds; the bucket drops it after three times that.
pub const EVERY_S: u64 = 20;

/// Largest bucket value that is read, in bytes.
pub const BYTES_MAX: usize = 16 * 1024;

/// A card's health where strangers' jobs get no GPU, because of the host's container toolkit.
pub const UNSAFE: &str = "unsafe";

/// Most entries of each list that are written, and read.
const LIST_MAX: usize = 64;

/// Longest text that is written, and read, in bytes; a `…` may follow.
const TEXT_BYTES_MAX: usize = 256;

/// The bucket's value under a node's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The pools that it serves.
    pub pools: Vec<String>,
    /// The cards that it offers.
    #[serde(default)]
    pub gpus: Vec<Card>,
    /// Number of jobs at a time.
    pub slots: usize,
    /// Slots that no job holds now.
    pub free_slots: usize,
    /// Thousandths of a core for all jobs together.
    pub milli_cpus: u64,
    /// Memory for all jobs together, in MiB.
    pub memory_mib: u64,
    /// Disk for all jobs together, in MiB.
    pub disk_mib: u64,
    /// Networks that jobs may ask for: `none`, `internet`, `bridge`.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The sandbox that every job gets at least: `standard` or `strict`.
    #[serde(default = "standard")]
    pub sandbox: String,
    /// Whether it takes jobs now.
    pub ready: bool,
    /// Why it takes none now, as one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Inputs that it does not have to fetch.
    #[serde(default)]
    pub cached: Vec<String>,
    /// Version of its program.
    pub version: String,
    /// The run of its program: a UUID that each start makes anew; absent in older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// One card of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The driver's name of the model.
    pub model: String,
    /// Total memory, in MiB.
    pub vram_mib: u64,
    /// Free memory in MiB, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_mib: Option<u64>,
    /// `ok`; or why it gets no job now: `suspect`, `quarantined`, `probation` or `retired`
    /// ([`super::health::State`]), or `aside`: gone, or used by the host itself, or [`UNSAFE`].
    pub health: String,
}

/// A bucket value that is not a presence.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The value, or a list or text in it, is too long.
    #[error("it is longer than a presence is")]
    TooLong,
    /// Not a JSON object with a presence's keys.
    #[error("it is no JSON object of a presence")]
    Json(#[source] serde_json::Error),
}

impl Presence {
    /// The presence of a node that serves these pools and offers this, with the cards in `out` out of use,
    /// each for the reason in one word.
    pub fn new(pools: Vec<String>, offer: &Offer, out: &BTreeMap<GpuUuid, &'static str>) -> Self {
        let health = |gpu: &Gpu| out.get(&gpu.uuid).copied().unwrap_or("ok");
        let card = |gpu: &Gpu| Card {
            model: cut(&gpu.model),
            vram_mib: gpu.vram_mib,
            free_mib: None,
            health: health(gpu).to_owned(),
        };
        let networks = Reach::ALL.into_iter().filter(|network| *network <= offer.network);
        Self {
            pools: pools.into_iter().take(LIST_MAX).collect(),
            gpus: offer.gpus.iter().take(LIST_MAX).map(card).collect(),
            slots: offer.slots,
            free_slots: 0,
            milli_cpus: offer.milli_cpus,
            memory_mib: offer.memory_mib,
            disk_mib: offer.disk_mib,
            networks: networks.map(|network| network.name().to_owned()).collect(),
            sandbox: standard(),
            ready: true,
            reason: None,
            cached: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: None,
        }
    }

    /// The same, said by this run of the program.
    #[must_use]
    pub fn said_by(self, instance: &str) -> Self {
        Self { instance: Some(cut(instance)), ..self }
    }

    /// The same with the present state; `reason`: why the node takes no jobs, if it takes none.
    #[must_use]
    pub fn standing(self, free_slots: usize, reason: Option<&str>) -> Self {
        Self { free_slots, ready: reason.is_none(), reason: reason.map(cut), ..self }
    }

    /// The same of a node whose jobs are all in the strict sandbox.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { sandbox: "strict".to_owned(), ..self }
    }

    /// Parses a bucket value. Unknown keys are ignored.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        if value.len() > BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        let parsed: Self = serde_json::from_slice(value).map_err(Invalid::Json)?;
        let lists =
            [parsed.pools.len(), parsed.gpus.len(), parsed.networks.len(), parsed.cached.len()];
        let texts = parsed.pools.iter().chain(&parsed.networks).chain(&parsed.cached);
        let texts = texts
            .chain(&parsed.reason)
            .chain([&parsed.version, &parsed.sandbox])
            .chain(&parsed.instance);
        let texts = texts.chain(parsed.gpus.iter().flat_map(|gpu| [&gpu.model, &gpu.health]));
        let text_max = TEXT_BYTES_MAX + '…'.len_utf8();
        let long_texts = texts.filter(|text| text.len() > text_max).count();
        let is_long = long_texts > 0 || lists.into_iter().any(|length| length > LIST_MAX);
        if is_long { Err(Invalid::TooLong) } else { Ok(parsed) }
    }

    /// The presence as JSON, as the bucket stores it.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What the node offers, whether or not it is busy or ready: what is broken may be repaired. Cards that
    /// strangers don't get are not offered.
    pub fn offer(&self) -> Offer {
        let cards = self.gpus.iter().filter(|card| card.health != UNSAFE);
        let gpus = cards.enumerate().filter_map(|(number, card)| {
            let uuid = GpuUuid::new(&format!("GPU-{number}"))?;
            Some(Gpu { uuid, model: card.model.clone(), vram_mib: card.vram_mib })
        });
        let names = |network: &Reach| self.networks.iter().any(|name| name == network.name());
        Offer {
            gpus: gpus.collect(),
            milli_cpus: self.milli_cpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            network: Reach::ALL.into_iter().filter(names).max().unwrap_or_default(),
            slots: self.slots,
        }
    }
}

fn standard() -> String {
    "standard".to_owned()
}

fn cut(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    match end {
        Some(end) if end < text.len() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let gpu = |uuid: &str, model: &str, vram_mib| Gpu {
            uuid: GpuUuid::new(uuid).unwrap(),
            model: model.to_owned(),
            vram_mib,
        };
        Offer {
            gpus: vec![gpu("GPU-a", "Tesla T4", 16_000), gpu("GPU-b", "NVIDIA L40S", 46_000)],
            milli_cpus: 8_000,
            memory_mib: 32_000,
            disk_mib: 100_000,
            network: Reach::Bridge,
            slots: 2,
        }
    }

    #[test]
    fn what_a_node_says_of_itself_is_read_as_the_same_offer() {
        let out = [(GpuUuid::new("GPU-b").unwrap(), "quarantined")].into();
        let said = Presence::new(vec!["it".to_owned()], &offer(), &out);
        let said = said.strict().standing(1, Some("none of the GPUs works"));
        assert!(!said.ready);
        let read = Presence::parse(said.to_json().as_bytes()).unwrap();
        assert_eq!(read, said);
        assert_eq!((&*read.gpus[0].health, &*read.gpus[1].health), ("ok", "quarantined"));
        assert_eq!(read.sandbox, "strict");
        let offered = read.offer();
        let cards: Vec<_> = offered.gpus.iter().map(|gpu| (&*gpu.model, gpu.vram_mib)).collect();
        assert_eq!(cards, [("Tesla T4", 16_000), ("NVIDIA L40S", 46_000)]);
        assert_eq!((offered.network, offered.slots), (Reach::Bridge, 2));
    }

    #[test]
    fn a_hostile_value_is_refused_whatever_is_too_long_in_it() {
        let said = Presence::new(Vec::new(), &offer(), &BTreeMap::new());
        let with = |change: fn(&mut Presence)| {
            let mut said = said.clone();
            change(&mut said);
            Presence::parse(said.to_json().as_bytes()).is_ok()
        };
        assert!(with(|_| {}));
        assert!(!with(|said| said.pools = vec!["x".to_owned(); 65]));
        assert!(!with(|said| said.gpus = vec![said.gpus[0].clone(); 65]));
        assert!(!with(|said| said.cached = vec!["x".to_owned(); 65]));
        assert!(!with(|said| said.gpus[0].model = "x".repeat(300)));
        assert!(!with(|said| said.reason = Some("x".repeat(20_000))));
        for value in ["", "null", "[]", "{}", r#"{"pools": 1}"#] {
            assert!(Presence::parse(value.as_bytes()).is_err(), "{value}");
        }
        let long = said.standing(0, Some(&"ü".repeat(4_000)));
        assert!(Presence::parse(long.to_json().as_bytes()).is_ok(), "it cuts its own");
    }
}
