//! What a job used over its whole life, in constant memory.
//!
//! Pure. Invariants: samples that were dropped from the history still count; a total is unknown, with the first reason
//! that there was, until a value was read; a time-weighted sum is unknown unless nine tenths of the life were seen.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::metric::{CardMetric, Metric};
use super::sample::{CardReadings, Reading, Sample, Unknown};
use super::tally::{Tally, micros, percent};
use crate::node::GpuUuid;

/// Shortest interval over which a CPU rate is computed, in microseconds: over a shorter one, the grain of the kernel's
/// accounting would make it look like hundreds of percent.
const RATE_US_MIN: u64 = 100_000;

/// A first look that comes at most this long after the start, in microseconds, stands for the time before it too.
const LEAD_US_MAX: u64 = 1_000_000;

/// How the energy of a job's cards is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnergyMethod {
    /// It isn't.
    Unknown,
    /// By the cards' own counters.
    Counter,
    /// Summed up from the power that was read now and then; of one card at least.
    Integrated,
}

/// The totals of one job.
///
/// Its JSON (by serde) is for the node's own files: a node that is restarted goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    samples: u32,
    tallies: [Tally; Metric::COUNT],
    cpu: CpuRate,
    cards: Vec<CardTotals>,
    /// Time from the job's start to the last sample, in microseconds.
    elapsed_us: u64,
    /// Whether the time from the last sample to the next one is seen.
    is_joined: bool,
}

/// The highest CPU rate, in percent of one core.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct CpuRate {
    max: Option<f64>,
    /// Where the current interval begins: time since the job's start, and CPU time until then, in microseconds.
    from: (u64, u64),
    /// The last time at which the CPU time was known.
    known_us: u64,
}

/// The totals of one of its cards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardTotals {
    uuid: GpuUuid,
    tallies: [Tally; CardMetric::COUNT],
    /// Percent times microseconds in which it was busy.
    busy: Seen,
    /// Half nanojoules, by its power.
    energy: Seen,
    last_power: Option<u64>,
    was_seen: bool,
    /// Whether its energy's counter was known at the last look: an older one is not the whole.
    #[serde(default)]
    counts: bool,
}

/// A sum over time, and the time that it covers in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Seen {
    sum: u128,
    covered_us: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            samples: 0,
            tallies: Metric::ALL.map(|metric| Tally::empty(metric.kind())),
            cpu: CpuRate { max: None, from: (0, 0), known_us: 0 },
            cards: Vec::new(),
            elapsed_us: 0,
            is_joined: false,
        }
    }
}

impl Totals {
    /// Adds a sample. Samples come in the order in which they were taken.
    pub fn fold(&mut self, sample: &Sample) {
        let now_us = micros(sample.since_start);
        let lead_us = if now_us <= LEAD_US_MAX { now_us } else { 0 };
        let seen_us = match self.samples {
            0 => lead_us,
            _ if self.is_joined => now_us.saturating_sub(self.elapsed_us),
            _ => 0,
        };
        for (metric, tally) in Metric::ALL.into_iter().zip(&mut self.tallies) {
            tally.fold(sample.job[metric]);
        }
        if let (Ok(_), Ok(total_us)) = (sample.job[Metric::Cpu], self.total(Metric::Cpu)) {
            self.cpu.fold(now_us, total_us);
        }
        for (uuid, readings) in &sample.cards {
            self.card(uuid).fold(readings, seen_us);
        }
        self.samples = self.samples.saturating_add(1);
        self.elapsed_us = self.elapsed_us.max(now_us);
        self.is_joined = true;
    }

    /// Says that nobody looked between the last sample and the next, so that nothing is made up for that time.
    pub fn gap(&mut self) {
        self.is_joined = false;
    }

    fn card(&mut self, uuid: &GpuUuid) -> &mut CardTotals {
        let at = self.cards.iter().position(|card| card.uuid == *uuid).unwrap_or_else(|| {
            self.cards.push(CardTotals::new(uuid.clone()));
            self.cards.len() - 1
        });
        &mut self.cards[at]
    }

    /// Number of samples.
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    /// Time from the job's start to the last sample, in microseconds.
    pub const fn elapsed_us(&self) -> u64 {
        self.elapsed_us
    }

    /// A counter's total; the highest value of a gauge or a peak.
    pub fn total(&self, metric: Metric) -> Reading {
        self.tallies[metric as usize].total()
    }

    /// The mean of a gauge's values over all samples; a counter has none.
    pub fn average(&self, metric: Metric) -> Reading {
        self.tallies[metric as usize].average()
    }

    /// Whether a counter went back: it wrapped or began anew, and its total may be too low.
    pub const fn is_wrapped(&self, metric: Metric) -> bool {
        self.tallies[metric as usize].went_back()
    }

    /// CPU use over the whole life in percent: 100 is one core.
    pub fn cpu_average(&self) -> Result<f64, Unknown> {
        let total_us = self.total(Metric::Cpu)?;
        if self.cpu.known_us == 0 {
            return Err(Unknown::Missed);
        }
        Ok(percent(total_us, self.cpu.known_us))
    }

    /// The highest CPU use between two samples in percent: 100 is one core. Of a job that was too short for that, its
    /// average.
    pub fn cpu_maximum(&self) -> Result<f64, Unknown> {
        let average = self.cpu_average()?;
        Ok(self.cpu.max.map_or(average, |max| max.max(average)))
    }

    /// The totals of its cards, in the order in which they were first seen.
    pub fn cards(&self) -> &[CardTotals] {
        &self.cards
    }

    /// Time in which its cards were busy, summed over them, in milliseconds. 0 for a job without cards.
    pub fn gpu_ms(&self) -> Reading {
        if self.samples == 0 {
            return Err(Unknown::Missed);
        }
        self.cards.iter().map(|card| card.busy_ms(self.elapsed_us)).sum()
    }

    /// Energy of its cards in millijoules, and how it is known. A job without cards has none that could be known.
    pub fn energy(&self) -> (Reading, EnergyMethod) {
        let nothing = if self.samples == 0 { Unknown::Missed } else { Unknown::NotSupported };
        let mut sum: Option<(u64, EnergyMethod)> = None;
        for card in &self.cards {
            let (energy, method) = match card.energy(self.elapsed_us) {
                (Ok(energy), method) => (energy, method),
                (Err(why), method) => return (Err(why), method),
            };
            let (before, other) = sum.unwrap_or((0, method));
            let all = if other == method { method } else { EnergyMethod::Integrated };
            sum = Some((before.saturating_add(energy), all));
        }
        sum.map_or((Err(nothing), EnergyMethod::Unknown), |(energy, method)| (Ok(energy), method))
    }

    /// Whether heat or its supply slowed one of its cards while somebody looked.
    pub fn is_throttled(&self) -> bool {
        let slowed = [CardMetric::ThermalSlowdown, CardMetric::PowerBrake];
        self.cards.iter().any(|card| slowed.iter().any(|m| matches!(card.total(*m), Ok(1..))))
    }

    /// The object `aggregated` of a `task_metrics` message. What is unknown is left out.
    pub fn aggregated(&self) -> Value {
        let mut object = Map::new();
        for (key, percent) in
            [("avg_cpu_usage", self.cpu_average()), ("max_cpu_usage", self.cpu_maximum())]
        {
            object.extend(percent.ok().map(|value| (key.to_owned(), value.into())));
        }
        for (key, reading) in [
            ("avg_memory_usage", self.average(Metric::Memory)),
            ("max_memory_usage", self.total(Metric::Memory)),
            ("total_disk_read", self.total(Metric::DiskRead)),
            ("total_disk_write", self.total(Metric::DiskWrite)),
            ("total_network_rx", self.total(Metric::NetRx)),
            ("total_network_tx", self.total(Metric::NetTx)),
            ("sample_count", Ok(self.samples.into())),
        ] {
            object.extend(reading.ok().map(|value| (key.to_owned(), value.into())));
        }
        object.into()
    }
}

impl CpuRate {
    fn fold(&mut self, now_us: u64, total_us: u64) {
        self.known_us = self.known_us.max(now_us);
        let span_us = now_us.saturating_sub(self.from.0);
        if span_us >= RATE_US_MIN {
            let rate = percent(total_us.saturating_sub(self.from.1), span_us);
            self.max = Some(self.max.map_or(rate, |max| max.max(rate)));
            self.from = (now_us, total_us);
        }
    }
}

impl CardTotals {
    fn new(uuid: GpuUuid) -> Self {
        Self {
            uuid,
            tallies: CardMetric::ALL.map(|metric| Tally::empty(metric.kind())),
            busy: Seen::default(),
            energy: Seen::default(),
            last_power: None,
            was_seen: false,
            counts: false,
        }
    }

    /// Adds readings; `seen_us` is the time for which they stand, up to now.
    fn fold(&mut self, readings: &CardReadings, seen_us: u64) {
        for (metric, tally) in CardMetric::ALL.into_iter().zip(&mut self.tallies) {
            tally.fold(readings[metric]);
        }
        if let Ok(busy) = readings[CardMetric::Busy] {
            self.busy.add(busy.min(100), seen_us);
        }
        let power = readings[CardMetric::Power].ok();
        // Before the first look at a card, its power is taken to have been the same.
        let before = if self.was_seen { self.last_power } else { power };
        if let (Some(before), Some(power)) = (before, power) {
            self.energy.add(before.saturating_add(power), seen_us);
        }
        self.last_power = power;
        self.was_seen = true;
        self.counts = readings[CardMetric::Energy].is_ok();
    }

    /// The card.
    pub const fn uuid(&self) -> &GpuUuid {
        &self.uuid
    }

    /// A counter's total; the highest value of a gauge.
    pub fn total(&self, metric: CardMetric) -> Reading {
        self.tallies[metric as usize].total()
    }

    /// The mean of a gauge's values over all samples; a counter has none.
    pub fn average(&self, metric: CardMetric) -> Reading {
        self.tallies[metric as usize].average()
    }

    /// Time in which it was busy, in milliseconds, for a job that took `elapsed_us` microseconds so far.
    pub fn busy_ms(&self, elapsed_us: u64) -> Reading {
        self.total(CardMetric::Busy)?;
        self.busy.divided(100 * 1_000, elapsed_us)
    }

    /// Its energy in millijoules, and how it is known, for a job that took `elapsed_us` microseconds so far.
    pub fn energy(&self, elapsed_us: u64) -> (Reading, EnergyMethod) {
        let counted = self.total(CardMetric::Energy);
        if counted.is_ok() && self.counts {
            return (counted, EnergyMethod::Counter);
        }
        let counted = counted.and(Err(Unknown::Missed));
        // The counter's reason says more than a power's that can't be read either.
        let power = self.total(CardMetric::Power).and(self.energy.divided(2_000_000, elapsed_us));
        let method = if power.is_ok() { EnergyMethod::Integrated } else { EnergyMethod::Unknown };
        (power.or(counted), method)
    }
}

impl Seen {
    fn add(&mut self, value: u64, span_us: u64) {
        self.sum = self.sum.saturating_add(u128::from(value) * u128::from(span_us));
        self.covered_us = self.covered_us.saturating_add(span_us);
    }

    /// The sum in another unit, if it covers nine tenths of the time.
    fn divided(&self, by: u128, elapsed_us: u64) -> Reading {
        if self.covered_us == 0 || self.covered_us < elapsed_us / 10 * 9 {
            return Err(Unknown::Missed);
        }
        Ok(u64::try_from((self.sum + by / 2) / by).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;
    use crate::usage::sample::Readings;

    /// A sample at this time, of which these are known.
    fn sample(ms: u64, known: &[(Metric, u64)]) -> Sample {
        let mut job = Readings::unknown(Unknown::Failed);
        for (metric, value) in known {
            job[*metric] = Ok(*value);
        }
        let since_start = Duration::from_millis(ms);
        Sample { at: Timestamp::from_unix_ms(ms), since_start, job, cards: Vec::new() }
    }

    fn with_card(ms: u64, known: &[(CardMetric, u64)]) -> Sample {
        let mut card = CardReadings::unknown(Unknown::NotSupported);
        for (metric, value) in known {
            card[*metric] = Ok(*value);
        }
        let cards = vec![(GpuUuid::new("GPU-1").unwrap(), card)];
        Sample { cards, ..sample(ms, &[]) }
    }

    fn totals(samples: &[Sample]) -> Totals {
        let mut totals = Totals::default();
        for sample in samples {
            totals.fold(sample);
        }
        totals
    }

    #[test]
    fn figures_cover_the_whole_life() {
        let totals = totals(&[
            sample(0, &[(Metric::Cpu, 0), (Metric::Memory, 100), (Metric::DiskRead, 0)]),
            sample(
                1_000,
                &[(Metric::Cpu, 2_000_000), (Metric::Memory, 400), (Metric::DiskRead, 7)],
            ),
            sample(
                4_000,
                &[(Metric::Cpu, 2_000_000), (Metric::Memory, 100), (Metric::DiskRead, 9)],
            ),
        ]);
        assert_eq!(totals.samples(), 3);
        assert_eq!(totals.elapsed_us(), 4_000_000);
        assert_eq!((totals.cpu_average(), totals.cpu_maximum()), (Ok(50.0), Ok(200.0)));
        assert_eq!(
            (totals.average(Metric::Memory), totals.total(Metric::Memory)),
            (Ok(200), Ok(400))
        );
        assert_eq!(totals.total(Metric::DiskRead), Ok(9));
        assert_eq!(totals.total(Metric::Swap), Err(Unknown::Failed));
        assert_eq!(totals.gpu_ms(), Ok(0));
        assert_eq!(
            totals.aggregated(),
            json!({
                "avg_cpu_usage": 50.0, "max_cpu_usage": 200.0, "avg_memory_usage": 200,
                "max_memory_usage": 400, "total_disk_read": 9, "sample_count": 3,
            })
        );
    }

    #[test]
    fn nothing_is_known_before_the_first_sample() {
        let totals = Totals::default();
        assert_eq!(totals.total(Metric::Cpu), Err(Unknown::Missed));
        assert_eq!(totals.gpu_ms(), Err(Unknown::Missed));
        assert_eq!(totals.energy(), (Err(Unknown::Missed), EnergyMethod::Unknown));
        assert_eq!(totals.aggregated(), json!({"sample_count": 0}));
    }

    #[test]
    fn a_job_of_50_ms_has_its_average_as_its_maximum() {
        let totals =
            totals(&[sample(1, &[(Metric::Cpu, 3_000)]), sample(50, &[(Metric::Cpu, 45_000)])]);
        assert_eq!((totals.cpu_average(), totals.cpu_maximum()), (Ok(90.0), Ok(90.0)));
    }

    #[test]
    fn a_counter_that_went_back_is_marked() {
        let totals = totals(&[
            sample(0, &[(Metric::NetRx, 500), (Metric::NetTx, 1)]),
            sample(1_000, &[(Metric::NetRx, 20), (Metric::NetTx, 2)]),
        ]);
        assert_eq!(totals.total(Metric::NetRx), Ok(520));
        assert!(totals.is_wrapped(Metric::NetRx) && !totals.is_wrapped(Metric::NetTx));
    }

    #[test]
    fn the_energy_of_a_card_is_its_counters_or_the_area_under_its_power() {
        let (energy, power) = (CardMetric::Energy, CardMetric::Power);
        let counted =
            totals(&[with_card(0, &[(energy, 0), (power, 9)]), with_card(1_000, &[(energy, 250)])]);
        assert_eq!(counted.energy(), (Ok(250), EnergyMethod::Counter));
        // 100 W and 300 W with a slope between them for 2 s, then 300 W for 1 s.
        let looks = [(100, 100_000), (2_100, 300_000), (3_100, 300_000)];
        let summed = totals(&looks.map(|(ms, mw)| with_card(ms, &[(power, mw)])));
        assert_eq!(summed.energy(), (Ok(10_000 + 400_000 + 300_000), EnergyMethod::Integrated));
        let neither = totals(&[with_card(0, &[]), with_card(1_000, &[])]);
        assert_eq!(neither.energy(), (Err(Unknown::NotSupported), EnergyMethod::Unknown));
    }

    #[test]
    fn busy_time_is_summed_and_unknown_where_too_little_was_seen() {
        let busy = |percent| [(CardMetric::Busy, percent)];
        let seen = totals(&[
            with_card(10, &busy(0)),
            with_card(1_010, &busy(100)),
            with_card(3_010, &busy(25)),
        ]);
        assert_eq!(seen.gpu_ms(), Ok(1_500));
        assert_eq!(seen.cards()[0].average(CardMetric::Busy), Ok(42));
        let adopted_late = totals(&[with_card(60_000, &busy(90)), with_card(61_000, &busy(90))]);
        assert_eq!(adopted_late.gpu_ms(), Err(Unknown::Missed));
        let mut interrupted = totals(&[with_card(0, &busy(100)), with_card(1_000, &busy(100))]);
        interrupted.gap();
        interrupted.fold(&with_card(600_000, &busy(100)));
        assert_eq!(interrupted.gpu_ms(), Err(Unknown::Missed));
    }

    #[test]
    fn a_slowed_card_is_noticed() {
        let slow = |value| totals(&[with_card(0, &[(CardMetric::PowerBrake, value)])]);
        assert!(slow(1).is_throttled() && !slow(0).is_throttled());
    }

    #[test]
    fn a_node_that_is_restarted_goes_on_with_the_same_totals() {
        let first = [with_card(0, &[(CardMetric::Power, 9)]), sample(500, &[(Metric::Cpu, 7)])];
        let last = with_card(2_000, &[(CardMetric::Power, 9), (CardMetric::Busy, 50)]);
        let mut whole = totals(&first);
        let text = serde_json::to_string(&whole).unwrap();
        let mut resumed: Totals = serde_json::from_str(&text).unwrap();
        whole.fold(&last);
        resumed.fold(&last);
        assert_eq!(resumed, whole);
    }
}
