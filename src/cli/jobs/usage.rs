//! `jobs JOB_ID --usage`: what a job used of what it asked for, as a report for a person or as JSON.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::out;
use crate::job::phase::{Event, RunExit};
use crate::journal::{Chronicle, Standing, UsageKept};
use crate::usage::advice::{self, Asked, Used};
use crate::usage::rollup::{Rolled, Span};
use crate::usage::{Batch, Bucket, CardMetric, EnergyMethod, Metric, Totals, Unknown, Usage};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// Most of the newest samples that are printed for programs.
const SAMPLES_MAX: usize = 10_000;

/// What is known of a job's use.
pub(super) struct Report<'a> {
    chronicle: &'a Chronicle,
    kept: Option<&'a UsageKept>,
    exit: Option<&'a RunExit>,
}

impl<'a> Report<'a> {
    pub(super) fn new(chronicle: &'a Chronicle, kept: Option<&'a UsageKept>) -> Self {
        let exit = chronicle.events.iter().rev().find_map(|happened| match &happened.event {
            Event::Exited { exit, .. } | Event::CardFailed { exit } => Some(exit),
            _ => None,
        });
        Self { chronicle, kept, exit }
    }

    /// The final figures, if the job's container has ended.
    fn usage(&self) -> Option<&Usage> {
        self.exit?.usage.as_ref()
    }

    fn asked(&self) -> Asked {
        let Standing::Taken(job) = &self.chronicle.record.standing else { return Asked::default() };
        let needs = &job.spec.needs;
        Asked {
            memory_bytes: needs.memory_mib.map(|mib| mib.saturating_mul(MIB)),
            nano_cpus: needs.milli_cpus.map(|milli| milli.saturating_mul(1_000_000)),
            cards: u32::try_from(self.chronicle.cards().len()).unwrap_or(u32::MAX),
            disk_bytes: needs.disk_mib.map(|mib| mib.saturating_mul(MIB)),
        }
    }

    /// What it used, from the better of two sources: the samples tell more, the final figures tell all of its life.
    fn used(&self) -> Option<Used> {
        let ran = self.exit.map(|exit| exit.finished_at.since(exit.started_at));
        let of_usage = self.usage().zip(ran).map(|(usage, ran)| Used::of_usage(usage, ran));
        let sampled = self.kept.filter(|kept| kept.totals.samples() > 2);
        sampled.map(|kept| Used::of_totals(&kept.totals)).or(of_usage)
    }

    /// The report as text.
    pub(super) fn print(&self) -> io::Result<()> {
        let id = &self.chronicle.record.id;
        let (Some(used), asked) = (self.used(), self.asked()) else {
            return out::line(&format!("job {id}: nothing is known of what it used"));
        };
        let state = if self.exit.is_some() { "used" } else { "uses, up to its last batch" };
        out::line(&format!("job {id} {state}:"))?;
        for line in advice::lines(&asked, &used, false) {
            out::line(&format!("  {line}"))?;
        }
        self.final_figures()?;
        self.cards()?;
        self.spans()?;
        match advice::advice(&asked, &used) {
            Some(advice) => out::line(&format!("\n{advice}")),
            None => Ok(()),
        }
    }

    fn final_figures(&self) -> io::Result<()> {
        let Some(usage) = self.usage() else { return Ok(()) };
        let field = |name: &str, text: String| out::line(&format!("  {name:<14} {text}"));
        let seconds = |us: u64| format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000);
        let figure = |reading: Result<u64, Unknown>, show: &dyn Fn(u64) -> String| {
            reading.map_or_else(|why| format!("not known: {why}"), show)
        };
        let bytes = |bytes: u64| advice::size(bytes);
        let show: [(&str, _, _, &dyn Fn(u64) -> String); 6] = [
            ("CPU time", usage.cpu_us, Metric::Cpu, &seconds),
            ("memory's peak", usage.memory_peak_bytes, Metric::MemoryPeak, &bytes),
            ("read", usage.io_read_bytes, Metric::DiskRead, &bytes),
            ("written", usage.io_write_bytes, Metric::DiskWrite, &bytes),
            ("received", usage.net_rx_bytes, Metric::NetRx, &bytes),
            ("sent", usage.net_tx_bytes, Metric::NetTx, &bytes),
        ];
        for (name, reading, metric, show) in show {
            let sampled = self.kept.and_then(|kept| kept.totals.total(metric).ok());
            match (reading, sampled) {
                (Err(Unknown::Missed), Some(value)) => {
                    field(name, format!("at least {}, up to the last sample", show(value)))?;
                }
                _ => field(name, figure(reading, show))?,
            }
        }
        if self.chronicle.cards().is_empty() {
            return Ok(());
        }
        field("GPU time", figure(usage.gpu_ms, &|ms| seconds(ms.saturating_mul(1000))))?;
        let how = match usage.energy_method {
            EnergyMethod::Counter => ", by the cards' counters",
            EnergyMethod::Integrated => ", summed up from their power",
            EnergyMethod::Unknown => "",
        };
        field("energy", figure(usage.energy_mj, &|mj| format!("{} J{how}", mj / 1000)))
    }

    fn cards(&self) -> io::Result<()> {
        for card in self.kept.map(|kept| kept.totals.cards()).unwrap_or_default() {
            let told = |metric: CardMetric, unit: &str| {
                card.total(metric).ok().map(|value| format!("{value} {unit}"))
            };
            let busy = card.average(CardMetric::Busy).ok().map(|busy| format!("busy {busy} %"));
            let memory = card.total(CardMetric::Memory).ok();
            let memory = memory.map(|bytes| format!("{} of its memory", advice::size(bytes)));
            let heat = told(CardMetric::Temperature, "°C at most");
            let words: Vec<String> = [busy, memory, heat].into_iter().flatten().collect();
            out::line(&format!("  {}: {}", card.uuid(), words.join(", ")))?;
        }
        Ok(())
    }

    /// One line for each of the newest spans of the length that suits the job.
    fn spans(&self) -> io::Result<()> {
        const LINES: usize = 12;
        let Some(kept) = self.kept else { return Ok(()) };
        let of = |span: Span| kept.rollups.iter().filter(move |bucket| bucket.span == span);
        let Some(span) = Span::ALL
            .into_iter()
            .find(|span| of(*span).count() <= LINES)
            .filter(|span| of(*span).count() > 1)
        else {
            return Ok(());
        };
        out::line("")?;
        for bucket in of(span) {
            out::line(&format!("  {}", line_of(bucket)))?;
        }
        Ok(())
    }

    /// The report for programs.
    pub(super) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("job_id".to_owned(), json!(self.chronicle.record.id));
        object.insert("final".to_owned(), json!(self.usage()));
        if let Some(kept) = self.kept {
            object.insert("attempt".to_owned(), kept.attempt.into());
            object.insert("aggregated".to_owned(), kept.totals.aggregated());
            object.insert("cards".to_owned(), cards_object(&kept.totals));
            let rollups = kept.rollups.iter().map(Bucket::to_json);
            object.insert("rollups".to_owned(), rollups.collect());
            object.insert("samples".to_owned(), samples(kept));
        }
        let (asked, used) = (self.asked(), self.used());
        let advice = used.and_then(|used| advice::advice(&asked, &used));
        object.insert("advice".to_owned(), json!(advice));
        Value::Object(object)
    }
}

fn cards_object(totals: &Totals) -> Value {
    let card = |card: &crate::usage::CardTotals| {
        let mut object = Map::new();
        object.insert("uuid".to_owned(), json!(card.uuid()));
        for metric in CardMetric::ALL {
            let value =
                card.total(metric).map_or_else(|why| json!(why.word()), |value| json!(value));
            object.insert(metric.name().to_owned(), value);
        }
        Value::Object(object)
    };
    totals.cards().iter().map(card).collect()
}

/// The newest samples, an object each.
fn samples(kept: &UsageKept) -> Value {
    let mut all = Vec::new();
    for body in kept.batches.iter().rev() {
        let Ok((batch, _)) = Batch::unpack(body) else { continue };
        for sample in batch.samples.iter().rev() {
            if all.len() == SAMPLES_MAX {
                break;
            }
            let mut object = Map::new();
            object.insert("at".to_owned(), json!(sample.at));
            for metric in Metric::ALL {
                let value = sample.job[metric];
                let value = value.map_or_else(|why| json!(why.word()), |value| json!(value));
                object.insert(metric.name().to_owned(), value);
            }
            all.push(Value::Object(object));
        }
    }
    all.reverse();
    Value::Array(all)
}

/// One span as a line: its begin, its CPU use, its memory.
fn line_of(bucket: &Bucket) -> String {
    let length_us = u64::try_from(bucket.span.length().as_micros()).unwrap_or(u64::MAX);
    let of = |metric: Metric| bucket.job.get(metric as usize).copied();
    let cpu = match of(Metric::Cpu) {
        Some(Rolled::Delta(us)) => format!("{} % CPU", us.saturating_mul(100) / length_us.max(1)),
        _ => "CPU not known".to_owned(),
    };
    let memory = match of(Metric::Memory) {
        Some(Rolled::Range(_, mean, most)) => {
            format!("memory {}, {} at most", advice::size(mean), advice::size(most))
        }
        _ => "memory not known".to_owned(),
    };
    let minutes = Duration::as_secs(&bucket.span.length()) / 60;
    format!("{} {minutes:>4} min  {cpu}, {memory}", bucket.from)
}
