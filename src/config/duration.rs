//! Durations in Go's notation (`5m`, `1h2m3.5s`, `300ms`), in which the network's first agents were
//! configured.

use std::time::Duration;

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time such as 30s, 5m or 1h30m")]
pub struct InvalidDuration;

/// Go's units in nanoseconds; where one is the beginning of another, the longer comes first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses what Go's `time.ParseDuration` accepts, except negative durations.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(InvalidDuration);
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(InvalidDuration)?;
        let (number, tail) = rest.split_at(end);
        let (unit, scale) =
            UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit)).ok_or(InvalidDuration)?;
        let part = scaled(number, scale).ok_or(InvalidDuration)?;
        nanos = nanos.checked_add(part).ok_or(InvalidDuration)?;
        rest = &tail[unit.len()..];
    }
    Ok(Duration::from_nanos(nanos))
}

/// `number` times `scale`, in whole nanoseconds; further digits are cut off, as in Go.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0').checked_mul(unit)?)?;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes_is_taken() {
        for (text, nanos) in [
            ("5m", 300_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("+30s", 30_000_000_000),
            ("0", 0),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("0.000000001s", 1),
            ("0.25000000000000000001h", 900_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in
            ["", "300", "5", "m", "-5m", "5 m", "5mm", ".s", "1.2.3s", "5d", "99999999999h", "+"]
        {
            assert_eq!(parse(text), Err(InvalidDuration), "{text}");
        }
    }
}
