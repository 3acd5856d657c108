//! Samples of the machine for the original side car's service, in its form.
//!
//! Invariants: what is not known is left out, and never 0; a sample has numbers and nothing personal; one that was not
//! taken is kept in the database, within a bound, until it is taken or refused for good.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::gswarm::{self, Metrics, Refused, Sampled, Service};
use crate::host::machine::Memory;
use crate::seldom::Seldom;
use crate::sidecar::store::{Error, Store};
use crate::sidecar::used::{Board, Card, MachineUsed};
use crate::supervise::Failure;
use crate::usage::{CardMetric, Reading};

/// The receiver's name in the queue.
const SINK: &str = "original.hardware";

/// Most samples that are sent one after the other.
const AT_ONCE_MAX: u32 = 30;

/// The longest that the service can ask to be left alone.
const WAIT_MAX: Duration = Duration::from_hours(1);

const REMEDY: &str = "look at the disk under SIDECAR_DB";

/// Sends samples. One service.
#[derive(Debug, Clone)]
pub struct Hardware {
    service: Arc<Service>,
    store: Store,
    board: Board,
}

/// A sample in the queue.
#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    at: Timestamp,
    sample: gswarm::Hardware,
}

impl Hardware {
    /// Who sends samples to this service; `None` if it takes none, or if none is wanted.
    pub fn new(service: &Arc<Service>, store: &Store, board: &Board) -> Option<Self> {
        let config = service.config();
        config.hardware.as_ref().filter(|_| is_wanted(config.sampled))?;
        Some(Self { service: Arc::clone(service), store: store.clone(), board: board.clone() })
    }

    /// Sends until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let again = |err: Error| Failure::again(err, REMEDY);
        let (clock, said) = (SystemClock, Seldom::within(1, Duration::from_hours(1)));
        let sampled = self.service.config().sampled;
        let mut last = Timestamp::default();
        // What the service asks for stops what is sent, and not what is queued.
        let mut not_before = Duration::ZERO;
        loop {
            clock.sleep(sampled.every).await;
            let machine = self.board.machine().filter(|it| it.at != last);
            if let Some(machine) = machine {
                last = machine.at;
                self.queue(&machine, sampled).await.map_err(again)?;
            }
            if clock.monotonic() < not_before {
                continue;
            }
            let refused = self.send().await.map_err(again)?;
            if let Some(refused) = refused {
                if let Some(more) = said.line() {
                    tracing::warn!(
                        "the metrics service takes no samples of the machine: {refused}{more}"
                    );
                }
                let wait = refused.retry_after.unwrap_or_default().min(WAIT_MAX);
                not_before = clock.monotonic().saturating_add(wait);
            }
        }
    }

    async fn queue(&self, machine: &MachineUsed, sampled: Sampled) -> Result<(), Error> {
        let waiting = Waiting { at: machine.at, sample: sample(machine, sampled) };
        match serde_json::to_string(&waiting) {
            Ok(body) => self.store.report(SINK, machine.at, body).await,
            Err(_) => Ok(()),
        }
    }

    /// Sends what waits, the oldest first; why the service takes no more of it now, if it doesn't.
    async fn send(&self) -> Result<Option<Refused>, Error> {
        for report in self.store.reports(SINK, AT_ONCE_MAX).await? {
            // What another version wrote goes with those that were taken.
            if let Ok(Waiting { at, sample }) = serde_json::from_str(&report.body) {
                let sent = self.service.metrics(at, &Metrics::Hardware(sample)).await;
                if let Err(refused) = sent {
                    if refused.is_final {
                        self.store.reported(SINK, report.id).await?;
                    }
                    return Ok(Some(refused));
                }
            }
            self.store.reported(SINK, report.id).await?;
        }
        Ok(None)
    }
}

/// Whether a sample has anything at all.
const fn is_wanted(sampled: Sampled) -> bool {
    sampled.cpu || sampled.ram || sampled.gpu
}

/// A sample in the original's form.
fn sample(machine: &MachineUsed, sampled: Sampled) -> gswarm::Hardware {
    let cards = machine.cards.as_ref().ok();
    gswarm::Hardware {
        cpu: sampled.cpu.then(|| cpu(machine)),
        ram: machine.memory.ok().filter(|_| sampled.ram).map(ram),
        gpu: cards.filter(|_| sampled.gpu).map(|cards| cards.iter().map(gpu).collect()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "degrees")]
fn cpu(machine: &MachineUsed) -> gswarm::Cpu {
    gswarm::Cpu {
        usage_percent: machine.cpu_percent.ok(),
        core_count: machine.cores.ok().and_then(|it| u32::try_from(it).ok()),
        temperature: machine.celsius.ok().map(|it| it as f64),
    }
}

fn ram(memory: Memory) -> gswarm::Ram {
    let swap_used = memory.swap_total.saturating_sub(memory.swap_free);
    gswarm::Ram {
        total: Some(memory.total),
        used: Some(memory.used()),
        available: Some(memory.available),
        usage_percent: percent(memory.used(), memory.total),
        swap_total: Some(memory.swap_total),
        swap_used: Some(swap_used),
        swap_percent: percent(swap_used, memory.swap_total),
    }
}

/// A part in percent with two decimals; of nothing there is none.
#[expect(clippy::cast_precision_loss, reason = "two decimals of a percent")]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 10_000.0).round() / 100.0)
}

fn gpu(card: &Card) -> gswarm::Gpu {
    let small =
        |metric: CardMetric| card.readings[metric].ok().and_then(|it| u32::try_from(it).ok());
    let mib = |bytes: Reading| bytes.ok().map(|bytes| bytes >> 20);
    gswarm::Gpu {
        index: card.index,
        util_percent: small(CardMetric::Busy),
        temp_c: small(CardMetric::Temperature),
        vram_used_mb: mib(card.readings[CardMetric::Memory]),
        vram_total_mb: mib(card.memory_total),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::node::GpuUuid;
    use crate::usage::{CardReadings, Readings, Unknown};

    fn machine() -> MachineUsed {
        let mut readings = CardReadings::unknown(Unknown::NotSupported);
        readings[CardMetric::Busy] = Ok(97);
        readings[CardMetric::Memory] = Ok(20_000 << 20);
        let uuid = GpuUuid::new("GPU-1").unwrap();
        MachineUsed {
            at: Timestamp::from_unix_ms(1_000),
            cpu_percent: Ok(12.5),
            cores: Ok(16),
            celsius: Err(Unknown::NotSupported),
            memory: Ok(Memory {
                total: 64 << 30,
                available: 48 << 30,
                swap_total: 0,
                swap_free: 0,
            }),
            load: Ok([0.1, 0.2, 0.3]),
            readings: Readings::unknown(Unknown::Off),
            cards: Ok(vec![Card { index: 1, uuid, readings, memory_total: Ok(24_576 << 20) }]),
        }
    }

    fn told(machine: &MachineUsed, sampled: Sampled) -> Value {
        serde_json::to_value(Metrics::Hardware(sample(machine, sampled))).unwrap()
    }

    #[test]
    fn a_sample_has_the_originals_form_and_what_is_not_known_is_left_out() {
        let all = json!({"metrics_type": "hardware", "data": {
            "cpu": {"usage_percent": 12.5, "core_count": 16},
            "ram": {"total": 68_719_476_736_u64, "used": 17_179_869_184_u64, "available": 51_539_607_552_u64,
                    "usage_percent": 25.0, "swap_total": 0, "swap_used": 0},
            "gpu": [{"index": 1, "util_percent": 97, "vram_used_mb": 20_000, "vram_total_mb": 24_576}],
        }});
        assert_eq!(told(&machine(), Sampled::default()), all);
        let dark = MachineUsed {
            cpu_percent: Err(Unknown::Missed),
            memory: Err(Unknown::Failed),
            cards: Err(Unknown::NotSupported),
            ..machine()
        };
        let less = json!({"metrics_type": "hardware", "data": {"cpu": {"core_count": 16}}});
        assert_eq!(told(&dark, Sampled::default()), less);
    }

    #[test]
    fn what_the_owner_does_not_want_to_be_sampled_is_not_sent() {
        let none = Sampled { cpu: false, ram: false, gpu: false, ..Sampled::default() };
        assert_eq!(told(&machine(), none), json!({"metrics_type": "hardware", "data": {}}));
        assert!(!is_wanted(none), "an empty sample is not sent either");
        let cpu = Sampled { cpu: true, ..none };
        assert!(is_wanted(cpu));
        let cpu = told(&machine(), cpu);
        assert_eq!(cpu["data"].as_object().unwrap().len(), 1, "{cpu}");
    }
}
