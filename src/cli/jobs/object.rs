//! Jobs as JSON, with the keys that docs/operations.md documents. Null values are left out.

use serde_json::{Map, Value, json};

use super::timeline::{self, Moment};
use super::words;
use crate::job::phase::{Outcome, Trouble};
use crate::job::{Job, Reason};
use crate::journal::{
    Chronicle, GpuReturn, KeptOutput, Publication, Record, Standing, StatusRecord,
};

/// A job in a listing, as a JSON object.
pub(super) fn of_record(record: &Record) -> Value {
    Value::Object(summary(record))
}

/// A single job with its history, as a JSON object.
pub(super) fn of_history(
    chronicle: &Chronicle,
    has_receipt: bool,
    kept: Option<&KeptOutput>,
) -> Value {
    let mut object = summary(&chronicle.record);
    if let Standing::Taken(job) = &chronicle.record.standing {
        extend(&mut object, details(job, chronicle));
        let moments = timeline::fold(job.received_at, &chronicle.events);
        let events = json!({
            "events": moments.iter().map(moment).collect::<Vec<_>>(),
            "events_left_out": chronicle.events_left_out,
        });
        extend(&mut object, events);
    }
    if let Some(StatusRecord { status, .. }) = chronicle.said.last() {
        let left = json!({
            "output_cid": status.output_cid, "log_cid": status.log_cid,
            "exit_code": status.exit_code,
        });
        extend(&mut object, left);
    }
    if let Some(kept) = kept {
        let late = kept.result.as_ref().filter(|_| kept.said).map(|result| result.output_cid);
        let kept = json!({"until": kept.kept.until, "asked": kept.asked, "late_output_cid": late});
        extend(&mut object, json!({"kept": kept}));
    }
    let statuses: Vec<Value> = chronicle.said.iter().map(said).collect();
    extend(&mut object, json!({"statuses": statuses, "has_receipt": has_receipt}));
    Value::Object(object)
}

fn summary(record: &Record) -> Map<String, Value> {
    let mut object = Map::new();
    extend(&mut object, json!({"job_id": record.id, "open": record.open}));
    let rest = match &record.standing {
        Standing::Taken(job) => {
            let outcome = job.phase.outcome();
            let fault = outcome.and_then(words::fault_of);
            let trouble = job.trouble.as_ref();
            let reason = fault.or(trouble.map(|trouble| &trouble.fault)).map(|fault| fault.reason);
            json!({
                "phase": job.phase.name(), "since": job.since, "attempt": job.attempt,
                "target": job.target, "received": job.received_at,
                "trouble": trouble.map(trouble_object), "outcome": outcome.map(outcome_code),
                "reason_code": fault.map(|fault| fault.reason.code()),
                "error": fault.map(|fault| &fault.error), "remedy": reason.map(Reason::remedy),
            })
        }
        Standing::Refused { status, uses_id_up } => json!({
            "phase": "rejected", "since": status.timestamp, "outcome": "rejected",
            "uses_id_up": uses_id_up, "reason_code": status.reason_code, "error": status.error,
            "remedy": status.reason_code.map(Reason::remedy),
        }),
        Standing::IdOnly { phase, until } => json!({"phase": phase, "remembered_until": until}),
    };
    extend(&mut object, rest);
    object
}

fn details(job: &Job, chronicle: &Chronicle) -> Value {
    let (spec, needs) = (&job.spec, &job.spec.needs);
    let inputs: Vec<_> = spec.inputs.iter().map(|input| &input.cid).collect();
    let left: Vec<Value> = chronicle.returned.iter().map(returned).collect();
    json!({
        "image": spec.image, "input_file_cid": spec.input,
        "inputs": (!inputs.is_empty()).then_some(inputs), "output_path": spec.output_path,
        "needs": {
            "gpus": needs.gpus, "gpu_model": needs.gpu_model, "min_vram_mib": needs.min_vram_mib,
            "milli_cpus": needs.milli_cpus, "memory_mib": needs.memory_mib,
            "disk_mib": needs.disk_mib, "shm_mib": needs.shm_mib, "network": needs.network,
        },
        "timeout_s": spec.timeout.as_secs(), "deadline": spec.deadline,
        "priority": spec.priority, "requester": spec.requester, "spec_hash": job.spec_hash,
        "lost": job.lost, "gpu_uuids": chronicle.cards(), "container": chronicle.container(),
        "gpus_left": (!left.is_empty()).then_some(left),
        "kill_at": words::run_of(&job.phase).map(|run| run.kill_at),
        "duration_ms": job.durations,
    })
}

fn returned(returned: &GpuReturn) -> Value {
    let free_ms = returned.free_after.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let mut object = Map::new();
    let fields = json!({
        "uuid": returned.card, "attempt": returned.attempt, "free_after_ms": free_ms,
        "held_back": returned.why,
    });
    extend(&mut object, fields);
    Value::Object(object)
}

fn trouble_object(trouble: &Trouble) -> Value {
    json!({
        "failures": trouble.failures, "first_at": trouble.first_at, "retry_at": trouble.retry_at,
        "reason_code": trouble.fault.reason, "error": trouble.fault.error,
    })
}

fn moment(moment: &Moment) -> Value {
    let mut object = Map::new();
    let more = moment.times > 1;
    let rest = json!({
        "at": moment.at, "event": moment.event, "text": moment.text,
        "reason_code": moment.reason, "times": more.then_some(moment.times),
        "until": more.then_some(moment.until),
    });
    extend(&mut object, rest);
    Value::Object(object)
}

fn said(said: &StatusRecord) -> Value {
    let state = match said.publication {
        Publication::Waiting => "waiting",
        Publication::Sent => "sent",
        Publication::AskedAgain => "asked_again",
    };
    let status = &said.status;
    json!({
        "seq": status.seq, "stage": status.stage, "attempt": status.attempt,
        "timestamp": status.timestamp, "state": state,
    })
}

const fn outcome_code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::TimedOut(_) => "timed_out",
        other => words::outcome(other),
    }
}

/// Adds the fields that are not null, also one level down.
fn extend(object: &mut Map<String, Value>, fields: Value) {
    let Value::Object(fields) = fields else { return };
    for (key, value) in fields {
        let value = match value {
            Value::Null => continue,
            Value::Object(inner) => {
                Value::Object(inner.into_iter().filter(|(_, value)| !value.is_null()).collect())
            }
            other => other,
        };
        object.insert(key, value);
    }
}
