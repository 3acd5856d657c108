//! Phrases that a wallet is made from again: words of BIP-39's English list, twelve or more in a row.
//!
//! The list of 2,048 words (13 KiB) is part of the program: without it every sentence of short words would look like a
//! phrase. With it a sentence must go on for twelve words without `a`, `the`, `of`, `is` or `to`, and without any other
//! word that is not among the 2,048.

use std::ops::Range;
use std::sync::LazyLock;

use super::bytes::{at, run, run_back};

/// The words of the list, in their order.
static WORDS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("words.txt").lines().collect());

/// The shortest phrase has so many words.
const WORDS_MIN: usize = 12;

/// The longest word of the list, in letters.
const WORD_MAX: usize = 8;

/// How many bytes may stand between two words: spaces, quotes, commas, the number of the next one.
const BETWEEN_MAX: usize = 8;

/// Words in a row that are as long as those of the list.
#[derive(Debug, Default)]
pub(super) struct Row(usize);

impl Row {
    /// Takes the next word, and says where a phrase stands that it belongs to.
    pub(super) fn next(&mut self, bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
        match word.len() {
            3..=9 => self.0 += 1,
            // The number of a word.
            1 | 2 if at(bytes, word.start).is_ascii_digit() => {}
            // The letter of `\r`.
            1 if word.start > 0 && at(bytes, word.start - 1) == b'\\' => {}
            _ => self.0 = 0,
        }
        if self.0 < WORDS_MIN {
            return None;
        }
        let phrase = around(bytes, word)?;
        self.0 = 0;
        Some(phrase)
    }
}

/// The phrase of which this word is the twelfth, up to its end.
fn around(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let mut start = listed(bytes, word)?.start;
    for _ in 1..WORDS_MIN {
        let end = run_back(bytes, start, BETWEEN_MAX, |byte| !byte.is_ascii_alphabetic());
        let from = run_back(bytes, end, WORD_MAX + 2, |byte| byte.is_ascii_alphabetic());
        if end == start {
            return None;
        }
        start = listed(bytes, &(from..end))?.start;
    }
    let mut end = word.end;
    loop {
        let from = run(bytes, end, BETWEEN_MAX, |byte| !byte.is_ascii_alphabetic());
        let to = run(bytes, from, WORD_MAX + 1, |byte| byte.is_ascii_alphabetic());
        if from == end || listed(bytes, &(from..to)).is_none() {
            return Some(start..end);
        }
        end = to;
    }
}

/// The word if it is on the list, whatever its case; without the letter of an escape such as `\n` before it.
fn listed(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let is_escaped = word.start > 0 && at(bytes, word.start - 1) == b'\\';
    let whole = is_listed(bytes.get(word.clone())?).then(|| word.clone());
    let rest = word.start + 1..word.end;
    whole.or_else(|| (is_escaped && is_listed(bytes.get(rest.clone())?)).then_some(rest))
}

fn is_listed(word: &[u8]) -> bool {
    let lower = word.iter().map(u8::to_ascii_lowercase);
    word.len() <= WORD_MAX
        && WORDS.binary_search_by(|known| known.bytes().cmp(lower.clone())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_in_order() {
        assert_eq!(WORDS.len(), 2_048);
        assert!(WORDS.is_sorted() && WORDS.iter().all(|it| (3..=WORD_MAX).contains(&it.len())));
        for word in [&b"abandon"[..], b"ZOO", b"Art"] {
            assert!(is_listed(word), "{}", word.escape_ascii());
        }
        for word in [&b"the"[..], b"abandons", b"", b"zoos", b"absolutely"] {
            assert!(!is_listed(word), "{}", word.escape_ascii());
        }
    }
}
