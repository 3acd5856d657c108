//! Whether a container has exactly the cards that its job was given, by what was seen of it from outside.
//!
//! Pure. Invariant: what was not seen, or not told by the driver, accuses nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::card::{Facts, Reading, Unknown};
use super::{GpuInventory, GpuUuid};

/// What a container was seen to have: the numbers of the cards' device nodes.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The nodes that are there.
    pub nodes: &'a BTreeSet<u32>,
    /// Those that it may open; `None` if that is not known.
    pub allowed: Option<&'a BTreeSet<u32>>,
}

/// What is wrong with the cards of a container, in words; `None` if nothing is known to be. `cards`: those that
/// the job was given. `host`: all that the driver tells of now.
pub fn wrong(cards: &[GpuUuid], host: &GpuInventory, seen: Seen<'_>) -> Option<String> {
    let mut own = BTreeMap::new();
    for card in cards {
        // One that is not told any more fell off the bus: that is told by its health.
        let number = host.facts.get(card).map_or(Err(Unknown::Lost), node_of).ok()?;
        own.insert(number, card);
    }
    if let Some(number) = seen.nodes.iter().find(|number| !own.contains_key(number)) {
        let whose = host.facts.iter().find(|(_, facts)| node_of(facts) == Ok(*number));
        let whose = whose.map_or_else(String::new, |(card, _)| format!(", the GPU {card}"));
        return Some(format!("it has /dev/nvidia{number}{whose}, which it was not given"));
    }
    if let Some((number, card)) = own.iter().find(|(number, _)| !seen.nodes.contains(number)) {
        return Some(format!("it does not have /dev/nvidia{number}, its GPU {card}"));
    }
    let allowed = seen.allowed?;
    let (number, card) = own.iter().find(|(number, _)| !allowed.contains(number))?;
    Some(format!(
        "its control group does not let it open /dev/nvidia{number} any more, its GPU {card} (`systemctl daemon-reload`?)"
    ))
}

/// The card that a container uses although its job was not given it, in words. `cards`: those that it was given,
/// `used`: those on which the driver names a process of the container.
pub fn strays<'a>(cards: &[GpuUuid], used: impl Iterator<Item = &'a GpuUuid>) -> Option<String> {
    // On instances (MIG) drivers may name processes of the whole card.
    let is_whole = |card: &&GpuUuid| card.as_str().starts_with("GPU-");
    let card = used.filter(is_whole).find(|card| !cards.contains(card))?;
    let is_split = cards.iter().any(|card| !is_whole(&card));
    (!is_split).then(|| format!("a process of it is on the GPU {card}, which it was not given"))
}

fn node_of(facts: &Facts) -> Reading<u32> {
    facts.minor.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(text: &str) -> GpuUuid {
        GpuUuid::new(text).unwrap()
    }

    fn host(minors: &[(&str, Reading<u32>)]) -> GpuInventory {
        let facts = |minor: &Reading<u32>| Facts {
            pci: Err(Unknown::NotSupported),
            compute_capability: Err(Unknown::NotSupported),
            power_limit_mw: Err(Unknown::NotSupported),
            ecc: Err(Unknown::NotSupported),
            mig: Err(Unknown::NotSupported),
            persistence: Err(Unknown::NotSupported),
            minor: minor.clone(),
            parent: None,
        };
        let facts = minors.iter().map(|(card, minor)| (uuid(card), facts(minor))).collect();
        GpuInventory { facts, ..GpuInventory::default() }
    }

    /// What is wrong with a container that was given these cards, of GPU-a (0), GPU-b (1) and the two instances of a
    /// third (2).
    fn told(cards: &[&str], nodes: &[u32], allowed: Option<&[u32]>) -> String {
        let host = host(&[("GPU-a", Ok(0)), ("GPU-b", Ok(1)), ("MIG-1", Ok(2)), ("MIG-2", Ok(2))]);
        let cards: Vec<GpuUuid> = cards.iter().map(|card| uuid(card)).collect();
        let nodes = nodes.iter().copied().collect();
        let allowed: Option<BTreeSet<u32>> = allowed.map(|all| all.iter().copied().collect());
        let seen = Seen { nodes: &nodes, allowed: allowed.as_ref() };
        wrong(&cards, &host, seen).unwrap_or_default()
    }

    #[test]
    fn a_container_with_exactly_its_cards_is_right() {
        for (cards, nodes, allowed) in [
            (&["GPU-a"][..], &[0][..], Some(&[0][..])),
            (&["GPU-a"], &[0], None),
            (&["GPU-b", "GPU-a"], &[0, 1], Some(&[0, 1, 2])),
            (&["MIG-1", "MIG-2"], &[2], Some(&[2])),
            (&[], &[], Some(&[])),
        ] {
            assert_eq!(told(cards, nodes, allowed), "", "{cards:?} {nodes:?}");
        }
    }

    #[test]
    fn another_card_a_card_less_and_one_that_may_not_be_opened_are_told_by_name() {
        let other = "it has /dev/nvidia1, the GPU GPU-b, which it was not given";
        assert_eq!(told(&["GPU-a"], &[0, 1], None), other);
        assert_eq!(told(&[], &[1], None), other);
        assert_eq!(told(&["GPU-a"], &[1], None), other);
        assert_eq!(told(&[], &[7], None), "it has /dev/nvidia7, which it was not given");
        assert_eq!(
            told(&["GPU-a", "GPU-b"], &[0], None),
            "it does not have /dev/nvidia1, its GPU GPU-b"
        );
        let lost = told(&["GPU-a"], &[0], Some(&[1, 255]));
        assert!(lost.starts_with("its control group does not let it open /dev/nvidia0"), "{lost}");
    }

    #[test]
    fn a_card_whose_number_the_driver_does_not_tell_accuses_nobody() {
        let nodes = [0, 1].into();
        let seen = Seen { nodes: &nodes, allowed: None };
        let unknown = host(&[("GPU-a", Err(Unknown::NotSupported))]);
        assert_eq!(wrong(&[uuid("GPU-a")], &unknown, seen), None);
        assert_eq!(wrong(&[uuid("GPU-gone")], &host(&[("GPU-a", Ok(0))]), seen), None);
    }

    #[test]
    fn a_process_on_anothers_card_strays_and_one_on_an_instances_card_does_not() {
        let (a, b) = (uuid("GPU-a"), uuid("GPU-b"));
        let strays = |cards: &[&str], used: &[&GpuUuid]| {
            let cards: Vec<GpuUuid> = cards.iter().map(|card| uuid(card)).collect();
            strays(&cards, used.iter().copied()).is_some()
        };
        assert!(!strays(&["GPU-a"], &[&a]) && !strays(&["GPU-a"], &[]));
        assert!(strays(&["GPU-a"], &[&a, &b]) && strays(&[], &[&b]));
        assert!(!strays(&["MIG-1"], &[&a]) && !strays(&["GPU-a"], &[&uuid("MIG-2")]));
    }
}
