//! `gpus`: the node's GPUs: what each is, who holds it, how it does, and what its owner should do.
//!
//! It asks the driver itself and reads the journal, so that it works with and without a running node. With
//! `--json` it prints one object a card. Exit code 1 if a card is not healthy, or the driver does not answer.

mod readmit;

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::logging::Audience;
use super::signer::KeyArgs;
use super::{load, out};
use crate::config::{self, Gpu};
use crate::gpu::{GpuProbe as _, host::Host};
use crate::journal::{self, Dated, Reader, Standing};
use crate::node::card::{Facts, Reading, Round, Sample};
use crate::node::health::State;
use crate::node::{Gpu as Card, GpuInventory, GpuUuid};
use crate::report::causes;

/// The most jobs in hand that are read: no node has as many slots.
const JOBS_MAX: u32 = 4096;

/// Arguments of `gpus`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Let this retired GPU be tried again, because it was repaired; the node must be running
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    readmit: Option<GpuUuid>,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object a GPU, for programs
    #[arg(long)]
    json: bool,
}

fn uuid(text: &str) -> Result<GpuUuid, &'static str> {
    GpuUuid::new(text).ok_or("not a GPU's UUID, such as GPU-5f1a… (`lamda-node gpus` lists them)")
}

/// The journal's records about the cards.
#[derive(Debug, Default)]
struct Known {
    health: BTreeMap<GpuUuid, Dated>,
    /// The job that holds a card, and its phase.
    holders: BTreeMap<GpuUuid, (String, &'static str)>,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(card) = &args.readmit {
        return readmit::ask(card, &args.key, args.json).await;
    }
    let (gpu, data_dir) = load(Audience::Client, |env| {
        let gpu = config::gpu(env);
        Ok((gpu?, config::data_dir(env)?))
    })?;
    let Gpu::Auto { library, .. } = gpu else {
        out::note("GPU_MODE=none: this node uses no GPU");
        return Ok(ExitCode::SUCCESS);
    };
    // Without a journal no node has run here yet; the driver's answers are shown all the same.
    let known = match Reader::open(&data_dir) {
        Ok(reader) => known(&reader)?,
        Err(journal::Error::Missing(_)) => Known::default(),
        Err(err) => return Err(err.into()),
    };
    let driver = Host::new(library);
    let inventory = match driver.inventory().await {
        Ok(inventory) => inventory,
        Err(err) => {
            out::note(&out::clean(&causes(&err)));
            GpuInventory::default()
        }
    };
    let round = driver.sample().await.unwrap_or_default();
    let is_well = show(&args, &inventory, &known, &round)?;
    for line in inventory.left_out.iter().chain(&inventory.others) {
        out::note(&out::clean(line));
    }
    let all_there = !inventory.gpus.is_empty() && inventory.left_out.is_empty();
    Ok(if is_well && all_there { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn known(reader: &Reader) -> anyhow::Result<Known> {
    let mut holders = BTreeMap::new();
    for record in reader.open_jobs(JOBS_MAX)?.records {
        let Standing::Taken(job) = &record.standing else { continue };
        for card in job.phase.holds().unwrap_or_default() {
            holders.insert(card.clone(), (record.id.to_string(), job.phase.name()));
        }
    }
    Ok(Known { health: reader.gpu_health()?, holders })
}

/// Prints every card, including those that only the journal knows. Returns whether all are healthy.
fn show(
    args: &Args,
    inventory: &GpuInventory,
    known: &Known,
    round: &Round,
) -> anyhow::Result<bool> {
    let mut is_well = true;
    for card in &inventory.gpus {
        let row = Row {
            card,
            facts: inventory.facts.get(&card.uuid),
            dated: known.health.get(&card.uuid),
            holder: known.holders.get(&card.uuid),
            now: round.get(&card.uuid).and_then(|sample| sample.as_ref().ok()),
        };
        is_well &= row.state() == State::Healthy;
        if args.json {
            out::json(&row.object())?;
        } else {
            out::line(&row.text())?;
        }
    }
    let is_here = |uuid: &GpuUuid| inventory.gpus.iter().any(|card| card.uuid == *uuid);
    for (uuid, (record, since)) in known.health.iter().filter(|(uuid, _)| !is_here(uuid)) {
        if args.json {
            out::json(&json!({"uuid": uuid, "here": false, "health": record.state.name(),
                "why": record.why, "since": since.to_string()}))?;
        } else if record.state != State::Healthy {
            let why = out::clean(&record.why);
            out::line(&format!("{uuid}  not here now; {} since {since}: {why}", record.state))?;
        }
    }
    Ok(is_well)
}

/// One card: its facts, its health and its job.
struct Row<'a> {
    card: &'a Card,
    facts: Option<&'a Facts>,
    dated: Option<&'a Dated>,
    holder: Option<&'a (String, &'static str)>,
    now: Option<&'a Sample>,
}

impl Row<'_> {
    fn state(&self) -> State {
        self.dated.map_or(State::Healthy, |(record, _)| record.state)
    }

    fn object(&self) -> Value {
        json!({
            "uuid": self.card.uuid,
            "here": true,
            "model": self.card.model,
            "vram_mib": self.card.vram_mib,
            "facts": self.facts,
            "health": self.state().name(),
            "why": self.dated.map(|(record, _)| &record.why),
            "since": self.dated.map(|(_, since)| since.to_string()),
            "quarantines": self.dated.map_or(0, |(record, _)| record.quarantines),
            "advice": self.state().advice(),
            "job_id": self.holder.map(|(id, _)| id),
            "job_phase": self.holder.map(|(_, phase)| phase),
            "now": self.now,
        })
    }

    fn text(&self) -> String {
        let Self { card, .. } = self;
        let mut lines = vec![format!("{}  {}, {} MiB", card.uuid, card.model, card.vram_mib)];
        lines.extend(self.facts.map(|facts| format!("  {}", of_facts(facts))));
        lines.push(match self.dated {
            Some((record, since)) if record.state != State::Healthy => {
                format!("  {} since {since}: {}", record.state, out::clean(&record.why))
            }
            Some((record, since)) => {
                format!("  healthy; it was not until {since}: {}", out::clean(&record.why))
            }
            None => "  healthy".to_owned(),
        });
        lines.push(match self.holder {
            Some((id, phase)) => format!("  held by job {id} ({phase})"),
            None => "  free".to_owned(),
        });
        lines.extend(self.now.map(|sample| format!("  {}", of_sample(sample))));
        lines.extend(self.state().advice().map(|text| format!("  what to do: {text}")));
        lines.join("\n")
    }
}

fn of_facts(facts: &Facts) -> String {
    let word = |name: &str, value: &Reading<bool>| {
        value.as_ref().ok().map(|on| format!("{name} {}", if *on { "on" } else { "off" }))
    };
    let told = [
        facts.pci.as_ref().ok().map(|pci| format!("PCI {pci}")),
        facts.compute_capability.as_ref().ok().map(|cc| format!("compute capability {cc}")),
        facts.power_limit_mw.as_ref().ok().map(|mw| format!("power limit {} W", mw / 1000)),
        word("ECC", &facts.ecc),
        word("MIG", &facts.mig),
        word("persistence", &facts.persistence),
        facts.parent.as_ref().map(|parent| format!("a part of {parent}")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_sample(sample: &Sample) -> String {
    let told = [
        sample.busy_percent.as_ref().ok().map(|busy| format!("busy {busy} %")),
        sample.used_bytes.as_ref().ok().map(|used| format!("{} MiB in use", used >> 20)),
        sample.power_mw.as_ref().ok().map(|mw| format!("{} W", mw / 1000)),
        sample.celsius.as_ref().ok().map(|celsius| format!("{celsius} °C")),
        sample.processes.as_ref().ok().filter(|all| !all.is_empty()).map(|all| {
            let pids: Vec<String> = all.iter().map(|process| process.pid.to_string()).collect();
            format!("used by process {}", pids.join(", "))
        }),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
