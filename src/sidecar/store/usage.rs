//! What programs used, minute by minute, and over spans of two hours.
//!
//! Must hold: of each name a day of minutes and 30 days of longer spans are kept, and no more; what is written down is
//! no part of what verdicts rest on.

use std::time::Duration;

use super::{Error, Store, json, ms};
use crate::clock::Timestamp;
use crate::sql::{Connection, OptionalExtension as _, Row, params};
use crate::usage::{Bucket, Rollups, Span};

/// The spans that are kept, and how many of each.
pub const KEPT: [(Span, u64); 2] = [(Span::Minute, 24 * 60), (Span::TwoHours, 30 * 12)];

/// What is written down at once of one name.
#[derive(Debug, Clone)]
pub struct Rolled {
    /// The program's name; empty: the machine.
    pub name: String,
    /// The spans that are over. Those that are not of [`KEPT`] are left out.
    pub over: Vec<Bucket>,
    /// What is not over, and the time of the last sample, since 1970 by a clock that only goes forward; `None`: as it was
    /// written down last.
    pub open: Option<(Rollups, Duration)>,
}

/// The word for a span in the table and in the API.
pub const fn word(span: Span) -> &'static str {
    match span {
        Span::Minute => "1m",
        Span::TenMinutes => "10m",
        Span::TwoHours => "2h",
        Span::EightHours => "8h",
    }
}

impl Store {
    /// What was not over when it was written down last, and the time from which on nothing is written down yet. What
    /// another version wrote is nothing.
    pub async fn rollups(&self, name: &str) -> Result<(Rollups, Duration), Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let select = "SELECT body, since_ms FROM usage_open WHERE name = ?1";
                let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
                let open = db.query_row(select, [&name], row).optional()?;
                let (body, since) = open.unwrap_or_default();
                let select = "SELECT COALESCE(MAX(place) + 1, 0) FROM usage
                              WHERE name = ?1 AND span = '1m'";
                let minutes: i64 = db.query_row(select, [&name], |row| row.get(0))?;
                let since = since.max(minutes.saturating_mul(60_000));
                let since = Duration::from_millis(u64::try_from(since).unwrap_or_default());
                Ok((serde_json::from_str(&body).unwrap_or_default(), since))
            })
            .await
    }

    /// Writes down what is over, and forgets what is too old of the same names.
    pub async fn rolled(&self, all: Vec<Rolled>) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let put = "INSERT INTO usage (name, span, place, body) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (name, span, place) DO NOTHING";
            let mut put = db.prepare_cached(put)?;
            let forget = "DELETE FROM usage WHERE name = ?1 AND span = ?2 AND place <= ?3";
            let mut forget = db.prepare_cached(forget)?;
            let keep = "INSERT INTO usage_open (name, since_ms, body) VALUES (?1, ?2, ?3)
                        ON CONFLICT (name) DO UPDATE SET
                        since_ms = excluded.since_ms, body = excluded.body";
            let mut keep = db.prepare_cached(keep)?;
            for Rolled { name, over, open } in &all {
                for bucket in over {
                    let Some((_, kept)) = KEPT.into_iter().find(|(span, _)| *span == bucket.span)
                    else {
                        continue;
                    };
                    let (span, place) = (word(bucket.span), number(bucket.index));
                    put.execute(params![name, span, place, json(&bucket.to_json())?])?;
                    forget.execute(params![name, span, place.saturating_sub(number(kept))])?;
                }
                if let Some((open, since)) = open {
                    let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                    keep.execute(params![name, since, json(open)?])?;
                }
            }
            Ok(())
        };
        self.writer.change("sidecar.rolled", false, work).await
    }

    /// The newest spans of a name that are over, the newest first, as JSON.
    pub async fn series(&self, name: &str, span: Span, limit: u32) -> Result<Vec<String>, Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let select = "SELECT body FROM usage WHERE name = ?1 AND span = ?2
                              ORDER BY place DESC LIMIT ?3";
                let mut select = db.prepare_cached(select)?;
                let rows = select.query_map(params![name, word(span), limit], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Forgets what is too old of names that nobody samples any more.
    pub async fn forget_usage(&self, now: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let mut longest = 0;
            for (span, kept) in KEPT {
                let length = i64::try_from(span.length().as_millis()).unwrap_or(i64::MAX);
                longest = length.saturating_mul(number(kept)).max(longest);
                let before = ms(now).saturating_div(length.max(1)).saturating_sub(number(kept));
                let forget = "DELETE FROM usage WHERE span = ?1 AND place < ?2";
                db.execute(forget, params![word(span), before])?;
            }
            let forget = "DELETE FROM usage_open WHERE since_ms < ?1";
            db.execute(forget, [ms(now).saturating_sub(longest)])?;
            Ok(())
        };
        self.writer.change("sidecar.forget_usage", false, work).await
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Metric, Readings, Sample, Unknown};

    fn sample(since: Duration) -> Sample {
        let mut job = Readings::unknown(Unknown::Off);
        job[Metric::Memory] = Ok(since.as_secs());
        let at = Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap());
        Sample { at, since_start: since, job, cards: Vec::new() }
    }

    fn rolled(name: &str, rollups: &mut Rollups, since: Duration) -> Rolled {
        let over = rollups.fold(&sample(since));
        Rolled { name: name.to_owned(), over, open: Some((rollups.clone(), since)) }
    }

    #[tokio::test]
    async fn a_day_of_minutes_and_a_month_of_longer_spans_are_kept_and_no_more() {
        let store = Store::in_memory().unwrap();
        let (mut rollups, begun) = (Rollups::default(), Duration::from_hours(480_000));
        // Five weeks, with a look each half hour but for the last two days, which have one each minute.
        let half_hours = (0..33 * 48).map(|at| begun + Duration::from_mins(30 * at));
        let last = begun + Duration::from_hours(33 * 24);
        let minutes = (0..2 * 24 * 60).map(|at| last + Duration::from_mins(at));
        let all: Vec<Rolled> =
            half_hours.chain(minutes).map(|at| rolled("one", &mut rollups, at)).collect();
        let end = all.last().unwrap().open.as_ref().unwrap().1;
        store.rolled(all).await.unwrap();
        let count = async |span| store.series("one", span, u32::MAX).await.unwrap().len();
        assert_eq!((count(Span::Minute).await, count(Span::TwoHours).await), (1440, 360));
        assert_eq!(count(Span::TenMinutes).await, 0);
        let newest = &store.series("one", Span::Minute, 1).await.unwrap()[0];
        let newest = Bucket::from_json(&serde_json::from_str(newest).unwrap()).unwrap();
        assert_eq!(newest.index + 1, end.as_secs() / 60, "the last minute is not over");
        // Nobody samples it any more: it is forgotten in its time.
        let after = |days: u64| {
            let at = end + Duration::from_hours(24 * days);
            Timestamp::from_unix_ms(u64::try_from(at.as_millis()).unwrap())
        };
        store.forget_usage(after(2)).await.unwrap();
        assert_eq!(count(Span::Minute).await, 0);
        assert!(count(Span::TwoHours).await > 300);
        store.forget_usage(after(31)).await.unwrap();
        assert_eq!(count(Span::TwoHours).await, 0);
        assert_eq!(store.rollups("one").await.unwrap().1, Duration::ZERO);
    }

    #[tokio::test]
    async fn a_restart_goes_on_with_the_spans_that_were_not_over() {
        let store = Store::in_memory().unwrap();
        let (mut rollups, begun) = (Rollups::default(), Duration::from_hours(480_000));
        let first = rolled("one", &mut rollups, begun);
        store.rolled(vec![first]).await.unwrap();
        let (mut again, since) = store.rollups("one").await.unwrap();
        assert_eq!(since, begun);
        // Some minutes of that are written down already: they stay as they are.
        let mut other = Rollups::default();
        let mut whole = vec![rolled("one", &mut other, begun)];
        other.fold(&sample(begun + Duration::from_secs(30)));
        whole.push(rolled("one", &mut other, begun + Duration::from_mins(1)));
        store
            .rolled(whole.into_iter().map(|it| Rolled { open: None, ..it }).collect())
            .await
            .unwrap();
        let over = again.fold(&sample(begun + Duration::from_hours(2)));
        let long = over.iter().find(|it| it.span == Span::TwoHours).unwrap();
        assert_eq!(long.samples, 1, "of before the restart");
        let again = Rolled { name: "one".to_owned(), over, open: None };
        store.rolled(vec![again]).await.unwrap();
        let minutes = store.series("one", Span::Minute, 9).await.unwrap();
        let minute = Bucket::from_json(&serde_json::from_str(&minutes[0]).unwrap()).unwrap();
        assert_eq!((minutes.len(), minute.samples), (1, 2), "{minutes:?}");
        assert_eq!(store.rollups("other").await.unwrap().1, Duration::ZERO);
    }
}
