//! Which GPUs a job gets.
//!
//! Pure. What must hold: a job that asks for a model or for memory never gets a card without it; of
//! the cards that do, it gets the first in one fixed order, so that what it would get of more cards
//! holds none but those and new ones ([`super::admission`] rests on that).

use super::Gpu;

/// What a job asks of its cards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// How many.
    pub count: usize,
    /// A case-insensitive part of the model's name.
    pub model: Option<String>,
    /// Memory that each must have, in MiB.
    pub min_vram_mib: u64,
}

impl Wish {
    /// Whether this card would do.
    pub fn accepts(&self, gpu: &Gpu) -> bool {
        let model = self.model.as_deref().map(str::to_ascii_lowercase).unwrap_or_default();
        gpu.model.to_ascii_lowercase().contains(&model) && gpu.vram_mib >= self.min_vram_mib
    }

    /// The cards for this wish out of the free ones, fewer where there are not enough. The smallest
    /// that do are given, so that large ones stay free for jobs that need them.
    pub fn choose<'g>(&self, free: &[&'g Gpu]) -> Vec<&'g Gpu> {
        let mut chosen: Vec<&Gpu> = free.iter().copied().filter(|gpu| self.accepts(gpu)).collect();
        chosen.sort_by(|a, b| (a.vram_mib, &a.uuid).cmp(&(b.vram_mib, &b.uuid)));
        chosen.truncate(self.count);
        chosen
    }
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
        let free: Vec<&Gpu> =
            rack.iter().filter(|gpu| free.contains(&gpu.uuid.as_str()[4..])).collect();
        let wish = Wish { count, model: Some(model.to_owned()), min_vram_mib };
        let chosen = wish.choose(&free);
        chosen.iter().map(|gpu| &gpu.uuid.as_str()[4..]).collect()
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
    fn a_wish_that_does_not_fit_gets_what_is_there() {
        assert_eq!(chosen("ab", 1, "H100", 0), "");
        assert_eq!(chosen("bc", 2, "3090", 0), "b");
    }
}
