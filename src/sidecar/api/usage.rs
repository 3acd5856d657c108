//! What programs and the machine use, as answers and as Prometheus's values.
//!
//! Invariants: what is not known has its reason in the place of a value, and is never 0; what was sampled some looks ago
//! is not told as what is so now.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Asked, Named, ROWS, Shared, refuse, unknown};
use crate::clock::Timestamp;
use crate::host::machine::Memory;
use crate::sidecar::probe::usage::MACHINE;
use crate::sidecar::store::{KEPT, word};
use crate::sidecar::used::{Board, MachineUsed, Used};
use crate::telemetry::{Family, Page};
use crate::usage::{CardMetric, CardReadings, Metric, Reading, Readings, Span, Unknown};
use crate::web::Json;
use crate::web::extract::State;
use crate::web::http::StatusCode;
use crate::web::response::{IntoResponse as _, Response};

/// Most spans of one answer: the minutes of a day.
const SPANS_MAX: u32 = 24 * 60;

/// A part of a series.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    /// `1m` or `2h`.
    span: Option<String>,
    /// At most so many spans, the newest.
    limit: Option<u32>,
}

/// What a program uses now, and its series.
pub(super) async fn of_program(
    State(shared): State<Shared>,
    Named(name): Named,
    Asked(part): Asked<Part>,
) -> Response {
    if shared.program(&name).is_none() {
        return unknown();
    }
    let newest = shared.board.of(&name).map(|used| program(&used));
    answer(&shared, &name, newest, &part).await
}

/// What the machine does now, and its series.
pub(super) async fn of_machine(State(shared): State<Shared>, Asked(part): Asked<Part>) -> Response {
    let newest = shared.board.machine().map(|used| machine(&used));
    answer(&shared, MACHINE, newest, &part).await
}

async fn answer(shared: &Shared, name: &str, newest: Option<Value>, part: &Part) -> Response {
    let Some(span) = span(part.span.as_deref()) else {
        return refuse(StatusCode::BAD_REQUEST, "span is 1m or 2h");
    };
    let limit = part.limit.unwrap_or(ROWS).min(SPANS_MAX);
    let Ok(series) = shared.store.series(name, span, limit).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the store failed");
    };
    let series: Vec<Value> =
        series.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
    Json(json!({
        "every_s": shared.board.every().as_secs(),
        "newest": newest,
        "span": word(span),
        "series": series,
    }))
    .into_response()
}

fn span(asked: Option<&str>) -> Option<Span> {
    let asked = asked.unwrap_or("1m");
    KEPT.into_iter().map(|(span, _)| span).find(|span| word(*span) == asked)
}

/// A few figures of a program; what is not known is null, and all of it if it was sampled some looks ago.
pub(super) fn short(board: &Board, name: &str, now: Timestamp) -> Value {
    let used = board.of(name).filter(|it| !board.is_old(it.at, now));
    let Some(used) = used else { return Value::Null };
    json!({
        "at": used.at,
        "cpu_percent": used.cpu_percent.ok(),
        "memory_bytes": used.readings[Metric::Memory].ok(),
        "gpu_busy_percent": used.gpu_busy().ok(),
        "gpu_memory_bytes": used.gpu_memory().ok(),
        "disk_free_bytes": used.disk_free.ok(),
    })
}

/// Values and, for those that are not known, reasons.
#[derive(Debug, Default)]
struct Told {
    known: Map<String, Value>,
    unknown: Map<String, Value>,
}

impl Told {
    fn put(
        &mut self,
        name: &str,
        value: Result<impl Into<Value>, Unknown>,
        why: fn(Unknown) -> &'static str,
    ) {
        match value {
            Ok(value) => drop(self.known.insert(name.to_owned(), value.into())),
            Err(Unknown::Off) => {}
            Err(unknown) => drop(self.unknown.insert(name.to_owned(), why(unknown).into())),
        }
    }

    fn readings(&mut self, readings: &Readings, why: fn(Metric) -> fn(Unknown) -> &'static str) {
        for metric in Metric::ALL {
            self.put(metric.name(), readings[metric], why(metric));
        }
    }

    fn finish(mut self) -> Value {
        self.known.insert("unknown".to_owned(), Value::Object(self.unknown));
        Value::Object(self.known)
    }
}

fn program(used: &Used) -> Value {
    let mut told = Told::default();
    told.put("cpu_percent", used.cpu_percent, |why| match why {
        Unknown::Missed => "it was looked at only once since it began",
        other => usual(other),
    });
    told.readings(&used.readings, |metric| match metric {
        Metric::NetRx | Metric::NetTx => |why| match why {
            Unknown::NotSupported => "it has no network of its own",
            Unknown::Gone => "it does not run, or its network has no interface",
            other => usual(other),
        },
        Metric::Swap => |why| match why {
            Unknown::NotSupported => "it has no control group of its own that counts it",
            other => usual(other),
        },
        _ => usual,
    });
    told.put("disk_free_bytes", used.disk_free, |why| match why {
        Unknown::NotSupported => "its profile names no folder",
        Unknown::Gone => "its folder is not there",
        other => usual(other),
    });
    let cards = used.cards.as_ref().map(|cards| {
        cards.iter().map(|(uuid, card)| of_card(uuid.as_str(), card)).collect::<Vec<Value>>()
    });
    told.put("cards", cards.map_err(|why| *why), of_cards);
    let by = used.by.map(|(figure, by)| (figure.to_owned(), by.word().into()));
    told.known.insert("by".to_owned(), Value::Object(by.into_iter().collect()));
    told.known.insert("container".to_owned(), json!(used.container));
    told.known.insert("at".to_owned(), json!(used.at));
    told.finish()
}

fn machine(used: &MachineUsed) -> Value {
    let mut told = Told::default();
    told.put("cpu_percent", used.cpu_percent, usual);
    told.put("cores", used.cores, usual);
    told.put("celsius", used.celsius, usual);
    told.put("load", used.load.map(|load| load.to_vec()), usual);
    told.put("memory_total_bytes", used.memory.map(|it| it.total), usual);
    told.put("memory_available_bytes", used.memory.map(|it| it.available), usual);
    told.put("swap_total_bytes", used.memory.map(|it| it.swap_total), usual);
    told.readings(&used.readings, |metric| match metric {
        Metric::NetRx | Metric::NetTx => |why| match why {
            Unknown::NotSupported => "no network device is seen here, as within a container",
            other => usual(other),
        },
        _ => usual,
    });
    let cards = used.cards.as_ref().map(|cards| {
        let whole = |card: &crate::sidecar::used::Card| {
            let mut told = of_card(card.uuid.as_str(), &card.readings);
            told["index"] = json!(card.index);
            told["gpu_memory_total_bytes"] = json!(card.memory_total.ok());
            told
        };
        cards.iter().map(whole).collect::<Vec<Value>>()
    });
    told.put("cards", cards.map_err(|why| *why), of_cards);
    told.known.insert("at".to_owned(), json!(used.at));
    told.finish()
}

fn of_card(uuid: &str, readings: &CardReadings) -> Value {
    let mut told = Told::default();
    for metric in CardMetric::ALL {
        told.put(metric.name(), readings[metric], usual);
    }
    told.known.insert("uuid".to_owned(), json!(uuid));
    told.finish()
}

/// Why something is not known, for most figures.
const fn usual(why: Unknown) -> &'static str {
    match why {
        Unknown::Off => "it is not sampled",
        Unknown::NotSupported => "this machine or this program does not have it",
        Unknown::Denied => "the sidecar's user may not read it",
        Unknown::TooOld => "the driver is too old",
        Unknown::Gone => "it does not run",
        Unknown::Failed => "it could not be read",
        Unknown::Missed => "it was looked at only once",
    }
}

const fn of_cards(why: Unknown) -> &'static str {
    match why {
        Unknown::NotSupported => "NVIDIA's library is not here, or doesn't say who uses the cards",
        Unknown::Denied => "the sidecar may not see who uses the cards",
        other => usual(other),
    }
}

/// The values of a program, unless they were sampled some looks ago.
pub(super) fn put_program(page: &mut Page, name: &str, board: &Board, now: Timestamp) {
    let used = board.of(name).filter(|it| !board.is_old(it.at, now));
    let Some(used) = used else { return };
    for (family, metric) in [
        (Family::SidecarMemory, Metric::Memory),
        (Family::SidecarDiskRead, Metric::DiskRead),
        (Family::SidecarDiskWritten, Metric::DiskWrite),
        (Family::SidecarReceived, Metric::NetRx),
        (Family::SidecarSent, Metric::NetTx),
        (Family::SidecarProcesses, Metric::Processes),
        (Family::SidecarThreads, Metric::Threads),
        (Family::SidecarFiles, Metric::Descriptors),
    ] {
        page.put_of(family, &[name], float(used.readings[metric]));
    }
    let seconds = float(used.readings[Metric::Cpu]).map(|us| us / 1e6);
    page.put_of(Family::SidecarCpu, &[name], seconds);
    page.put_of(Family::SidecarDiskFree, &[name], float(used.disk_free));
    for (uuid, card) in used.cards.iter().flatten() {
        let labels = [name, uuid.as_str()];
        for (family, metric, unit) in [
            (Family::SidecarGpuBusy, CardMetric::Busy, 100.0),
            (Family::SidecarGpuMemory, CardMetric::Memory, 1.0),
            (Family::SidecarGpuPower, CardMetric::Power, 1_000.0),
            (Family::SidecarGpuTemperature, CardMetric::Temperature, 1.0),
        ] {
            page.put_of(family, &labels, float(card[metric]).map(|value| value / unit));
        }
    }
}

/// The values of the machine, unless they were sampled some looks ago; and what sampling has cost.
pub(super) fn put_machine(page: &mut Page, board: &Board, now: Timestamp) {
    let Some(used) = board.machine() else { return };
    page.put(Family::SidecarSamplerCpu, board.cost().as_secs_f64());
    if board.is_old(used.at, now) {
        return;
    }
    page.put(Family::SidecarMachineCpu, used.cpu_percent.ok().map(|it| it / 100.0));
    page.put(Family::SidecarMachineMemoryUsed, float(used.memory.map(Memory::used)));
    page.put(Family::SidecarMachineMemoryTotal, float(used.memory.map(|it| it.total)));
    page.put(Family::SidecarMachineLoad, used.load.ok().map(|[minute, _, _]| minute));
}

#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^52")]
fn float(reading: Reading) -> Option<f64> {
    reading.ok().map(|value| value as f64)
}
