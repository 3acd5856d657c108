//! Hours of the day in a time zone: quiet hours, and the hour of the daily digest.
//!
//! Must hold: a day on which clocks are set has its hours as people there read them off their clocks.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// A time of day or a zone that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDaily(String);

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays([bool; 7]);

impl Weekdays {
    /// All of them.
    pub const ALL: Self = Self([true; 7]);

    /// The days that these name: `mon`, `tue`, …; none named means all.
    pub fn of(names: &[String]) -> Result<Self, InvalidDaily> {
        const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        if names.is_empty() {
            return Ok(Self::ALL);
        }
        let mut days = [false; 7];
        for name in names {
            let at = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known));
            let day = at.and_then(|at| days.get_mut(at));
            *day.ok_or_else(|| {
                InvalidDaily(format!("{name:?} is none of {}", NAMES.join(", ")))
            })? = true;
        }
        Ok(Self(days))
    }

    fn has(self, day: Weekday) -> bool {
        let at = usize::try_from(day.to_monday_zero_offset()).unwrap_or_default();
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Hours in which only what is critical is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Quiet {
    from: Time,
    to: Time,
    days: Weekdays,
    zone: TimeZone,
}

impl Quiet {
    /// From one time of day to another (`22:00`, `07:00`: over midnight), on the days on which they begin.
    pub fn new(from: &str, to: &str, days: Weekdays, zone: &str) -> Result<Self, InvalidDaily> {
        let (from, to) = (time(from)?, time(to)?);
        if from == to {
            return Err(InvalidDaily(
                "quiet hours from a time to the same time are none".to_owned(),
            ));
        }
        Ok(Self { from, to, days, zone: self::zone(zone)? })
    }

    /// Whether the moment lies in these hours.
    pub fn covers(&self, now: Timestamp) -> bool {
        let Some(local) = local(now, &self.zone) else { return false };
        let (date, time) = (local.date(), local.time());
        let began_today = self.days.has(date.weekday());
        if self.from < self.to {
            return began_today && self.from <= time && time < self.to;
        }
        let began_yesterday = self.days.has(date.weekday().previous());
        (began_today && self.from <= time) || (began_yesterday && time < self.to)
    }
}

/// A moment that comes once a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Daily {
    at: Time,
    zone: TimeZone,
}

impl Daily {
    /// This time of day (`08:00`) in this zone (`Europe/Berlin`, `UTC`).
    pub fn new(at: &str, zone: &str) -> Result<Self, InvalidDaily> {
        Ok(Self { at: time(at)?, zone: self::zone(zone)? })
    }

    /// The last such moment that is not after `now`.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let today = local(now, &self.zone)?.date();
        let at = |date: jiff::civil::Date| {
            let moment = date.to_datetime(self.at).to_zoned(self.zone.clone()).ok()?;
            u64::try_from(moment.timestamp().as_millisecond()).ok().map(Timestamp::from_unix_ms)
        };
        match at(today) {
            Some(moment) if moment <= now => Some(moment),
            _ => at(today.yesterday().ok()?),
        }
    }
}

fn time(text: &str) -> Result<Time, InvalidDaily> {
    let wrong = || InvalidDaily(format!("{text:?} is no time of day such as 22:00"));
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let (hour, minute) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    Time::new(hour, minute, 0, 0).map_err(|_| wrong())
}

fn zone(name: &str) -> Result<TimeZone, InvalidDaily> {
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        InvalidDaily(format!("{name:?} is no time zone of this machine, such as Europe/Berlin"))
    })
}

fn local(now: Timestamp, zone: &TimeZone) -> Option<jiff::Zoned> {
    let ms = i64::try_from(now.unix_ms()).ok()?;
    Some(jiff::Timestamp::from_millisecond(ms).ok()?.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse::<Timestamp>().unwrap()
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let friday = Weekdays::of(&["Fri".to_owned()]).unwrap();
        let quiet = Quiet::new("22:00", "07:00", friday, "Europe/Berlin").unwrap();
        // 2026-11-27 is a Friday; Berlin is an hour ahead of UTC.
        for (moment, is_quiet) in [
            ("2026-11-27T20:59:59Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T05:59:59Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T21:30:00Z", false),
            ("2026-11-27T03:00:00Z", false),
        ] {
            assert_eq!(quiet.covers(at(moment)), is_quiet, "{moment}");
        }
    }

    #[test]
    fn an_hour_of_the_day_moves_with_the_clocks_of_its_zone() {
        let digest = Daily::new("08:00", "Europe/Berlin").unwrap();
        for (now, last) in [
            ("2026-10-25T07:30:00Z", "2026-10-25T07:00:00Z"),
            ("2026-10-24T07:30:00Z", "2026-10-24T06:00:00Z"),
            ("2026-10-25T06:30:00Z", "2026-10-24T06:00:00Z"),
        ] {
            assert_eq!(digest.last(at(now)), Some(at(last)), "{now}");
        }
    }

    #[test]
    fn what_is_no_hour_day_or_zone_is_refused_by_name() {
        for text in ["25:00", "8", "aa:bb", ""] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(zone("Europe/Nowhere").unwrap_err().to_string().contains("Europe/Nowhere"));
        assert!(Weekdays::of(&["someday".to_owned()]).is_err());
    }
}
