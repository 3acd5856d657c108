//! What was sampled, rolled up minute by minute and written down.
//!
//! Invariants: spans are counted by a clock that only goes forward, also over restarts; a database that fails loses
//! spans, within a bound, and ends nothing; cards that can't be asked any more are unknown, and not gone.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::node::GpuUuid;
use crate::sidecar::store::{Error, Rolled, Store};
use crate::usage::{Bucket, CardReadings, Readings, Rollups, Sample, Span, Unknown};

/// Most spans of one name that wait for the database: the minutes of a day.
const WAITING_MAX: usize = 24 * 60;

/// The name of the machine among those of programs.
pub(crate) const MACHINE: &str = "";

/// The series of all programs and of the machine.
#[derive(Debug)]
pub(super) struct Series {
    /// The time of the first look, since 1970 by the host's clock, but never before what was written down.
    base: Duration,
    /// When that was, since the boot.
    begun: Duration,
    names: Vec<One>,
    is_due: bool,
    /// Whether what is not over is to be written down too.
    is_open_due: bool,
}

#[derive(Debug)]
struct One {
    name: String,
    open: Rollups,
    waiting: Vec<Bucket>,
    /// The cards that it had when that was known last.
    cards: Vec<GpuUuid>,
}

impl One {
    /// Its cards; while nobody can tell which they are, each of before, unknown for that reason.
    fn cards(&mut self, told: Told) -> Vec<(GpuUuid, CardReadings)> {
        match told {
            Ok(cards) => {
                self.cards = cards.iter().map(|(uuid, _)| uuid.clone()).collect();
                cards
            }
            Err(why) => {
                let unknown = |uuid: &GpuUuid| (uuid.clone(), CardReadings::unknown(why));
                self.cards.iter().map(unknown).collect()
            }
        }
    }
}

/// The cards of one name, or why they can't be told.
type Told = Result<Vec<(GpuUuid, CardReadings)>, Unknown>;

/// What was sampled of one name.
pub(super) type Sampled = (Readings, Told);

impl Series {
    /// Goes on where the database ends. `names` are those of the programs; `now` is by both clocks.
    pub(super) async fn load(
        store: &Store,
        names: impl Iterator<Item = String>,
        now: (Timestamp, Duration),
    ) -> Result<Self, Error> {
        let (mut base, mut all) = (Duration::from_millis(now.0.unix_ms()), Vec::new());
        for name in names.chain([MACHINE.to_owned()]) {
            let (open, since) = store.rollups(&name).await?;
            base = base.max(since.saturating_add(Duration::from_secs(1)));
            all.push(One { name, open, waiting: Vec::new(), cards: Vec::new() });
        }
        Ok(Self { base, begun: now.1, names: all, is_due: false, is_open_due: true })
    }

    /// Takes in a look, in the order of the names; `now` is by both clocks.
    pub(super) fn fold(
        &mut self,
        now: (Timestamp, Duration),
        sampled: impl IntoIterator<Item = Sampled>,
    ) {
        let since_start = self.since(now.1);
        for (one, (job, cards)) in self.names.iter_mut().zip(sampled) {
            let cards = one.cards(cards);
            let over = one.open.fold(&Sample { at: now.0, since_start, job, cards });
            self.is_due |= !over.is_empty();
            // It is large beside a minute: a restart may lose ten of them of a longer span.
            self.is_open_due |= over.iter().any(|it| it.span == Span::TenMinutes);
            let room = WAITING_MAX.saturating_sub(one.waiting.len());
            one.waiting.extend(over.into_iter().take(room));
        }
    }

    fn since(&self, now: Duration) -> Duration {
        self.base.saturating_add(now.saturating_sub(self.begun))
    }

    /// Writes down what is over, if anything is: once a minute.
    pub(super) async fn write(&mut self, store: &Store, now: Duration) -> Result<(), Error> {
        if !self.is_due {
            return Ok(());
        }
        let since = self.since(now);
        let all = self.names.iter().map(|one| Rolled {
            name: one.name.clone(),
            over: one.waiting.clone(),
            open: self.is_open_due.then(|| (one.open.clone(), since)),
        });
        store.rolled(all.collect()).await?;
        self.names.iter_mut().for_each(|one| one.waiting.clear());
        (self.is_due, self.is_open_due) = (false, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{CardMetric, Metric};

    fn sampled(bytes: u64) -> Sampled {
        let mut readings = Readings::unknown(Unknown::Off);
        readings[Metric::Memory] = Ok(bytes);
        (readings, Ok(Vec::new()))
    }

    #[test]
    fn cards_that_cannot_be_asked_any_more_are_unknown_and_not_gone() {
        let (name, open) = ("one".to_owned(), Rollups::default());
        let mut one = One { name, open, waiting: Vec::new(), cards: Vec::new() };
        assert_eq!(one.cards(Err(Unknown::NotSupported)), [], "it never had one");
        let mut readings = CardReadings::unknown(Unknown::Off);
        readings[CardMetric::Busy] = Ok(97);
        let known = vec![(GpuUuid::new("GPU-1").unwrap(), readings)];
        assert_eq!(one.cards(Ok(known.clone())), known);
        for _ in 0..2 {
            let unknown = one.cards(Err(Unknown::Failed));
            assert_eq!(unknown.len(), 1);
            assert_eq!(unknown[0].1[CardMetric::Busy], Err(Unknown::Failed));
        }
        assert_eq!(one.cards(Ok(Vec::new())), [], "it left its card");
        assert_eq!(one.cards(Err(Unknown::Failed)), []);
    }

    #[tokio::test]
    async fn minutes_are_written_down_and_a_clock_that_was_set_back_tears_none() {
        let store = Store::in_memory().unwrap();
        let names = || ["one".to_owned()].into_iter();
        let at = |s: u64| (Timestamp::from_unix_ms(s * 1_000), Duration::from_secs(s));
        let mut series = Series::load(&store, names(), at(600_000)).await.unwrap();
        for second in (600_000..600_200).step_by(15) {
            series.fold(at(second), [sampled(second), sampled(1)]);
            series.write(&store, at(second).1).await.unwrap();
        }
        let count = async || store.series("one", Span::Minute, 99).await.unwrap().len();
        assert_eq!(count().await, 3, "the last minute is not over");
        assert_eq!(store.series(MACHINE, Span::Minute, 99).await.unwrap().len(), 3);
        // A restart, and by the host's clock it is a day earlier.
        let mut series = Series::load(&store, names(), at(513_600)).await.unwrap();
        for second in (513_600..513_800).step_by(15) {
            series.fold(at(second), [sampled(second), sampled(1)]);
            series.write(&store, at(second).1).await.unwrap();
        }
        let all = store.series("one", Span::Minute, 99).await.unwrap();
        assert_eq!(all.len(), 6, "{all:?}");
        let newest: serde_json::Value = serde_json::from_str(&all[0]).unwrap();
        assert!(
            newest["from"].as_str().unwrap() < "1970-01-07T00",
            "{newest}: by the host's clock"
        );
    }
}
