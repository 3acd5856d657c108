//! What the GPUs do, as SOLLOL's GPU reporter tells it.
//!
//! Must hold: what is not known is left out, and never 0; a report is never older than its key.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Inner;
use crate::clock::Timestamp;
use crate::fleet::seed_view::Command;
use crate::fleet::seed_view::table::{GPU_KEY, GPU_KEY_S, GPU_STREAM, GPU_STREAM_MAX};
use crate::node::Gpu;
use crate::node::card::{Round, Sample};

/// What is to be written of the last round of samples; nothing if that is too old, or there is none.
pub(super) fn report(inner: &Inner) -> Vec<Command> {
    let sampled = inner.sampled.borrow();
    let Some((at, round)) = sampled.as_ref() else { return Vec::new() };
    if (inner.now)().since(*at) > Duration::from_secs(GPU_KEY_S) {
        return Vec::new();
    }
    let node = inner.node.to_string();
    let gpus = seen(&inner.gpus, round);
    let fields = [
        ("vendor", vendor(&gpus).to_owned()),
        ("gpus", gpus.to_string()),
        ("timestamp", seconds(*at).to_string()),
        ("node_id", node.clone()),
    ];
    let body = json!({
        "vendor": vendor(&gpus),
        "gpus": gpus,
        "timestamp": seconds(*at),
        "node_id": node,
    });
    vec![
        Command::Append { stream: GPU_STREAM, max: GPU_STREAM_MAX, fields: fields.into() },
        Command::Set {
            key: format!("{GPU_KEY}{node}"),
            body: body.to_string(),
            seconds: GPU_KEY_S,
        },
    ]
}

/// Their word for a host without cards is `none`.
fn vendor(gpus: &Value) -> &'static str {
    if gpus.as_array().is_some_and(Vec::is_empty) { "none" } else { "nvidia" }
}

fn seen(gpus: &[Gpu], round: &Round) -> Value {
    let samples = gpus.iter().enumerate().filter_map(|(index, gpu)| {
        let sample = round.get(&gpu.uuid)?.as_ref().ok()?;
        Some(one(index, gpu, sample))
    });
    Value::Array(samples.collect())
}

fn one(index: usize, gpu: &Gpu, sample: &Sample) -> Value {
    let mib = |bytes: &u64| json!(bytes >> 20);
    let known = [
        ("memory_free_mb", sample.free_bytes.as_ref().ok().map(mib)),
        ("memory_used_mb", sample.used_bytes.as_ref().ok().map(mib)),
        ("utilization_percent", sample.busy_percent.as_ref().ok().map(|it| json!(it))),
        ("temperature_c", sample.celsius.as_ref().ok().map(|it| json!(it))),
    ];
    let mut told = Map::new();
    told.insert("index".into(), json!(index));
    told.insert("name".into(), json!(gpu.model));
    told.insert("memory_total_mb".into(), json!(gpu.vram_mib));
    told.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(told)
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
            seen(&[gpu], &round),
            json!([{"index": 0, "name": "NVIDIA H100", "memory_total_mb": 81_559,
                    "memory_used_mb": 3, "temperature_c": 41}])
        );
        assert_eq!(vendor(&seen(&[], &round)), "none");
    }
}
