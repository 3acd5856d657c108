//! What jobs used, as rollups of the batches that nodes send.
//!
//! Must hold: a batch counts once; what it added and the number up to which the stream was read are one commit; a job
//! keeps no more rollups than [`Span::kept`] says, whoever sends batches in its name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cursors::set_cursor;
use super::nodes::ms as at;
use super::view::{Eyes, all, ms, signed};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::ids::Address;
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};
use crate::usage::rollup::Rolled;
use crate::usage::{Batch, Bucket, CardMetric, Metric, Rollups, Sample, Span};

/// The cursor of the stream of batches.
pub const USAGE: &str = "usage";

/// What is kept of a job as a whole, in the order of [`Values::job`].
pub const JOB: [Metric; 6] = [
    Metric::Cpu,
    Metric::Memory,
    Metric::DiskRead,
    Metric::DiskWrite,
    Metric::NetRx,
    Metric::NetTx,
];

/// What is kept of each card, in the order of [`Values::cards`].
pub const CARD: [CardMetric; 3] = [CardMetric::Busy, CardMetric::Memory, CardMetric::Power];

/// How long what a job used is kept after its last batch.
const JOBS_KEPT: Duration = Duration::from_hours(90 * 24);

/// How long rollups of a minute are kept, and those of ten.
const MINUTES_KEPT: Duration = Duration::from_hours(2 * 24);
const TENS_KEPT: Duration = Duration::from_hours(35 * 24);

/// A job of which no batch came for so long gets no more.
const ENDS_AFTER: Duration = Duration::from_hours(2 * 24);

/// Most rollups of a node that are read for its last day.
const POINTS_MAX: u32 = 20_000;

/// A batch as it was read from the stream.
#[derive(Debug, Clone)]
pub struct Told {
    /// The node that the subject names.
    pub node: Address,
    /// Its number in the stream.
    pub seq: u64,
    /// When the server stored it.
    pub at: Timestamp,
    /// What it says.
    pub batch: Batch,
}

/// The values of a rollup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// How many samples they rest on.
    pub samples: u32,
    /// The job as a whole, in the order of [`JOB`].
    pub job: Vec<Rolled>,
    /// Each card with its values, in the order of [`CARD`].
    pub cards: Vec<(String, Vec<Rolled>)>,
}

/// A rollup with its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it begins.
    pub from: u64,
    /// How much of the job's life it covers, in milliseconds.
    pub ms: u64,
    /// What it says.
    #[serde(flatten)]
    pub values: Values,
}

/// What is known of a job's use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Used {
    /// How long a point is, in seconds; the last one may be open.
    pub span_s: u64,
    /// The points, in order.
    pub points: Vec<Point>,
    /// How many batches came, and how many of those before the last one did not.
    pub batches: u64,
    /// See above.
    pub missed: u64,
    /// How many samples came.
    pub samples: u64,
    /// The last batch's number in its stream.
    pub seq: u64,
    /// When the server got it.
    pub last: u64,
}

impl Store {
    /// Adds what these batches tell, and notes that the stream was read up to `last`.
    pub async fn keep_usage(&self, told: Vec<Told>, last: u64) -> Result<(), Error> {
        self.writer
            .change("hub.usage", false, move |db| {
                for one in &told {
                    keep(db, one)?;
                }
                set_cursor(db, USAGE, last)?;
                Ok(())
            })
            .await
    }
}

impl Eyes {
    /// What a job of this node used, by the shortest span that covers its whole life; `None` if no batch came.
    pub async fn usage(&self, node: String, job: String) -> Result<Option<Used>, Error> {
        self.look(move |db| used(db, &node, &job)).await
    }

    /// The rollups of ten minutes of all jobs of a node that begin after this time or little before it.
    pub async fn usage_since(&self, node: String, since: u64) -> Result<Vec<Point>, Error> {
        self.look(move |db| {
            let from = since.saturating_sub(millis(Span::TenMinutes.length()));
            let points = all(db, OF_NODE, params![node, signed(from), POINTS_MAX], point)?;
            Ok(points.into_iter().flatten().collect())
        })
        .await
    }
}

/// The rollups of ten minutes of a node since some time.
const OF_NODE: &str = "SELECT from_ms, ms, body FROM usage_points
    WHERE node = ?1 AND span_s = 600 AND from_ms >= ?2 LIMIT ?3";

fn used(db: &Connection, node: &str, job: &str) -> Result<Option<Used>, Error> {
    let sql =
        "SELECT next, missed, samples, seq, last_ms FROM usage_jobs WHERE node = ? AND job_id = ?";
    let head = db
        .query_row(sql, params![node, job], |row| {
            Ok([ms(row, 0)?, ms(row, 1)?, ms(row, 2)?, ms(row, 3)?, ms(row, 4)?])
        })
        .optional()?;
    let Some([next, missed, samples, seq, last]) = head else { return Ok(None) };
    let sql = "SELECT from_ms, ms, body FROM usage_points
        WHERE node = ? AND job_id = ? AND span_s = ? ORDER BY idx";
    let batches = next.saturating_sub(missed);
    let mut best = Used { span_s: 0, points: Vec::new(), batches, missed, samples, seq, last };
    for span in Span::ALL {
        let span_s = span.length().as_secs();
        let points = all(db, sql, params![node, job, signed(span_s)], point)?;
        let points: Vec<Point> = points.into_iter().flatten().collect();
        let seen: u64 = points.iter().map(|point| u64::from(point.values.samples)).sum();
        // Of a job that is older than all of them, the longest span tells most.
        if !points.is_empty() {
            best = Used { span_s, points, ..best };
        }
        if seen == samples {
            break;
        }
    }
    Ok(Some(best))
}

/// A point; `None` if its body can't be read.
fn point(row: &crate::sql::Row<'_>) -> Result<Option<Point>, SqliteError> {
    let (from, span, body) = (ms(row, 0)?, ms(row, 1)?, row.get::<_, String>(2)?);
    Ok(serde_json::from_str(&body).ok().map(|values| Point { from, ms: span, values }))
}

/// What is known of a job before a batch.
struct Known {
    attempt: u32,
    next: u32,
    missed: u32,
    samples: i64,
    state: Option<String>,
}

fn keep(db: &Connection, told: &Told) -> Result<(), SqliteError> {
    let (batch, node) = (&told.batch, told.node.lower_hex());
    let job = batch.job_id.as_str();
    let known = known(db, &node, job)?.filter(|known| known.attempt >= batch.attempt);
    if known.is_none() {
        let gone = "DELETE FROM usage_points WHERE node = ?1 AND job_id = ?2";
        db.prepare_cached(gone)?.execute([&*node, job])?;
    }
    let (known, is_first) = match known {
        Some(known) => (known, false),
        None => {
            (Known { attempt: batch.attempt, next: 0, missed: 0, samples: 0, state: None }, true)
        }
    };
    // Of an earlier attempt, or told before.
    if known.attempt > batch.attempt || batch.number < known.next {
        return Ok(());
    }
    let state = known.state.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut rollups: Option<Rollups> = state.or_else(|| is_first.then(Rollups::default));
    if let Some(rollups) = &mut rollups {
        if is_first && batch.number > 0 {
            prime(rollups, &batch.samples);
        }
        for sample in &batch.samples {
            for bucket in rollups.fold(sample) {
                put(db, (&node, job), &bucket, bucket.span.length(), told.at)?;
            }
        }
        if let Some(last) = batch.samples.last() {
            for bucket in rollups.clone().finish() {
                put(db, (&node, job), &bucket, covered(&bucket, last), told.at)?;
            }
        }
    }
    let sql = "INSERT OR REPLACE INTO usage_jobs
        (node, job_id, attempt, next, missed, samples, seq, last_ms, state)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let missed = known.missed.saturating_add(batch.number.saturating_sub(known.next));
    let samples = i64::try_from(batch.samples.len()).unwrap_or_default();
    let row = params![
        node,
        job,
        batch.attempt,
        batch.number.saturating_add(1),
        missed,
        known.samples.saturating_add(samples),
        signed(told.seq),
        at(told.at),
        rollups.and_then(|it| serde_json::to_string(&it).ok())
    ];
    db.prepare_cached(sql)?.execute(row).map(drop)
}

fn known(db: &Connection, node: &str, job: &str) -> Result<Option<Known>, SqliteError> {
    let sql = "SELECT attempt, next, missed, samples, state FROM usage_jobs
        WHERE node = ?1 AND job_id = ?2";
    let read = |row: &crate::sql::Row<'_>| {
        Ok(Known {
            attempt: row.get(0)?,
            next: row.get(1)?,
            missed: row.get(2)?,
            samples: row.get(3)?,
            state: row.get(4)?,
        })
    };
    db.prepare_cached(sql)?.query_row([node, job], read).optional()
}

/// Takes the counters up where the first batch that is there finds them: what they counted before has no place.
fn prime(rollups: &mut Rollups, samples: &[Sample]) {
    if let Some(first) = samples.first() {
        rollups.fold(first);
        rollups.finish();
    }
}

/// How much of a job's life a bucket that is still open covers.
fn covered(bucket: &Bucket, last: &Sample) -> Duration {
    let length = bucket.span.length();
    let begin = u64::from(u32::MAX).min(bucket.index).saturating_mul(length.as_secs());
    last.since_start.saturating_sub(Duration::from_secs(begin)).min(length)
}

fn put(
    db: &Connection,
    (node, job): (&str, &str),
    bucket: &Bucket,
    covers: Duration,
    told: Timestamp,
) -> Result<(), SqliteError> {
    let pick = |row: &[Rolled], index: usize| row.get(index).copied();
    let card = |(uuid, row): &(crate::node::GpuUuid, [Rolled; CardMetric::COUNT])| {
        let values = CARD.iter().filter_map(|metric| pick(row, *metric as usize)).collect();
        (uuid.to_string(), values)
    };
    let values = Values {
        samples: bucket.samples,
        job: JOB.iter().filter_map(|metric| pick(&bucket.job, *metric as usize)).collect(),
        cards: bucket.cards.iter().map(card).collect(),
    };
    let span_s = signed(bucket.span.length().as_secs());
    let sql = "INSERT OR REPLACE INTO usage_points (node, job_id, span_s, idx, from_ms, ms, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    // A node's clock that runs ahead makes no future.
    let from = at(bucket.from.min(told));
    let body = serde_json::to_string(&values).unwrap_or_default();
    let row = params![node, job, span_s, signed(bucket.index), from, signed(millis(covers)), body];
    db.prepare_cached(sql)?.execute(row)?;
    let kept = u64::try_from(bucket.span.kept()).unwrap_or(u64::MAX);
    if bucket.index >= kept {
        let sql = "DELETE FROM usage_points WHERE node = ?1 AND job_id = ?2 AND span_s = ?3 AND idx <= ?4";
        let row = params![node, job, span_s, signed(bucket.index - kept)];
        db.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Removes what is older than its time; the number of rows, at most about this many.
pub(super) fn forget(db: &Connection, now: Timestamp, rows_max: u32) -> Result<usize, SqliteError> {
    let before = |kept: Duration| at(now).saturating_sub(signed(millis(kept)));
    let points = "DELETE FROM usage_points WHERE (node, job_id, span_s, idx) IN
        (SELECT node, job_id, span_s, idx FROM usage_points WHERE span_s = ?1 AND from_ms < ?2 LIMIT ?3)";
    let mut most = 0;
    for (span_s, kept) in
        [(60, MINUTES_KEPT), (600, TENS_KEPT), (7_200, JOBS_KEPT * 4), (28_800, JOBS_KEPT * 4)]
    {
        most = most.max(db.execute(points, params![span_s, before(kept), rows_max])?);
    }
    let end = "UPDATE usage_jobs SET state = NULL WHERE last_ms < ?1 AND state IS NOT NULL";
    db.execute(end, [before(ENDS_AFTER)])?;
    let old = "SELECT node, job_id FROM usage_jobs WHERE last_ms < ?1 LIMIT ?2";
    let pair = |row: &crate::sql::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let mut statement = db.prepare_cached(old)?;
    let old: Vec<_> = statement
        .query_map(params![before(JOBS_KEPT), rows_max], |row| pair(row))?
        .collect::<Result<_, _>>()?;
    for (node, job) in &old {
        db.execute("DELETE FROM usage_points WHERE node = ?1 AND job_id = ?2", [node, job])?;
        db.execute("DELETE FROM usage_jobs WHERE node = ?1 AND job_id = ?2", [node, job])?;
    }
    Ok(most.max(old.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;
    use crate::usage::sample::{CardReadings, Readings, Unknown};

    const NODE: [u8; 20] = [7; 20];

    /// A batch of a sample each ten seconds, each with half a core and `memory`.
    fn told(number: u32, attempt: u32, seconds: std::ops::Range<u64>, memory: u64) -> Told {
        let sample = |second: u64| {
            let mut job = Readings::unknown(Unknown::NotSupported);
            job[Metric::Cpu] = Ok(second * 500_000);
            job[Metric::Memory] = Ok(memory);
            let mut card = CardReadings::unknown(Unknown::Denied);
            card[CardMetric::Busy] = Ok(80);
            let cards = vec![(crate::node::GpuUuid::new("GPU-1").unwrap(), card)];
            let since_start = Duration::from_secs(second);
            Sample {
                at: Timestamp::from_unix_ms(1_000_000 + second * 1_000),
                since_start,
                job,
                cards,
            }
        };
        let batch = Batch {
            job_id: "job-1".parse().unwrap(),
            attempt,
            node: Address::new(NODE),
            number,
            prev: Hash([0; 32]),
            samples: seconds.step_by(10).map(sample).collect(),
            marks: Vec::new(),
            cost: crate::usage::Cost::default(),
        };
        let at = Timestamp::from_unix_ms(50_000_000);
        Told { node: Address::new(NODE), seq: u64::from(number) + 100, at, batch }
    }

    async fn usage(store: &Store) -> Used {
        let eyes = Eyes::of(store.clone());
        let node = Address::new(NODE).lower_hex();
        eyes.usage(node, "job-1".to_owned()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn batches_add_up_to_minutes_and_one_that_comes_twice_counts_once() {
        let store = Store::in_memory().unwrap();
        let first = told(0, 1, 10..130, 5);
        store.keep_usage(vec![first.clone(), first], 100).await.unwrap();
        store.keep_usage(vec![told(1, 1, 130..190, 9)], 101).await.unwrap();
        let used = usage(&store).await;
        assert_eq!((used.span_s, used.batches, used.missed, used.samples), (60, 2, 0, 18));
        let begins: Vec<u64> = used.points.iter().map(|point| point.from).collect();
        assert_eq!(begins, [1_000_000, 1_060_000, 1_120_000, 1_180_000]);
        assert_eq!(used.points[3].ms, 0, "the last minute has just begun");
        let cpu: u64 = used
            .points
            .iter()
            .map(|point| match point.values.job[0] {
                Rolled::Delta(us) => us,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(cpu, 180 * 500_000);
        assert_eq!(used.points[2].values.job[1], Rolled::Range(5, 8, 9));
        let card = &used.points[0].values.cards[0];
        assert_eq!((&*card.0, card.1[0]), ("GPU-1", Rolled::Range(80, 80, 80)));
        assert_eq!(card.1[2], Rolled::Unknown(Unknown::Denied));
        assert_eq!(store.cursor(USAGE).await.unwrap(), Some(101));
    }

    #[tokio::test]
    async fn the_day_of_a_node_is_found_without_a_look_at_the_points_of_others() {
        let plan = |db: &Connection| -> Result<String, Error> {
            let sql = format!("EXPLAIN QUERY PLAN {OF_NODE}");
            Ok(db.query_row(&sql, params!["0xa", 5, 9], |row| row.get(3))?)
        };
        let plan = Store::in_memory().unwrap().writer.call(false, plan).await.unwrap();
        assert!(plan.contains("(node=? AND span_s=? AND from_ms>?)"), "{plan}");
    }

    #[tokio::test]
    async fn a_gap_is_counted_and_a_new_attempt_begins_anew() {
        let store = Store::in_memory().unwrap();
        store.keep_usage(vec![told(2, 1, 600..660, 5)], 1).await.unwrap();
        let used = usage(&store).await;
        assert_eq!((used.missed, used.batches), (2, 1));
        assert_eq!(
            used.points[0].values.job[0],
            Rolled::Delta(50 * 500_000),
            "no ten minutes in one"
        );
        store.keep_usage(vec![told(0, 2, 10..60, 5), told(3, 1, 660..700, 5)], 2).await.unwrap();
        let used = usage(&store).await;
        assert_eq!((used.missed, used.samples, used.points.len()), (0, 5, 1));
    }

    #[tokio::test]
    async fn a_long_job_keeps_few_minutes_and_is_shown_by_a_longer_span() {
        let store = Store::in_memory().unwrap();
        let hours = (0..12).map(|n| told(n, 1, u64::from(n) * 1_200..u64::from(n + 1) * 1_200, 1));
        store.keep_usage(hours.collect(), 12).await.unwrap();
        let used = usage(&store).await;
        assert_eq!((used.span_s, used.points.len()), (600, 24));
        let count = |db: &Connection| -> Result<i64, Error> {
            let sql = "SELECT COUNT(*) FROM usage_points WHERE span_s = 60";
            Ok(db.query_row(sql, [], |row| row.get(0))?)
        };
        assert_eq!(store.writer.call(false, count).await.unwrap(), 120);
        let later = Timestamp::from_unix_ms(50_000_000 + 91 * 86_400_000);
        let forget =
            move |db: &Connection| -> Result<usize, Error> { Ok(forget(db, later, 5_000)?) };
        assert!(store.writer.call(true, forget).await.unwrap() > 0);
        let node = Address::new(NODE).lower_hex();
        let gone = Eyes::of(store).usage(node, "job-1".to_owned()).await.unwrap();
        assert_eq!(gone, None);
    }
}
