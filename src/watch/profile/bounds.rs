//! Bounds of what a profile holds: names, texts, spans.

use std::time::Duration;

/// The longest name, in bytes.
const NAME_MAX: usize = 32;

/// The longest sentence or template, in bytes.
const TEXT_MAX: usize = 1_000;

/// The longest span, in seconds: 30 days.
const SPAN_MAX_S: u64 = 30 * 86_400;

/// Whether this can be a name: 1 to 32 of `a-z0-9_-`.
pub(super) fn is_name(name: &str) -> Result<(), String> {
    let is_good = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if is_good { Ok(()) } else { Err(format!("a name is 1 to {NAME_MAX} of a-z0-9_-")) }
}

/// Whether this is one bounded line.
pub(super) fn is_text(text: &str) -> Result<(), String> {
    if text.len() > TEXT_MAX {
        return Err(format!("it has more than {TEXT_MAX} bytes"));
    }
    if text.chars().any(crate::report::is_obeyed) {
        return Err("it has a line end or another control character".to_owned());
    }
    Ok(())
}

/// Checks the names of tables of a kind, and how many there are.
pub(super) fn names<'a>(
    kind: &str,
    key: &str,
    max: usize,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), String> {
    if names.len() > max {
        return Err(format!("[[{kind}]]: there are more than {max}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (number, name) in (1..).zip(names) {
        is_name(name).map_err(|what| format!("[[{kind}]] {number}, {key}: {what}"))?;
        if !seen.insert(name) {
            return Err(format!("[[{kind}]] {number}, {key}: {name:?} is there twice"));
        }
    }
    Ok(())
}

pub(super) fn span(place: &str, key: &str, seconds: u64) -> Result<Duration, String> {
    if (1..=SPAN_MAX_S).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(format!("{place}, {key}: from 1 to {SPAN_MAX_S} seconds"))
}
