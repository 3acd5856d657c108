//! The pools to which a node's hardware belongs: the meaning of `auto` in `AGENT_POOLS`.
//!
//! A card's pool is its model as people write it (`h100`, `rtx4060ti`), so that a dispatcher can name it
//! without asking. Invariants: the same model gives the same pool on every node, whatever its memory,
//! form factor or driver; every name is a valid pool name.

use super::Gpu;

/// The entry of `AGENT_POOLS` that stands for [`pools_of`]; no pool can have this name.
pub const AUTO: &str = "auto";

/// The pool that every node with a card serves.
const ANY_GPU: &str = "gpu";

/// The pool that every node without a card serves.
const NO_GPU: &str = "cpu";

/// Longest name of a pool, in bytes.
const NAME_BYTES_MAX: usize = 32;

/// Words in a driver's name that don't identify a model: the maker, the product line, the form factor.
const NO_MODEL: [&str; 13] = [
    "nvidia",
    "tesla",
    "geforce",
    "quadro",
    "graphics",
    "device",
    "generation",
    "edition",
    "workstation",
    "server",
    "gpu",
    "pcie",
    "nvl",
];

/// The owner's list with `auto` replaced by the pools of these cards, each name once.
pub fn served(listed: &[String], gpus: &[Gpu]) -> Vec<String> {
    let each = listed.iter().flat_map(|name| match name.as_str() {
        AUTO => pools_of(gpus),
        name => vec![name.to_owned()],
    });
    once(each)
}

/// The pools of these cards: one per model, and `gpu`; `cpu` if there is no card.
pub fn pools_of(gpus: &[Gpu]) -> Vec<String> {
    if gpus.is_empty() {
        return vec![NO_GPU.to_owned()];
    }
    let models = gpus.iter().filter_map(|gpu| pool_of(&gpu.model));
    once(models.chain([ANY_GPU.to_owned()]))
}

fn once(names: impl Iterator<Item = String>) -> Vec<String> {
    names.fold(Vec::new(), |mut kept, name| {
        if !kept.contains(&name) {
            kept.push(name);
        }
        kept
    })
}

/// A model's name without maker, form factor and memory; `None` if nothing is left.
fn pool_of(model: &str) -> Option<String> {
    let model = model.to_ascii_lowercase();
    let words = model.split(|c: char| c.is_whitespace() || c == '-' || c == '/');
    let name: String = words
        .filter(|word| !NO_MODEL.contains(word) && !is_form(word) && !is_size(word))
        .flat_map(str::chars)
        .filter(char::is_ascii_alphanumeric)
        .take(NAME_BYTES_MAX)
        .collect();
    (!name.is_empty()).then_some(name)
}

/// A form factor or a kind of memory: `SXM4`, `HBM3`, `HBM2e`.
fn is_form(word: &str) -> bool {
    word.starts_with("sxm") || word.starts_with("hbm")
}

/// A size of memory or of a MIG slice: `80GB`, `144G`, `1g.5gb`.
fn is_size(word: &str) -> bool {
    let digits = word.strip_suffix("gb").or(word.strip_suffix('g'));
    digits.is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::GpuUuid;

    fn gpu(model: &str) -> Gpu {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        Gpu { uuid, model: model.to_owned(), vram_mib: 1 }
    }

    #[test]
    fn a_card_serves_the_pool_of_its_model_and_that_of_every_card() {
        for (model, pool) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA H100 PCIe", "h100"),
            ("NVIDIA H100 NVL", "h100"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA GH200 144G HBM3e", "gh200"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA A100 80GB PCIe", "a100"),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "a100mig"),
            ("NVIDIA GeForce RTX 3090", "rtx3090"),
            ("NVIDIA GeForce RTX 4060 Ti", "rtx4060ti"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx4090laptop"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
            ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtxpro6000blackwell"),
            ("Quadro RTX 6000", "rtx6000"),
            ("Tesla T4", "t4"),
            ("Tesla V100-SXM2-16GB", "v100"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA RTX A6000", "rtxa6000"),
        ] {
            assert_eq!(pools_of(&[gpu(model)]), [pool, "gpu"], "{model}");
        }
    }

    #[test]
    fn a_name_without_a_model_gives_no_pool_of_its_own() {
        for model in ["", "NVIDIA Graphics Device", "ビデオ", "80GB"] {
            assert_eq!(pools_of(&[gpu(model)]), ["gpu"], "{model}");
        }
        assert_eq!(pools_of(&[gpu(&"x".repeat(400))])[0].len(), NAME_BYTES_MAX);
    }

    #[test]
    fn auto_stands_for_the_hardware_among_what_the_owner_lists() {
        let cards = [gpu("Tesla T4"), gpu("NVIDIA L40S"), gpu("Tesla T4")];
        let listed = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(served(&listed(&["auto", "night"]), &cards), ["t4", "l40s", "gpu", "night"]);
        assert_eq!(served(&listed(&["gpu", "night", "auto"]), &[]), ["gpu", "night", "cpu"]);
        assert_eq!(served(&listed(&["t4", "auto"]), &cards[..1]), ["t4", "gpu"]);
        assert_eq!(served(&[], &cards), listed(&[]));
    }
}
