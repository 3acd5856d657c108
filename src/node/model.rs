//! Matches names of GPU models as people write them with the names that drivers report.
//!
//! Pure. A wish names a model by words: `rtx4090`, `RTX_4090` and `4090` are words of
//! `NVIDIA GeForce RTX 4090`, `A100 80GB` of `NVIDIA A100-SXM4-80GB`. Invariant: a part of a word matches
//! nothing, so that `A10` never gets an `A100`.

/// Whether the words of `wish` are words of `model`. Consecutive words may be written as one, and one
/// word as several. A wish without words matches every model.
pub fn is_named_by(model: &str, wish: &str) -> bool {
    let (model, wish) = (words(model), words(wish));
    // `found[i]`: whether the wish's words from `i` on are all in the model's name.
    let mut found = vec![false; wish.len() + 1];
    found[wish.len()] = true;
    for from in (0..wish.len()).rev() {
        found[from] = (from..wish.len())
            .any(|last| found[last + 1] && stands_in(&model, &wish[from..=last].concat()));
    }
    found[0]
}

/// The words of a name, in lower case, without the separators between them.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Whether consecutive words of the model, joined, give this word.
fn stands_in(model: &[String], word: &str) -> bool {
    (0..model.len()).any(|from| {
        let mut rest = word;
        for next in &model[from..] {
            match rest.strip_prefix(next.as_str()) {
                Some("") => return true,
                Some(left) => rest = left,
                None => return false,
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_its_words_however_they_are_joined() {
        let (rtx, a100, h100) =
            ("NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3");
        for (model, wish, is_named) in [
            (rtx, "RTX_4090", true),
            (rtx, "rtx4090", true),
            (rtx, "NVIDIA-GeForce-RTX-4090", true),
            (rtx, "nvidiageforcertx4090", true),
            (rtx, "4090", true),
            (rtx, "RTX 409", false),
            (rtx, "rtx409", false),
            (rtx, "090", false),
            (rtx, "RTX 4090 Ti", false),
            (a100, "A100 80GB", true),
            (a100, "A100-80GB", true),
            (a100, "a100 80 gb", true),
            (a100, "nvidia-a100", true),
            (a100, "A100-SXM", false),
            (a100, "A100 SXM 4", true),
            (a100, "A10", false),
            (a100, "100", false),
            (a100, "A100 40GB", false),
            (h100, "h100", true),
            (h100, "100 80GB", false),
            ("NVIDIA L40S", "L40", false),
            ("NVIDIA RTX A6000", "RTX 6000", false),
            ("NVIDIA GeForce RTX 4060 Ti", "4060ti", true),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb", true),
            ("ビデオ カード", "カード", true),
            (rtx, "", true),
            (rtx, " - ", true),
        ] {
            assert_eq!(is_named_by(model, wish), is_named, "{model}: {wish}");
        }
    }

    #[test]
    fn a_hostile_wish_costs_little() {
        let words = "a ".repeat(32);
        assert!(is_named_by(&"a-".repeat(48), &words));
        assert!(!is_named_by(&"a-".repeat(48), &words.replace("a a a", "a b a")));
    }
}
