//! Which GPUs a job gets.
//!
//! Pure. What must hold: a card is never given to two jobs, and a job that asks for a model or for
//! memory never gets a card without it.

use std::collections::BTreeSet;

use super::{Gpu, GpuUuid};

/// What a job asks of its cards.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// How many.
    pub count: usize,
    /// A case-insensitive part of the model's name.
    pub model: Option<&'a str>,
    /// Memory that each must have, in MiB.
    pub min_vram_mib: u64,
}

impl Wish<'_> {
    /// Whether this card would do.
    pub fn accepts(&self, gpu: &Gpu) -> bool {
        let model = self.model.map(str::to_ascii_lowercase).unwrap_or_default();
        gpu.model.to_ascii_lowercase().contains(&model) && gpu.vram_mib >= self.min_vram_mib
    }

    /// Whether these cards, all free, would do.
    pub fn can_fit(&self, gpus: &[Gpu]) -> bool {
        gpus.iter().filter(|gpu| self.accepts(gpu)).count() >= self.count
    }
}

/// The cards for a wish, or `None` where not enough are free now. The smallest cards that do are
/// given, so that large ones stay free for jobs that need them.
pub fn choose(gpus: &[Gpu], taken: &BTreeSet<GpuUuid>, wish: &Wish<'_>) -> Option<Vec<GpuUuid>> {
    let mut free: Vec<&Gpu> =
        gpus.iter().filter(|gpu| !taken.contains(&gpu.uuid) && wish.accepts(gpu)).collect();
    free.sort_by(|a, b| (a.vram_mib, &a.uuid).cmp(&(b.vram_mib, &b.uuid)));
    free.truncate(wish.count);
    (free.len() == wish.count).then(|| free.into_iter().map(|gpu| gpu.uuid.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(uuid: &str, model: &str, vram_mib: u64) -> Gpu {
        Gpu { uuid: GpuUuid::new(uuid).unwrap(), model: model.to_owned(), vram_mib }
    }

    fn rack() -> Vec<Gpu> {
        vec![
            gpu("GPU-c", "NVIDIA H100 80GB HBM3", 81_559),
            gpu("GPU-b", "NVIDIA RTX 3090", 24_576),
            gpu("GPU-a", "NVIDIA RTX 3090", 24_576),
        ]
    }

    fn chosen(
        taken: &[&str],
        count: usize,
        model: Option<&str>,
        min_vram_mib: u64,
    ) -> Option<String> {
        let taken = taken.iter().map(|uuid| GpuUuid::new(uuid).unwrap()).collect();
        let uuids = choose(&rack(), &taken, &Wish { count, model, min_vram_mib })?;
        Some(uuids.iter().map(GpuUuid::as_str).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn the_smallest_free_cards_that_do_are_given() {
        assert_eq!(chosen(&[], 1, None, 0).as_deref(), Some("GPU-a"));
        assert_eq!(chosen(&["GPU-a"], 1, None, 0).as_deref(), Some("GPU-b"));
        assert_eq!(chosen(&[], 1, Some("h100"), 0).as_deref(), Some("GPU-c"));
        assert_eq!(chosen(&[], 1, None, 40_000).as_deref(), Some("GPU-c"));
        assert_eq!(chosen(&[], 0, None, 0).as_deref(), Some(""));
    }

    #[test]
    fn a_wish_that_does_not_fit_gets_nothing() {
        assert_eq!(chosen(&["GPU-c"], 1, Some("H100"), 0), None);
        assert_eq!(chosen(&[], 3, Some("3090"), 0), None);
        assert!(!Wish { count: 2, model: Some("H100"), min_vram_mib: 0 }.can_fit(&rack()));
    }
}
