//! The cards, asked through NVIDIA's library.
//!
//! Invariants: a library that is not there, and a driver that does not answer, cost one deadline, are said once, and are
//! then left alone for a while; the tool of the driver is never started, which costs more than the sidecar may.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::gpu::nvml::Nvml;
use crate::gpu::{Error, GpuProbe as _};
use crate::node::card::Round;
use crate::node::{GpuInventory, GpuUuid};
use crate::report::causes;
use crate::sidecar::used::Card;
use crate::usage::card::{of_all, why};
use crate::usage::{CardMetric, CardReadings, Unknown};

/// How long the driver may take. A healthy one answers in milliseconds, a card that wakes up in a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a driver that did not answer is left alone.
const REST: Duration = Duration::from_mins(1);

/// How long nobody looks whether a library has come.
const REST_WITHOUT: Duration = Duration::from_mins(10);

const MIB: u64 = 1 << 20;

/// The cards of this machine.
#[derive(Debug)]
pub(super) struct Cards {
    nvml: Nvml,
    rests_until: Option<(Duration, Unknown)>,
    /// What was said last of why they can't be asked.
    said: Option<String>,
    /// The number and the memory of each.
    known: BTreeMap<GpuUuid, (u32, u64)>,
}

impl Cards {
    /// Nothing is asked yet. Uses the library at this path, or the host's own.
    pub(super) fn new(library: Option<PathBuf>) -> Self {
        Self {
            nvml: Nvml::new(library).with_deadline(DEADLINE),
            rests_until: None,
            said: None,
            known: BTreeMap::new(),
        }
    }

    /// Asks for a sample of each card; the error says why nothing is known of any. `now` is since the boot.
    pub(super) async fn ask(&mut self, now: Duration) -> Result<Round, Unknown> {
        if let Some((_, why)) = self.rests_until.filter(|(until, _)| now < *until) {
            return Err(why);
        }
        let round = match self.nvml.sample().await {
            Ok(round) => round,
            Err(err) => return Err(self.rest(now, &err)),
        };
        if round.keys().any(|card| !self.known.contains_key(card)) {
            match self.nvml.inventory().await {
                Ok(inventory) => self.known = numbered(&inventory),
                Err(err) => return Err(self.rest(now, &err)),
            }
        }
        (self.rests_until, self.said) = (None, None);
        Ok(round)
    }

    fn rest(&mut self, now: Duration, err: &Error) -> Unknown {
        let (rest, why) = match err {
            Error::NoLibrary { .. } => (REST_WITHOUT, Unknown::NotSupported),
            _ => (REST, Unknown::Failed),
        };
        self.rests_until = Some((now.saturating_add(rest), why));
        let words = causes(err);
        if self.said.as_ref() != Some(&words) {
            tracing::info!("no GPU is sampled: {words}");
            self.said = Some(words);
        }
        why
    }

    /// The cards of a round as wholes, in the driver's order.
    pub(super) fn wholes(&self, round: &Round) -> Vec<Card> {
        let mut cards: Vec<Card> = Vec::new();
        for (uuid, sample) in round {
            // One that the driver lists no more has no number.
            let Some((index, mib)) = self.known.get(uuid).copied() else { continue };
            let readings = match sample {
                Ok(sample) => {
                    let mut readings = of_all(sample);
                    readings[CardMetric::Memory] = sample.used_bytes.as_ref().copied().map_err(why);
                    let processes = sample.processes.as_ref().map_err(why);
                    readings[CardMetric::Processes] = processes.map(|all| all.len() as u64);
                    readings[CardMetric::Energy] = Err(Unknown::Off);
                    readings
                }
                Err(err) => CardReadings::unknown(why(err)),
            };
            let memory_total = Ok(mib.saturating_mul(MIB));
            cards.push(Card { index, uuid: uuid.clone(), readings, memory_total });
        }
        cards.sort_by(|one, other| (one.index, &one.uuid).cmp(&(other.index, &other.uuid)));
        cards
    }
}

/// The number of each card: the driver counts them by their places on the bus. Parts of one card have its number.
fn numbered(inventory: &GpuInventory) -> BTreeMap<GpuUuid, (u32, u64)> {
    let place = |uuid: &GpuUuid| {
        let facts = inventory.facts.get(uuid);
        let pci = facts.and_then(|facts| facts.pci.clone().ok());
        pci.map_or_else(|| (true, uuid.to_string()), |pci| (false, pci))
    };
    let mut places: Vec<_> = inventory.gpus.iter().map(|gpu| place(&gpu.uuid)).collect();
    places.sort_unstable();
    places.dedup();
    let number = |uuid: &GpuUuid| {
        let at = places.binary_search(&place(uuid)).unwrap_or_else(|at| at);
        u32::try_from(at).unwrap_or(u32::MAX)
    };
    let all = inventory.gpus.iter();
    all.map(|gpu| (gpu.uuid.clone(), (number(&gpu.uuid), gpu.vram_mib))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Gpu;
    use crate::node::card::{Facts, Reading, Sample, Unknown as CardUnknown};

    fn facts(pci: &str) -> Facts {
        let no = || Err(CardUnknown::NotSupported);
        Facts {
            pci: Ok(pci.to_owned()),
            compute_capability: Err(CardUnknown::NotSupported),
            power_limit_mw: Err(CardUnknown::NotSupported),
            ecc: no(),
            mig: no(),
            persistence: no(),
            minor: Err(CardUnknown::NotSupported),
            parent: None,
        }
    }

    fn uuid(text: &str) -> GpuUuid {
        GpuUuid::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_machine_without_the_library_has_no_known_cards_and_is_not_asked_again_at_once() {
        let mut cards = Cards::new(Some(PathBuf::from("/no/such/library.so")));
        let now = Duration::from_secs(100);
        assert_eq!(cards.ask(now).await, Err(Unknown::NotSupported));
        let said = cards.said.clone().unwrap();
        assert!(said.contains("library"), "{said}");
        assert_eq!(cards.rests_until, Some((now + REST_WITHOUT, Unknown::NotSupported)));
        assert_eq!(cards.ask(now + REST).await, Err(Unknown::NotSupported));
    }

    #[test]
    fn cards_are_numbered_by_their_places_on_the_bus_and_one_that_is_lost_keeps_its_reason() {
        let gpu = |name: &str| Gpu { uuid: uuid(name), model: "T".to_owned(), vram_mib: 24 };
        let mut inventory = GpuInventory {
            gpus: vec![gpu("GPU-a"), gpu("GPU-b"), gpu("GPU-c")],
            ..GpuInventory::default()
        };
        for (name, pci) in [("GPU-a", "00000000:82:00.0"), ("GPU-b", "00000000:01:00.0")] {
            inventory.facts.insert(uuid(name), facts(pci));
        }
        let mut cards = Cards::new(None);
        cards.known = numbered(&inventory);
        let unknown = Sample::unknown(&CardUnknown::NotSupported);
        let busy = Sample { busy_percent: Ok(7), used_bytes: Ok(9), ..unknown };
        let round: Vec<(&str, Reading<Sample>)> = vec![
            ("GPU-a", Ok(busy)),
            ("GPU-b", Err(CardUnknown::Lost)),
            ("GPU-never-listed", Err(CardUnknown::Lost)),
        ];
        let round: Round = round.into_iter().map(|(name, it)| (uuid(name), it)).collect();
        let wholes = cards.wholes(&round);
        let told: Vec<_> = wholes
            .iter()
            .map(|it| (it.index, it.uuid.as_str(), it.readings[CardMetric::Busy]))
            .collect();
        assert_eq!(told, [(0, "GPU-b", Err(Unknown::Gone)), (1, "GPU-a", Ok(7))]);
        assert_eq!(wholes[1].readings[CardMetric::Memory], Ok(9));
        assert_eq!(wholes[1].memory_total, Ok(24 << 20));
        assert_eq!(wholes[0].readings[CardMetric::Memory], Err(Unknown::Gone), "not 0");
    }
}
