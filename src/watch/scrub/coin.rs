//! Addresses of Bitcoin: `bc1` and base32, or base58 behind `1` or `3`.

use std::ops::Range;

use super::bytes::run;

/// How many letters stand behind `bc1`.
const BECH32: std::ops::RangeInclusive<usize> = 39..=59;

/// How long an address in base58 is.
const BASE58: std::ops::RangeInclusive<usize> = 26..=34;

/// The addresses within a word, whose parts `_` divides.
pub(super) fn addresses(bytes: &[u8], word: &Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut start = word.start;
    while start < word.end {
        let end = run(bytes, start, word.end - start, |byte| byte.is_ascii_alphanumeric());
        let part = bytes.get(start..end).unwrap_or_default();
        if let Some(from) = address(part) {
            found.push(start + from..end);
        }
        start = end + 1;
    }
}

/// Where in this part an address begins that ends with it: a letter of an escape such as `\n` may stand before it.
fn address(part: &[u8]) -> Option<usize> {
    let behind = |head: usize| part.get(head..).unwrap_or_default();
    let is_bech32 = |head: usize| {
        let (name, data) = behind(head).split_at_checked(3).unwrap_or_default();
        let is_small = data.iter().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        let is_large = data.iter().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit());
        BECH32.contains(&data.len()) && (name == b"bc1" && is_small || name == b"BC1" && is_large)
    };
    let is_base58 = |head: usize| {
        let text = behind(head);
        let has = |is: fn(&u8) -> bool| text.iter().any(is);
        BASE58.contains(&text.len())
            && matches!(text.first(), Some(b'1' | b'3'))
            && text.iter().all(|byte| !b"0OIl".contains(byte))
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_uppercase)
    };
    let most = 3 + BECH32.end();
    let heads = part.len().saturating_sub(most)..part.len().saturating_sub(3 + BECH32.start()) + 1;
    heads
        .into_iter()
        .find(|head| is_bech32(*head))
        .or_else(|| [0, 1, 2].into_iter().find(|head| is_base58(*head)))
}
