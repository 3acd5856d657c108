//! The `task_metrics` message: what a job uses now and used so far, in the keys of the systems that read it first.
//!
//! Pure. Invariants: a value that is not known is left out of `metrics` and `aggregated` and stands under `unknown` with
//! its reason; keys beyond those of the first systems are added beside theirs, never in their place.

use serde_json::{Map, Value, json};

use super::metric::{CardMetric, Metric};
use super::sample::{CardReadings, Reading, Sample, Unknown};
use super::tally::{micros, percent};
use super::totals::Totals;
use crate::ids::{Address, JobId};
use crate::node::GpuUuid;

/// The shortest time over which a CPU rate is told, in microseconds.
const SPAN_US_MIN: u64 = 90_000;

/// Which job a message is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The job.
    pub job_id: &'a JobId,
    /// The node that runs it.
    pub node: Address,
    /// What its memory is compared with, in bytes: its limit, or the host's memory where it has none.
    pub memory_limit: u64,
}

/// The message after the look `current`; `previous` is the look before it, if there was one.
pub fn task_metrics(
    about: About<'_>,
    previous: Option<&Sample>,
    current: &Sample,
    totals: &Totals,
) -> Value {
    let mut unknown = Map::new();
    let mut metrics = Map::new();
    let memory = current.job[Metric::Memory];
    for (key, value) in [
        ("cpu_percent", cpu_percent(previous, current)),
        ("memory_percent", memory_percent(memory, about.memory_limit)),
    ] {
        put(&mut metrics, &mut unknown, key, value);
    }
    for (key, reading) in [
        ("memory_bytes", memory),
        ("disk_read_bytes", current.job[Metric::DiskRead]),
        ("disk_write_bytes", current.job[Metric::DiskWrite]),
        ("network_rx_bytes", current.job[Metric::NetRx]),
        ("network_tx_bytes", current.job[Metric::NetTx]),
        ("uptime_seconds", Ok(current.since_start.as_secs())),
        ("thread_count", current.job[Metric::Threads]),
        ("file_descriptor_count", current.job[Metric::Descriptors]),
    ] {
        put(&mut metrics, &mut unknown, key, reading);
    }
    metrics.insert("timestamp".to_owned(), current.at.to_string().into());
    let cards: Vec<Value> = current.cards.iter().map(|(uuid, card)| gpu(uuid, card)).collect();
    json!({
        "task_id": about.job_id,
        "proplet_id": about.node,
        "metrics": metrics,
        "aggregated": totals.aggregated(),
        "unknown": unknown,
        "gpus": cards,
    })
}

/// One card, each value under its metric's name, which has the unit.
fn gpu(uuid: &GpuUuid, readings: &CardReadings) -> Value {
    let (mut card, mut unknown) = (Map::new(), Map::new());
    for metric in CardMetric::ALL {
        put(&mut card, &mut unknown, metric.name(), readings[metric]);
    }
    card.insert("uuid".to_owned(), uuid.as_str().into());
    card.insert("unknown".to_owned(), unknown.into());
    card.into()
}

fn put<T: Into<Value>>(
    known: &mut Map<String, Value>,
    unknown: &mut Map<String, Value>,
    key: &str,
    value: Result<T, Unknown>,
) {
    match value {
        Ok(value) => known.insert(key.to_owned(), value.into()),
        Err(why) => unknown.insert(key.to_owned(), why.word().into()),
    };
}

/// CPU use since the look before, or since the start, in percent: 100 is one core.
fn cpu_percent(previous: Option<&Sample>, current: &Sample) -> Result<f64, Unknown> {
    let used_us = current.job[Metric::Cpu]?;
    // Where the look before failed, the whole life stands for the interval.
    let before = previous.and_then(|sample| {
        let used_us = sample.job[Metric::Cpu].ok()?;
        Some((micros(sample.since_start), used_us))
    });
    let (from_us, before_us) = before.unwrap_or((0, 0));
    let span_us = micros(current.since_start).saturating_sub(from_us);
    // Over a shorter time the container's own start would look like many cores.
    if span_us < SPAN_US_MIN {
        return Err(Unknown::Missed);
    }
    // A counter that went back says nothing about this interval.
    used_us.checked_sub(before_us).map(|used_us| percent(used_us, span_us)).ok_or(Unknown::Failed)
}

fn memory_percent(memory: Reading, limit: u64) -> Result<f64, Unknown> {
    let memory = memory?;
    if limit == 0 { Err(Unknown::NotSupported) } else { Ok(percent(memory, limit)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::usage::sample::Readings;

    const NODE: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn sample(seconds: u64, known: &[(Metric, u64)]) -> Sample {
        let mut job = Readings::unknown(Unknown::NotSupported);
        for (metric, value) in known {
            job[*metric] = Ok(*value);
        }
        let at = Timestamp::from_unix_ms(1_736_937_000_000 + seconds * 1_000);
        Sample { at, since_start: Duration::from_secs(seconds), job, cards: Vec::new() }
    }

    fn message(samples: &[Sample]) -> Value {
        let job_id = "job-1".parse().unwrap();
        let memory_limit = 4 << 30;
        let about = About { job_id: &job_id, node: NODE.parse().unwrap(), memory_limit };
        let mut totals = Totals::default();
        for sample in samples {
            totals.fold(sample);
        }
        let (current, before) = samples.split_last().unwrap();
        task_metrics(about, before.last(), current, &totals)
    }

    #[test]
    fn a_job_of_which_all_is_known_gives_the_first_systems_message() {
        let known = |cpu_us, memory| {
            Metric::ALL.map(|metric| match metric {
                Metric::Cpu => (metric, cpu_us),
                Metric::Memory => (metric, memory),
                Metric::Threads => (metric, 4),
                Metric::Descriptors => (metric, 12),
                other => (other, other as u64 * 1_000),
            })
        };
        let message = message(&[
            sample(100, &known(20_000_000, 1 << 26)),
            sample(120, &known(28_500_000, 3 << 26)),
        ]);
        assert_eq!(
            message,
            json!({
                "task_id": "job-1",
                "proplet_id": NODE,
                "metrics": {
                    "cpu_percent": 42.5, "memory_bytes": 201_326_592, "memory_percent": 4.69,
                    "disk_read_bytes": 7_000, "disk_write_bytes": 8_000, "network_rx_bytes": 9_000,
                    "network_tx_bytes": 10_000, "uptime_seconds": 120, "thread_count": 4,
                    "file_descriptor_count": 12, "timestamp": "2025-01-15T10:32:00.000Z",
                },
                "aggregated": {
                    "avg_cpu_usage": 23.75, "max_cpu_usage": 42.5, "avg_memory_usage": 134_217_728,
                    "max_memory_usage": 201_326_592, "total_disk_read": 7_000,
                    "total_disk_write": 8_000, "total_network_rx": 9_000,
                    "total_network_tx": 10_000, "sample_count": 2,
                },
                "unknown": {},
                "gpus": [],
            })
        );
    }

    #[test]
    fn what_is_unknown_is_left_out_and_its_reason_told() {
        let message = message(&[sample(10, &[(Metric::Memory, 5)])]);
        let metrics = message["metrics"].as_object().unwrap();
        let keys: Vec<&str> = metrics.keys().map(String::as_str).collect();
        assert_eq!(keys, ["memory_bytes", "memory_percent", "timestamp", "uptime_seconds"]);
        assert_eq!(message["unknown"]["cpu_percent"], "not_supported");
        assert_eq!(message["unknown"]["network_rx_bytes"], "not_supported");
        assert_eq!(message["unknown"].as_object().unwrap().len(), 7);
        assert_eq!(message["aggregated"].get("total_disk_read"), None);
    }

    #[test]
    fn the_first_look_is_compared_with_the_start_and_a_counter_that_went_back_is_no_rate() {
        let cpu = |seconds, used_us| sample(seconds, &[(Metric::Cpu, used_us)]);
        assert_eq!(message(&[cpu(2, 1_000_000)])["metrics"]["cpu_percent"], 50.0);
        let at_once = message(&[cpu(0, 0)]);
        assert_eq!(at_once["unknown"]["cpu_percent"], "missed");
        let back = message(&[cpu(1, 9), cpu(2, 8)]);
        assert_eq!(back["unknown"]["cpu_percent"], "failed");
        let after_a_failure = message(&[sample(1, &[]), cpu(2, 1_000_000)]);
        assert_eq!(after_a_failure["metrics"]["cpu_percent"], 50.0);
    }

    #[test]
    fn each_card_has_its_values_with_their_units() {
        let mut card = CardReadings::unknown(Unknown::Denied);
        card[CardMetric::Power] = Ok(71_500);
        let cards = vec![(GpuUuid::new("GPU-1").unwrap(), card)];
        let message = message(&[Sample { cards, ..sample(1, &[]) }]);
        assert_eq!(message["gpus"][0]["uuid"], "GPU-1");
        assert_eq!(message["gpus"][0]["gpu_power_mw"], 71_500);
        assert_eq!(message["gpus"][0].get("gpu_busy_percent"), None);
        assert_eq!(message["gpus"][0]["unknown"]["gpu_busy_percent"], "denied");
    }
}
