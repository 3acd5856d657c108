//! Reads the times that programs write.
//!
//! Must hold: a time that can't be read is none, never another; most lines of a log are of the same second as the
//! one before, and cost a comparison.

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use super::TimeForm;
use crate::clock::Timestamp;

/// The format that is RFC 3339.
const RFC3339: &str = "rfc3339";

/// The format that is a number since 1970.
const UNIX: &str = "unix";

/// The time zone of the host on which a log is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Local(TimeZone);

impl Local {
    /// UTC.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of this host.
    pub fn of_host() -> Self {
        Self(TimeZone::system())
    }

    /// A zone by its name, such as `Europe/Berlin`; none if nobody knows it.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }
}

/// Reads the times of one log.
#[derive(Debug)]
pub(super) struct Moments {
    format: String,
    zone: TimeZone,
    /// The time before, without its fraction, and what it is.
    last: Option<(String, i64)>,
}

impl Moments {
    pub(super) fn new(form: &TimeForm, local: &Local) -> Self {
        let zone = if form.is_utc { TimeZone::UTC } else { local.0.clone() };
        Self { format: form.format.clone(), zone, last: None }
    }

    /// The time that a text says, if it says one.
    pub(super) fn read(&mut self, text: &str) -> Option<Timestamp> {
        let text = text.trim();
        let ms = match self.format.as_str() {
            RFC3339 => return text.parse().ok(),
            UNIX => unix_ms(text)?,
            format => {
                let (base, fraction_ms) = split(text);
                let known = self.last.as_ref().filter(|(last, _)| last == base);
                let ms = match known {
                    Some((_, ms)) => *ms,
                    None => parse(format, base, &self.zone)?,
                };
                if known.is_none() {
                    self.last = Some((base.to_owned(), ms));
                }
                ms.checked_add(fraction_ms)?
            }
        };
        u64::try_from(ms).ok().map(Timestamp::from_unix_ms)
    }
}

/// Checks that a time which is written in this format can be read.
pub(super) fn check(format: &str) -> Result<(), String> {
    if format == RFC3339 || format == UNIX {
        return Ok(());
    }
    let at = jiff::Timestamp::from_second(1_754_359_494).map_err(|err| err.to_string())?;
    let written = BrokenDownTime::from(&at.to_zoned(TimeZone::UTC)).to_string(format);
    let read = written.ok().and_then(|text| parse(format, &text, &TimeZone::UTC));
    if read == Some(at.as_millisecond()) {
        return Ok(());
    }
    Err("a time in this format can't be read: it needs the year, the day and the time to the second, without a \
         fraction"
        .to_owned())
}

/// The milliseconds since 1970 of a time in this format.
fn parse(format: &str, text: &str, zone: &TimeZone) -> Option<i64> {
    let parts = BrokenDownTime::parse(format, text).ok()?;
    if parts.offset().is_some() {
        return parts.to_timestamp().ok().map(jiff::Timestamp::as_millisecond);
    }
    let at: DateTime = parts.to_datetime().ok()?;
    Some(zone.to_zoned(at).ok()?.timestamp().as_millisecond())
}

/// A time without its fraction of a second, and the fraction in milliseconds.
fn split(text: &str) -> (&str, i64) {
    let Some((base, fraction)) = text.rsplit_once([',', '.']) else { return (text, 0) };
    let is_fraction = !fraction.is_empty()
        && fraction.len() <= 9
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && base.ends_with(|c: char| c.is_ascii_digit());
    if !is_fraction {
        return (text, 0);
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    (base, digits.fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0')))
}

/// A number since 1970 in milliseconds: what it counts is told by how large it is.
fn unix_ms(text: &str) -> Option<i64> {
    let (whole, fraction_ms) = split(text);
    let number: i64 = whole.parse().ok()?;
    match number {
        0..100_000_000_000 => number.checked_mul(1_000)?.checked_add(fraction_ms),
        100_000_000_000..100_000_000_000_000 => Some(number),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number / 1_000),
        100_000_000_000_000_000.. => Some(number / 1_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, zone: Option<&str>, text: &str) -> String {
        let form = TimeForm { format: format.to_owned(), is_utc: zone.is_none() };
        let local = zone.map_or(Local::utc(), |name| Local::named(name).unwrap());
        let mut moments = Moments::new(&form, &local);
        let first = moments.read(text);
        assert_eq!(first, moments.read(text), "the same the second time");
        first.map_or_else(|| "none".to_owned(), |at| at.to_string())
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        const HYDRA: &str = "%Y-%m-%d %H:%M:%S";
        for (format, zone, text, wanted) in [
            (HYDRA, None, "2025-08-05 02:04:54,237", "2025-08-05T02:04:54.237Z"),
            (HYDRA, Some("Europe/Berlin"), "2025-08-05 02:04:54,237", "2025-08-05T00:04:54.237Z"),
            (HYDRA, Some("Europe/Berlin"), "2025-12-05 02:04:54", "2025-12-05T01:04:54.000Z"),
            (HYDRA, None, "2025-08-05 02:04:54.2", "2025-08-05T02:04:54.200Z"),
            (HYDRA, None, "2025-08-05 02:04:54,", "none"),
            (HYDRA, None, "2025-13-05 02:04:54", "none"),
            ("%d %b %Y %H:%M:%S", None, "05 Aug 2025 02:04:54.237", "2025-08-05T02:04:54.237Z"),
            ("%Y/%m/%d %H:%M:%S", None, "2025/08/05 02:04:54", "2025-08-05T02:04:54.000Z"),
            ("rfc3339", None, "2025-08-05T02:04:54.237+02:00", "2025-08-05T00:04:54.237Z"),
            ("%Y-%m-%dT%H:%M:%S%z", None, "2025-08-05T02:04:54+0200", "2025-08-05T00:04:54.000Z"),
            ("unix", None, "1754359494.5", "2025-08-05T02:04:54.500Z"),
            ("unix", None, "1754359494500", "2025-08-05T02:04:54.500Z"),
            ("unix", None, "1754359494500000", "2025-08-05T02:04:54.500Z"),
            ("unix", None, "-5", "none"),
        ] {
            assert_eq!(read(format, zone, text), wanted, "{format} {text}");
        }
    }

    #[test]
    fn a_format_that_says_too_little_is_refused() {
        for format in ["%Y-%m-%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "unix"] {
            assert_eq!(check(format), Ok(()), "{format}");
        }
        for format in ["%b %d %H:%M:%S", "%Y-%m-%d", "%Q", "", "%"] {
            assert!(check(format).is_err(), "{format}");
        }
    }
}
