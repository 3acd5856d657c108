//! Which GPUs a job gets.
//!
//! Pure. Invariants: a job that asks for a model or for memory never gets a card without it; of the
//! suitable cards it gets the first in one fixed order, so that with more cards free it gets only cards
//! that it would have got anyway, or new ones ([`super::admission`] relies on that).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Gpu;
use super::model::is_named_by;

/// The least that a card reports of its nominal memory, in percent. Drivers report less than is printed
/// on the box: 24,564 MiB for "24 GB", 46,068 for "48 GB" with ECC. All cards of a size are above this
/// limit, and the next smaller size (11 GB for 12 GB) is below it.
const NOMINAL_PERCENT: u64 = 92;

/// The cards that a job asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Number of cards; 0 for a CPU job.
    pub count: usize,
    /// Words of the model's name; `None` means any model.
    pub model: Option<String>,
    /// Memory that each card must have, in MiB, as it is printed on the box.
    pub min_vram_mib: u64,
}

impl Wish {
    /// Whether this card is suitable.
    pub fn accepts(&self, gpu: &Gpu) -> bool {
        let model = self.model.as_deref().unwrap_or_default();
        let nominal = gpu.vram_mib.saturating_mul(100) / NOMINAL_PERCENT;
        is_named_by(&gpu.model, model) && nominal >= self.min_vram_mib
    }
}

/// The cards of a node, the smallest first, and which of them serve which wish. A line of a thousand jobs has a few
/// different wishes, and a host one or two kinds of cards: names are compared once for each pair of the two.
#[derive(Debug)]
pub struct Rack<'a> {
    cards: Vec<&'a Gpu>,
    known: BTreeMap<(Option<&'a str>, u64), Rc<[usize]>>,
}

impl<'a> Rack<'a> {
    /// The rack of these cards.
    pub fn of(gpus: &'a [Gpu]) -> Self {
        let mut cards: Vec<&Gpu> = gpus.iter().collect();
        cards.sort_by_key(|gpu| (gpu.vram_mib, &gpu.uuid));
        Self { cards, known: BTreeMap::new() }
    }

    /// The cards, in the order in which they are given. Places in this list stand for them.
    pub fn cards(&self) -> &[&'a Gpu] {
        &self.cards
    }

    /// The places of the cards that are suitable for this wish.
    pub fn suitable(&mut self, wish: &'a Wish) -> Rc<[usize]> {
        let Self { cards, known } = self;
        let key = (wish.model.as_deref(), wish.min_vram_mib);
        Rc::clone(known.entry(key).or_insert_with(|| {
            let mut kinds: BTreeMap<(&str, u64), bool> = BTreeMap::new();
            let mut accepts = |gpu: &'a Gpu| {
                let kind = (gpu.model.as_str(), gpu.vram_mib);
                *kinds.entry(kind).or_insert_with(|| wish.accepts(gpu))
            };
            (0..cards.len()).filter(|place| accepts(cards[*place])).collect()
        }))
    }
}

/// The places of the cards for a wish out of the free ones; fewer if there are not enough. It gets the smallest
/// suitable ones, so that large ones stay free for jobs that need them.
pub fn choose(suitable: &[usize], is_free: &[bool], count: usize) -> Vec<usize> {
    suitable.iter().copied().filter(|place| is_free[*place]).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::GpuUuid;

    fn gpu(uuid: &str, model: &str, vram_mib: u64) -> Gpu {
        Gpu { uuid: GpuUuid::new(uuid).unwrap(), model: model.to_owned(), vram_mib }
    }

    fn chosen(free: &str, count: usize, model: &str, min_vram_mib: u64) -> String {
        let rack = [
            gpu("GPU-c", "NVIDIA H100 80GB HBM3", 81_559),
            gpu("GPU-b", "NVIDIA RTX 3090", 24_576),
            gpu("GPU-a", "NVIDIA RTX 3090", 24_576),
        ];
        let wish = Wish { count, model: Some(model.to_owned()), min_vram_mib };
        let mut rack = Rack::of(&rack);
        let suitable = rack.suitable(&wish);
        let names: Vec<&str> = rack.cards().iter().map(|gpu| &gpu.uuid.as_str()[4..]).collect();
        let is_free: Vec<bool> = names.iter().map(|name| free.contains(name)).collect();
        choose(&suitable, &is_free, count).iter().map(|place| names[*place]).collect()
    }

    #[test]
    fn the_smallest_free_cards_that_do_are_given() {
        assert_eq!(chosen("abc", 1, "", 0), "a");
        assert_eq!(chosen("bc", 1, "", 0), "b");
        assert_eq!(chosen("abc", 1, "h100", 0), "c");
        assert_eq!(chosen("abc", 1, "", 40_000), "c");
        assert_eq!(chosen("abc", 2, "3090", 0), "ab");
        assert_eq!(chosen("abc", 0, "", 0), "");
    }

    #[test]
    fn a_card_has_the_memory_that_is_printed_on_its_box() {
        for (told, wanted, is_enough) in [
            (24_564, 24_576, true),
            (23_028, 24_576, true),
            (22_731, 24_576, true),
            (46_068, 49_152, true),
            (15_360, 16_384, true),
            (81_251, 81_920, true),
            (81_559, 81_920, true),
            (11_264, 12_288, false),
            (10_240, 11_264, false),
            (40_960, 49_152, false),
            (24_576, 32_768, false),
            (0, 1, false),
            (u64::MAX, 1, true),
        ] {
            let wish = Wish { count: 1, model: None, min_vram_mib: wanted };
            assert_eq!(wish.accepts(&gpu("GPU-a", "x", told)), is_enough, "{told} of {wanted}");
        }
    }

    #[test]
    fn a_wish_that_does_not_fit_gets_what_is_there() {
        assert_eq!(chosen("ab", 1, "H100", 0), "");
        assert_eq!(chosen("bc", 2, "3090", 0), "b");
    }
}
