//! `usage`: what a job used, as its node published it; anybody with access to the NATS server can ask.
//!
//! `--series` writes the batches to a file, one base64 text a line; `verify STATUS --series FILE` checks it against
//! the record that the node signed. `--json`: an object a batch.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::logging::Audience;
use super::{Misused, follow, load, out};
use crate::config::Client;
use crate::ids::{Address, JobId};
use crate::usage::advice::size;
use crate::usage::{Batch, Chain, Metric, Totals};

/// Arguments of `usage`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    #[arg(value_name = "JOB_ID")]
    job: JobId,
    /// The node that runs or ran it (default: `AGENT_ADDRESS`, else the only one that tells of it)
    #[arg(long, value_name = "ADDRESS")]
    agent: Option<Address>,
    /// Write the batches to this file, for `verify --series`
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// One JSON object a batch, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let bus = follow::connect(&client.bus).await?;
    let wanted = args.agent.or(client.agent);
    let told = bus.usage(wanted, &args.job).await?;
    let mut agents: Vec<Address> = told.iter().map(|(agent, _)| *agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let [agent] = agents.as_slice() else {
        let job = &args.job;
        if agents.is_empty() {
            out::note(&format!(
                "no node tells what job {job} used; a batch comes each five minutes, and at its end"
            ));
            return Ok(ExitCode::FAILURE);
        }
        return Err(Misused(format!(
            "{} nodes tell of job {job}: --agent names one",
            agents.len()
        ))
        .into());
    };
    let batches = of_last_attempt(told.iter().map(|(_, body)| body.as_ref()).collect());
    if let Some(path) = &args.series {
        let write = || {
            let mut file = std::fs::File::create(path)?;
            batches
                .iter()
                .try_for_each(|body| writeln!(file, "{}", data_encoding::BASE64.encode(body)))
        };
        write().with_context(|| format!("{} can't be written", path.display()))?;
    }
    show(&args, *agent, &batches)
}

/// The batches of the last attempt, which has a chain of its own. What can't be read may be one of them.
fn of_last_attempt(mut batches: Vec<&[u8]>) -> Vec<&[u8]> {
    let attempt = |body: &[u8]| Batch::unpack(body).ok().map(|(batch, _)| batch.attempt);
    let last = batches.iter().filter_map(|body| attempt(body)).max();
    batches.retain(|body| attempt(body).is_none_or(|attempt| Some(attempt) == last));
    // One that was published twice.
    batches.dedup();
    batches
}

/// Shows the batches of one attempt.
fn show(args: &Args, agent: Address, batches: &[&[u8]]) -> anyhow::Result<ExitCode> {
    let first = batches.first().and_then(|body| Batch::unpack(body).ok());
    if let Some((batch, _)) = first.filter(|(batch, _)| batch.number > 0) {
        let number = batch.number;
        out::note(&format!(
            "the first {number} batches are no longer on the stream, which keeps seven days: the rest can't be checked"
        ));
        return Ok(ExitCode::FAILURE);
    }
    let (mut chain, mut totals) = (Chain::default(), Totals::default());
    for body in batches {
        let batch = match chain.follow(body) {
            Ok(batch) => batch,
            Err(broken) => {
                out::line(&format!("NOT WHOLE: {broken}"))?;
                return Ok(ExitCode::FAILURE);
            }
        };
        batch.samples.iter().for_each(|sample| totals.fold(sample));
        if args.json {
            let (number, prev, marks) = (batch.number, batch.prev, &batch.marks);
            out::json(&json!({
                "agent": agent, "job_id": batch.job_id, "attempt": batch.attempt, "number": number,
                "prev": prev, "head": chain.head().hash, "samples": batch.samples.len(),
                "from": batch.samples.first().map(|sample| sample.at),
                "until": batch.samples.last().map(|sample| sample.at),
                "marks": marks, "aggregated": totals.aggregated(),
            }))?;
        }
    }
    if !args.json {
        let head = chain.head();
        let cpu = totals.total(Metric::Cpu).map_or_else(
            |why| format!("CPU not known: {why}"),
            |us| format!("{}.{:03} s of CPU", us / 1_000_000, us / 1000 % 1000),
        );
        let memory = totals.total(Metric::MemoryPeak).map_or_else(
            |why| format!("memory not known: {why}"),
            |bytes| format!("{} of memory at most", size(bytes)),
        );
        let (job, samples, count) = (&args.job, head.samples, head.batches);
        out::line(&format!("job {job} on {agent}: {cpu}, {memory}"))?;
        out::line(&format!(
            "  {samples} samples in {count} batches, none missing; head {}",
            head.hash
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
