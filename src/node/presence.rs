//! What a node says of itself in the bucket `NODES`: what it offers, and whether it takes jobs now.
//!
//! Pure. What must hold: a value of the bucket is a stranger's word: bounded, parsed once, and believed
//! only as far as that a job is worth waiting for; what a node doesn't know of itself it leaves out.

use serde::{Deserialize, Serialize};

use super::admission::Offer;
use super::{Gpu, GpuUuid};

/// A presence is put anew so often, in seconds; the bucket forgets it after three times that.
pub const EVERY_S: u64 = 20;

/// A longer value was written by nobody who follows the protocol.
pub const BYTES_MAX: usize = 16 * 1024;

/// So many of each list are said, and read.
const LIST_MAX: usize = 64;

/// The longest text that is said, and read.
const TEXT_BYTES_MAX: usize = 256;

/// What lies under a node's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The pools that it serves.
    pub pools: Vec<String>,
    /// Its cards.
    #[serde(default)]
    pub gpus: Vec<Card>,
    /// Jobs at a time.
    pub slots: usize,
    /// Slots that nobody holds now.
    pub free_slots: usize,
    /// Thousandths of a core for all jobs together.
    pub milli_cpus: u64,
    /// Memory for all jobs together, in MiB.
    pub memory_mib: u64,
    /// Disk for all jobs together, in MiB.
    pub disk_mib: u64,
    /// What jobs may ask to reach: `none`, `bridge`.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Whether it takes jobs now.
    pub ready: bool,
    /// Why it takes none, as one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Inputs that it need not fetch.
    #[serde(default)]
    pub cached: Vec<String>,
    /// Of its program.
    pub version: String,
}

/// One card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The driver's name of it.
    pub model: String,
    /// Its memory, in MiB.
    pub vram_mib: u64,
    /// What of that nobody uses, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_mib: Option<u64>,
    /// `ok`, or `aside`: it gets no job until it works again.
    pub health: String,
}

/// A value that is no presence.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It, a list or a text in it is too long.
    #[error("it is longer than a presence is")]
    TooLong,
    /// It is no JSON of a presence.
    #[error("it is no JSON object of a presence")]
    Json(#[source] serde_json::Error),
}

impl Presence {
    /// Of a node that serves these pools and offers this, with the cards in `aside` out of use.
    pub fn new(pools: Vec<String>, offer: &Offer, aside: &[GpuUuid]) -> Self {
        let health = |gpu: &Gpu| if aside.contains(&gpu.uuid) { "aside" } else { "ok" };
        let card = |gpu: &Gpu| Card {
            model: cut(&gpu.model),
            vram_mib: gpu.vram_mib,
            free_mib: None,
            health: health(gpu).to_owned(),
        };
        let networks = if offer.bridge { &["none", "bridge"][..] } else { &["none"] };
        Self {
            pools: pools.into_iter().take(LIST_MAX).collect(),
            gpus: offer.gpus.iter().take(LIST_MAX).map(card).collect(),
            slots: offer.slots,
            free_slots: 0,
            milli_cpus: offer.milli_cpus,
            memory_mib: offer.memory_mib,
            disk_mib: offer.disk_mib,
            networks: networks.iter().map(|&network| network.to_owned()).collect(),
            ready: true,
            reason: None,
            cached: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// With how it stands now; `reason`: why it takes no jobs.
    #[must_use]
    pub fn standing(self, free_slots: usize, reason: Option<&str>) -> Self {
        Self { free_slots, ready: reason.is_none(), reason: reason.map(cut), ..self }
    }

    /// Reads a value of the bucket. Unknown keys are ignored.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        if value.len() > BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        let parsed: Self = serde_json::from_slice(value).map_err(Invalid::Json)?;
        let lists =
            [parsed.pools.len(), parsed.gpus.len(), parsed.networks.len(), parsed.cached.len()];
        let texts = parsed.pools.iter().chain(&parsed.networks).chain(&parsed.cached);
        let texts = texts.chain(&parsed.reason).chain([&parsed.version]);
        let texts = texts.chain(parsed.gpus.iter().flat_map(|gpu| [&gpu.model, &gpu.health]));
        let text_max = TEXT_BYTES_MAX + '…'.len_utf8();
        let long_texts = texts.filter(|text| text.len() > text_max).count();
        let is_long = long_texts > 0 || lists.into_iter().any(|length| length > LIST_MAX);
        if is_long { Err(Invalid::TooLong) } else { Ok(parsed) }
    }

    /// As it lies in the bucket.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What it offers, busy or not, ready or not: what is broken may be mended.
    pub fn offer(&self) -> Offer {
        let gpus = self.gpus.iter().enumerate().filter_map(|(number, card)| {
            let uuid = GpuUuid::new(&format!("GPU-{number}"))?;
            Some(Gpu { uuid, model: card.model.clone(), vram_mib: card.vram_mib })
        });
        Offer {
            gpus: gpus.collect(),
            milli_cpus: self.milli_cpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            bridge: self.networks.iter().any(|network| network == "bridge"),
            slots: self.slots,
        }
    }
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
            bridge: true,
            slots: 2,
        }
    }

    #[test]
    fn what_a_node_says_of_itself_is_read_as_the_same_offer() {
        let aside = GpuUuid::new("GPU-b").unwrap();
        let said = Presence::new(vec!["it".to_owned()], &offer(), &[aside]);
        let said = said.standing(1, Some("none of the GPUs works"));
        assert!(!said.ready);
        let read = Presence::parse(said.to_json().as_bytes()).unwrap();
        assert_eq!(read, said);
        assert_eq!((&*read.gpus[0].health, &*read.gpus[1].health), ("ok", "aside"));
        let offered = read.offer();
        let cards: Vec<_> = offered.gpus.iter().map(|gpu| (&*gpu.model, gpu.vram_mib)).collect();
        assert_eq!(cards, [("Tesla T4", 16_000), ("NVIDIA L40S", 46_000)]);
        assert!(offered.bridge && offered.slots == 2);
    }

    #[test]
    fn a_hostile_value_is_refused_whatever_is_too_long_in_it() {
        let said = Presence::new(Vec::new(), &offer(), &[]);
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
