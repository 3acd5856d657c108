//! What the GPUs do, as SOLLOL's GPU reporter tells it.
//!
//! Must hold: what is not known is left out, and never 0, but no card is; a report is never older than its key says.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Inner;
use crate::clock::Timestamp;
use crate::fleet::seed_view::Command;
use crate::fleet::seed_view::table::{GPU_KEY, GPU_KEY_S, GPU_STREAM, GPU_STREAM_MAX};
use crate::node::Gpu;
use crate::node::card::{Round, Sample};

/// What is to be written of the last round of samples, and its time; `None` if that is too old, there is none, or
/// it is the one that was `written`.
pub(super) fn report(
    inner: &Inner,
    written: Option<Timestamp>,
) -> Option<(Timestamp, Vec<Command>)> {
    let sampled = inner.sampled.borrow();
    let (at, round) = sampled.as_ref()?;
    let lives = lives((inner.now)().since(*at)).filter(|_| written != Some(*at))?;
    Some((*at, commands(&inner.node.to_string(), &inner.gpus, (*at, round), lives)))
}

/// How many seconds the key of a sample of this age lives.
fn lives(age: Duration) -> Option<u64> {
    GPU_KEY_S.checked_sub(age.as_secs()).filter(|left| *left > 0)
}

fn commands(
    node: &str,
    known: &[Gpu],
    (at, round): (Timestamp, &Round),
    lives: u64,
) -> Vec<Command> {
    let gpus = seen(known, round);
    let fields = [
        ("vendor", vendor(known).to_owned()),
        ("gpus", gpus.to_string()),
        ("timestamp", seconds(at).to_string()),
        ("node_id", node.to_owned()),
    ];
    let body = json!({
        "vendor": vendor(known),
        "gpus": gpus,
        "timestamp": seconds(at),
        "node_id": node,
    });
    vec![
        Command::Append { stream: GPU_STREAM, max: GPU_STREAM_MAX, fields: fields.into() },
        Command::Set { key: format!("{GPU_KEY}{node}"), body: body.to_string(), seconds: lives },
    ]
}

/// Their word for a host without cards is `none`.
fn vendor(gpus: &[Gpu]) -> &'static str {
    if gpus.is_empty() { "none" } else { "nvidia" }
}

fn seen(gpus: &[Gpu], round: &Round) -> Value {
    let all = gpus.iter().enumerate().map(|(index, gpu)| {
        let sample = round.get(&gpu.uuid).and_then(|sample| sample.as_ref().ok());
        one(index, gpu, sample)
    });
    Value::Array(all.collect())
}

fn one(index: usize, gpu: &Gpu, sample: Option<&Sample>) -> Value {
    let mut told = Map::new();
    told.insert("index".into(), json!(index));
    told.insert("name".into(), json!(gpu.model));
    told.insert("memory_total_mb".into(), json!(gpu.vram_mib));
    let known = sample.map(figures).into_iter().flatten();
    told.extend(known.filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(told)
}

fn figures(sample: &Sample) -> [(&'static str, Option<Value>); 4] {
    let mib = |bytes: &u64| json!(bytes >> 20);
    [
        ("memory_free_mb", sample.free_bytes.as_ref().ok().map(mib)),
        ("memory_used_mb", sample.used_bytes.as_ref().ok().map(mib)),
        ("utilization_percent", sample.busy_percent.as_ref().ok().map(|it| json!(it))),
        ("temperature_c", sample.celsius.as_ref().ok().map(|it| json!(it))),
    ]
}

fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    let ms = at.unix_ms() as f64;
    ms / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::GpuUuid;
    use crate::node::card::Unknown;

    #[test]
    fn what_is_not_known_of_a_card_is_left_out_and_never_0() {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        let gpu = Gpu { uuid: uuid.clone(), model: "NVIDIA H100".to_owned(), vram_mib: 81_559 };
        let unknown = Sample::unknown(&Unknown::NotSupported);
        let sample = Sample { used_bytes: Ok(3 << 20), celsius: Ok(41), ..unknown };
        let round = Round::from([(uuid, Ok(sample))]);
        assert_eq!(
            seen(std::slice::from_ref(&gpu), &round),
            json!([{"index": 0, "name": "NVIDIA H100", "memory_total_mb": 81_559,
                    "memory_used_mb": 3, "temperature_c": 41}])
        );
        assert_eq!(vendor(&[]), "none");
    }

    #[test]
    fn a_card_that_can_not_be_read_is_told_without_figures_and_for_no_longer_than_its_sample_holds()
    {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        let gpu = Gpu { uuid: uuid.clone(), model: "NVIDIA H100".to_owned(), vram_mib: 81_559 };
        let round = Round::from([(uuid, Err(Unknown::Lost))]);
        let lives = lives(Duration::from_secs(50)).unwrap();
        let all = commands("0x1", &[gpu], (Timestamp::default(), &round), lives);
        let [Command::Append { fields, .. }, Command::Set { body, seconds, .. }] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!((fields[0].1.as_str(), *seconds), ("nvidia", 70));
        let body: Value = serde_json::from_str(body).unwrap();
        let told = json!([{"index": 0, "name": "NVIDIA H100", "memory_total_mb": 81_559}]);
        assert_eq!((&body["vendor"], &body["gpus"]), (&json!("nvidia"), &told));
        assert_eq!(super::lives(Duration::from_mins(2)), None);
    }
}
