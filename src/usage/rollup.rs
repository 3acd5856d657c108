//! What a job used minute by minute, and over longer spans: kept long after its samples are gone.
//!
//! Pure. Invariants: spans are counted from the job's start by a clock that only goes forward, so that a step of the
//! host's clock tears none; the changes of a counter over all buckets of one span add up to its total; a value that was
//! never known in a bucket is unknown there, with its first reason.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metric::{CardMetric, Kind, Metric};
use super::sample::{CARDS_MAX, CardReadings, Readings, Sample, Unknown};
use super::tally::{Counter, Gauge};
use crate::clock::Timestamp;
use crate::node::GpuUuid;

/// Version of a bucket's document.
const VERSION: u32 = 1;

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Span {
    /// One minute.
    #[serde(rename = "1m")]
    Minute,
    /// Ten minutes.
    #[serde(rename = "10m")]
    TenMinutes,
    /// Two hours.
    #[serde(rename = "2h")]
    TwoHours,
    /// Eight hours.
    #[serde(rename = "8h")]
    EightHours,
}

impl Span {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::Minute, Self::TenMinutes, Self::TwoHours, Self::EightHours];

    /// Its length.
    pub const fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_mins(1),
            Self::TenMinutes => Duration::from_mins(10),
            Self::TwoHours => Duration::from_hours(2),
            Self::EightHours => Duration::from_hours(8),
        }
    }

    /// How many buckets of a job are kept, the newest: two hours, a day, a week, and a year less a month.
    pub const fn kept(self) -> usize {
        match self {
            Self::Minute => 120,
            Self::TenMinutes => 144,
            Self::TwoHours => 84,
            Self::EightHours => 1_000,
        }
    }

    /// Which bucket this time since the job's start is in.
    const fn index(self, since_start: Duration) -> u64 {
        since_start.as_secs() / self.length().as_secs()
    }
}

/// The readings of one metric in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rolled {
    /// What a counter counted since the last known reading before the bucket.
    Delta(u64),
    /// The lowest, the mean and the highest value of a gauge or a peak.
    Range(u64, u64, u64),
    /// No reading in the bucket was known.
    Unknown(Unknown),
}

/// The samples of one span of a job's life, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// How long it is; the last one of a job may have ended sooner.
    pub span: Span,
    /// How many buckets of this span come before it in the job's life.
    pub index: u64,
    /// Its begin by the host's clock, as its first sample shows it. A clock that is set moves the next bucket's.
    pub from: Timestamp,
    /// Number of samples in it.
    pub samples: u32,
    /// What the job used as a whole, in the order of [`Metric::ALL`].
    pub job: [Rolled; Metric::COUNT],
    /// What it used of each card, in the order of [`CardMetric::ALL`].
    pub cards: Vec<(GpuUuid, [Rolled; CardMetric::COUNT])>,
}

/// Puts the samples of one job together, over all spans at once.
///
/// Its JSON (by serde) is for the node's own files: a node that is restarted goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollups {
    job: [Counter; Metric::COUNT],
    cards: Vec<(GpuUuid, [Counter; CardMetric::COUNT])>,
    open: [Option<Open>; 4],
}

/// A bucket that still takes samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    index: u64,
    from: Timestamp,
    samples: u32,
    job: [Gauge; Metric::COUNT],
    cards: Vec<(GpuUuid, [Gauge; CardMetric::COUNT])>,
}

impl Default for Rollups {
    fn default() -> Self {
        Self { job: [Counter::EMPTY; Metric::COUNT], cards: Vec::new(), open: [const { None }; 4] }
    }
}

impl Rollups {
    /// Adds a sample; the buckets that are over, at most one of each span. Samples come in the order in which they were
    /// taken. Of more than [`CARDS_MAX`] cards, the first are taken.
    pub fn fold(&mut self, sample: &Sample) -> Vec<Bucket> {
        let (job, cards) = self.news(sample);
        let mut closed = Vec::new();
        for (span, place) in Span::ALL.into_iter().zip(&mut self.open) {
            let index = span.index(sample.since_start);
            if let Some(over) = place.take_if(|open| open.index < index) {
                closed.push(over.close(span));
            }
            let open = place.get_or_insert_with(|| {
                let gone = sample.since_start.as_millis() % span.length().as_millis();
                let gone_ms = u64::try_from(gone).unwrap_or(0);
                Open::new(index, sample.at.unix_ms().saturating_sub(gone_ms))
            });
            open.fold(&job, &cards);
        }
        closed
    }

    /// The buckets that the job's end leaves open.
    pub fn finish(&mut self) -> Vec<Bucket> {
        let open = Span::ALL.into_iter().zip(&mut self.open);
        open.filter_map(|(span, place)| Some(place.take()?.close(span))).collect()
    }

    /// The sample's readings, where a counter's is what it counted since the last known one.
    fn news(&mut self, sample: &Sample) -> (Readings, Vec<(GpuUuid, CardReadings)>) {
        let mut job = sample.job;
        for (metric, counter) in Metric::ALL.into_iter().zip(&mut self.job) {
            if metric.kind() == Kind::Counter {
                job[metric] = counter.fold(job[metric]);
            }
        }
        let mut cards = Vec::new();
        for (uuid, readings) in sample.cards.iter().take(CARDS_MAX) {
            let Some(counters) = of_card(&mut self.cards, uuid, Counter::EMPTY) else { continue };
            let mut readings = *readings;
            for (metric, counter) in CardMetric::ALL.into_iter().zip(counters) {
                if metric.kind() == Kind::Counter {
                    readings[metric] = counter.fold(readings[metric]);
                }
            }
            cards.push((uuid.clone(), readings));
        }
        (job, cards)
    }
}

/// The row of this card, made if there is none yet; `None` if there are rows of [`CARDS_MAX`] others.
fn of_card<'a, T: Copy>(
    rows: &'a mut Vec<(GpuUuid, [T; CardMetric::COUNT])>,
    uuid: &GpuUuid,
    empty: T,
) -> Option<&'a mut [T; CardMetric::COUNT]> {
    let known = rows.iter().position(|(other, _)| other == uuid);
    if known.is_none() && rows.len() < CARDS_MAX {
        rows.push((uuid.clone(), [empty; CardMetric::COUNT]));
    }
    let at = known.unwrap_or(rows.len().saturating_sub(1));
    rows.get_mut(at).filter(|(other, _)| other == uuid).map(|(_, row)| row)
}

impl Open {
    fn new(index: u64, from_ms: u64) -> Self {
        Self {
            index,
            from: Timestamp::from_unix_ms(from_ms),
            samples: 0,
            job: [Gauge::EMPTY; Metric::COUNT],
            cards: Vec::new(),
        }
    }

    fn fold(&mut self, job: &Readings, cards: &[(GpuUuid, CardReadings)]) {
        self.samples = self.samples.saturating_add(1);
        for (metric, gauge) in Metric::ALL.into_iter().zip(&mut self.job) {
            gauge.fold(job[metric]);
        }
        for (uuid, readings) in cards {
            let Some(row) = of_card(&mut self.cards, uuid, Gauge::EMPTY) else { continue };
            for (metric, gauge) in CardMetric::ALL.into_iter().zip(row) {
                gauge.fold(readings[metric]);
            }
        }
    }

    fn close(self, span: Span) -> Bucket {
        let card = |row: [Gauge; CardMetric::COUNT]| {
            CardMetric::ALL.map(|metric| rolled(metric.kind(), &row[metric as usize]))
        };
        Bucket {
            span,
            index: self.index,
            from: self.from,
            samples: self.samples,
            job: Metric::ALL.map(|metric| rolled(metric.kind(), &self.job[metric as usize])),
            cards: self.cards.into_iter().map(|(uuid, row)| (uuid, card(row))).collect(),
        }
    }
}

fn rolled(kind: Kind, gauge: &Gauge) -> Rolled {
    let known = match kind {
        Kind::Counter => gauge.sum().map(Rolled::Delta),
        Kind::Gauge | Kind::Peak => {
            gauge.range().map(|(min, avg, max)| Rolled::Range(min, avg, max))
        }
    };
    known.unwrap_or_else(Rolled::Unknown)
}

/// A bucket's document. A metric's key is its name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    span: Span,
    index: u64,
    from: Timestamp,
    samples: u32,
    job: BTreeMap<String, Rolled>,
    cards: Vec<Card>,
}

#[derive(Serialize, Deserialize)]
struct Card {
    uuid: String,
    #[serde(flatten)]
    values: BTreeMap<String, Rolled>,
}

/// Why something is not a bucket's document: a clause about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rollup of this version: {0}")]
pub struct InvalidBucket(String);

impl Bucket {
    /// Its document: a counter's change as a number, a gauge's values as `[lowest, mean, highest]`, and the reason of
    /// an unknown as a word.
    pub fn to_json(&self) -> Value {
        let named = |name: &str, rolled: &Rolled| (name.to_owned(), *rolled);
        let cards = self.cards.iter().map(|(uuid, row)| Card {
            uuid: uuid.to_string(),
            values: CardMetric::ALL.iter().zip(row).map(|(m, r)| named(m.name(), r)).collect(),
        });
        let document = Document {
            v: VERSION,
            span: self.span,
            index: self.index,
            from: self.from,
            samples: self.samples,
            job: Metric::ALL.iter().zip(&self.job).map(|(m, r)| named(m.name(), r)).collect(),
            cards: cards.collect(),
        };
        serde_json::to_value(document).unwrap_or_default()
    }

    /// Reads a document. A metric without a value in it is one that its writer did not have.
    pub fn from_json(document: &Value) -> Result<Self, InvalidBucket> {
        let document =
            Document::deserialize(document).map_err(|err| InvalidBucket(err.to_string()))?;
        if document.v != VERSION {
            return Err(InvalidBucket(format!("it is of version {}", document.v)));
        }
        if document.cards.len() > CARDS_MAX {
            return Err(InvalidBucket(format!("it has more than {CARDS_MAX} cards")));
        }
        let job = read_row(document.job, Metric::ALL.map(|m| (m.name(), m.kind())))?;
        let cards = document.cards.into_iter().map(|card| {
            let uuid = GpuUuid::new(&card.uuid)
                .ok_or_else(|| InvalidBucket("a card's `uuid` is not one".to_owned()))?;
            Ok((uuid, read_row(card.values, CardMetric::ALL.map(|m| (m.name(), m.kind())))?))
        });
        Ok(Self {
            span: document.span,
            index: document.index,
            from: document.from,
            samples: document.samples,
            job,
            cards: cards.collect::<Result<_, _>>()?,
        })
    }
}

fn read_row<const N: usize>(
    mut values: BTreeMap<String, Rolled>,
    metrics: [(&'static str, Kind); N],
) -> Result<[Rolled; N], InvalidBucket> {
    let mut row = [Rolled::Unknown(Unknown::NotSupported); N];
    for (place, (name, kind)) in row.iter_mut().zip(metrics) {
        let Some(value) = values.remove(name) else { continue };
        let fits = match value {
            Rolled::Delta(_) => kind == Kind::Counter,
            Rolled::Range(min, mean, max) => kind != Kind::Counter && min <= mean && mean <= max,
            Rolled::Unknown(_) => true,
        };
        if !fits {
            return Err(InvalidBucket(format!("`{name}` has no value of its kind")));
        }
        *place = value;
    }
    if values.is_empty() {
        Ok(row)
    } else {
        Err(InvalidBucket("it has a value of an unknown metric".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::usage::sample::Reading;

    const DAY_MS: u64 = 86_400_000;

    /// A sample at this time since the start, by a clock that shows `DAY_MS` then, plus `step_ms`.
    fn sample(seconds: u64, step_ms: u64, known: &[(Metric, Reading)]) -> Sample {
        let mut job = Readings::unknown(Unknown::Off);
        for (metric, reading) in known {
            job[*metric] = *reading;
        }
        let at = Timestamp::from_unix_ms(DAY_MS + seconds * 1_000 + step_ms);
        Sample { at, since_start: Duration::from_secs(seconds), job, cards: Vec::new() }
    }

    fn minutes(rollups: &mut Rollups, samples: &[Sample]) -> Vec<Bucket> {
        let mut closed: Vec<_> = samples.iter().flat_map(|sample| rollups.fold(sample)).collect();
        closed.extend(rollups.finish());
        closed.retain(|bucket| bucket.span == Span::Minute);
        closed
    }

    fn of(bucket: &Bucket, metric: Metric) -> Rolled {
        bucket.job[metric as usize]
    }

    #[test]
    fn a_bucket_has_the_changes_of_counters_and_the_range_of_gauges() {
        let at = |seconds, cpu, memory| {
            sample(seconds, 0, &[(Metric::Cpu, Ok(cpu)), (Metric::Memory, Ok(memory))])
        };
        let closed = minutes(
            &mut Rollups::default(),
            &[at(10, 7, 100), at(59, 9, 500), at(60, 11, 300), at(119, 20, 300)],
        );
        assert_eq!(closed.len(), 2);
        assert_eq!((closed[0].index, closed[0].samples), (0, 2));
        assert_eq!(of(&closed[0], Metric::Cpu), Rolled::Delta(9));
        assert_eq!(of(&closed[0], Metric::Memory), Rolled::Range(100, 300, 500));
        assert_eq!(of(&closed[0], Metric::Swap), Rolled::Unknown(Unknown::Off));
        assert_eq!(of(&closed[1], Metric::Cpu), Rolled::Delta(11));
        assert_eq!(closed[1].from, Timestamp::from_unix_ms(DAY_MS + 60_000));
    }

    #[test]
    fn each_span_closes_when_its_time_is_over() {
        let mut rollups = Rollups::default();
        let mut closed = Vec::new();
        for minute in 0..=8 * 60 {
            closed.extend(rollups.fold(&sample(minute * 60, 0, &[])));
        }
        let count = |span| closed.iter().filter(|bucket| bucket.span == span).count();
        assert_eq!(Span::ALL.map(count), [480, 48, 4, 1]);
        assert_eq!(rollups.finish().len(), 4);
        assert_eq!(rollups.finish(), []);
    }

    #[test]
    fn a_clock_step_tears_no_bucket() {
        let closed = minutes(
            &mut Rollups::default(),
            &[sample(0, 0, &[]), sample(30, 7_200_000, &[]), sample(61, 7_200_000, &[])],
        );
        let starts: Vec<_> =
            closed.iter().map(|b| (b.samples, b.from.unix_ms() - DAY_MS)).collect();
        assert_eq!(starts, [(2, 0), (1, 7_260_000)]);
    }

    #[test]
    fn a_value_that_was_not_known_for_a_bucket_is_unknown_there_and_counted_in_the_next() {
        let cpu = |seconds, reading| sample(seconds, 0, &[(Metric::Cpu, reading)]);
        let closed = minutes(
            &mut Rollups::default(),
            &[cpu(0, Ok(5)), cpu(60, Err(Unknown::Failed)), cpu(120, Ok(50))],
        );
        let deltas: Vec<_> = closed.iter().map(|bucket| of(bucket, Metric::Cpu)).collect();
        let unknown = Rolled::Unknown(Unknown::Failed);
        assert_eq!(deltas, [Rolled::Delta(5), unknown, Rolled::Delta(45)]);
    }

    #[test]
    fn cards_are_rolled_up_too_and_a_hundred_of_them_take_no_room() {
        let mut card = CardReadings::unknown(Unknown::Denied);
        card[CardMetric::Energy] = Ok(90);
        card[CardMetric::Busy] = Ok(40);
        let cards = (0..100).map(|n| (GpuUuid::new(&format!("GPU-{n}")).unwrap(), card)).collect();
        let closed = minutes(&mut Rollups::default(), &[Sample { cards, ..sample(0, 0, &[]) }]);
        assert_eq!(closed[0].cards.len(), CARDS_MAX);
        let row = closed[0].cards[3].1;
        assert_eq!(row[CardMetric::Energy as usize], Rolled::Delta(90));
        assert_eq!(row[CardMetric::Busy as usize], Rolled::Range(40, 40, 40));
        assert_eq!(row[CardMetric::Power as usize], Rolled::Unknown(Unknown::Denied));
    }

    #[test]
    fn a_node_that_is_restarted_goes_on_with_the_same_buckets() {
        let cpu = |seconds, us| sample(seconds, 0, &[(Metric::Cpu, Ok(us))]);
        let mut whole = Rollups::default();
        whole.fold(&cpu(0, 5));
        let text = serde_json::to_string(&whole).unwrap();
        let mut resumed: Rollups = serde_json::from_str(&text).unwrap();
        let rest = [cpu(30, 7), cpu(60, 9)];
        assert_eq!(minutes(&mut resumed, &rest), minutes(&mut whole, &rest));
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        let mut rollups = Rollups::default();
        rollups.fold(&sample(0, 0, &[(Metric::Cpu, Ok(1))]));
        let good = rollups.finish()[0].to_json();
        assert!(Bucket::from_json(&good).is_ok());
        for (pointer, value, says) in [
            ("/v", json!(2), "version 2"),
            ("/span", json!("3m"), "3m"),
            ("/job/cpu_us", json!([1, 2, 3]), "`cpu_us`"),
            ("/job/memory_bytes", json!(5), "`memory_bytes`"),
            ("/job/memory_bytes", json!([3, 2, 1]), "`memory_bytes`"),
            ("/job/cpu_us", json!("nothing"), "variant"),
            ("/cards", json!([{"uuid": "all"}]), "`uuid`"),
            ("/cards", json!(vec![json!({"uuid": "GPU-1"}); 17]), "16 cards"),
            ("/job", json!({"colour": 1}), "unknown metric"),
        ] {
            let mut other = good.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            let refusal = Bucket::from_json(&other).unwrap_err().to_string();
            assert!(refusal.contains(says), "{pointer}: {refusal}");
        }
        let mut older = good;
        older["job"].as_object_mut().unwrap().remove("swap_bytes");
        let older = Bucket::from_json(&older).unwrap();
        assert_eq!(of(&older, Metric::Swap), Rolled::Unknown(Unknown::NotSupported));
    }

    fn any_rolled(kind: Kind) -> BoxedStrategy<Rolled> {
        let whys = [Unknown::Off, Unknown::Denied, Unknown::TooOld, Unknown::Missed];
        let unknown = proptest::sample::select(whys.to_vec()).prop_map(Rolled::Unknown);
        let known = any::<[u64; 3]>().prop_map(move |mut values| {
            values.sort_unstable();
            let [min, mean, max] = values;
            if kind == Kind::Counter { Rolled::Delta(max) } else { Rolled::Range(min, mean, max) }
        });
        prop_oneof![unknown, known].boxed()
    }

    proptest! {
        #[test]
        fn a_bucket_survives_its_document(
            job in Metric::ALL.map(|m| any_rolled(m.kind())).to_vec(),
            card in CardMetric::ALL.map(|m| any_rolled(m.kind())).to_vec(),
            (span, index, from_ms) in (0..4_usize, any::<u64>(), 0..DAY_MS * 100_000),
            samples in any::<u32>(),
        ) {
            let bucket = Bucket {
                span: Span::ALL[span],
                index,
                from: Timestamp::from_unix_ms(from_ms),
                samples,
                job: job.try_into().unwrap(),
                cards: vec![(GpuUuid::new("GPU-1").unwrap(), card.try_into().unwrap())],
            };
            prop_assert_eq!(Bucket::from_json(&bucket.to_json()), Ok(bucket));
        }

        #[test]
        fn the_changes_of_a_counter_add_up_to_what_it_counted(
            looks in proptest::collection::vec((1_u64..500, 0_u64..1_000), 1..60),
        ) {
            let (mut seconds, mut us) = (0, 0);
            let samples: Vec<_> = looks.iter().map(|(later, more)| {
                (seconds, us) = (seconds + later, us + more);
                sample(seconds, 0, &[(Metric::Cpu, Ok(us))])
            }).collect();
            let mut rollups = Rollups::default();
            let mut closed: Vec<_> = samples.iter().flat_map(|s| rollups.fold(s)).collect();
            closed.extend(rollups.finish());
            for span in Span::ALL {
                let own = closed.iter().filter(|bucket| bucket.span == span);
                let sum: u64 = own.map(|bucket| match of(bucket, Metric::Cpu) {
                    Rolled::Delta(delta) => delta,
                    other => panic!("{other:?}"),
                }).sum();
                prop_assert_eq!(sum, us);
            }
        }
    }
}
