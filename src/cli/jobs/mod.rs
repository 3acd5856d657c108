//! `jobs`: shows what this node knows about its jobs, read from its journal, also while the node is running.
//!
//! With `--json` every line is one object; docs/operations.md, Jobs, lists its keys. A listed job and a
//! single job start with the same keys.

mod object;
mod retry;
mod show;
mod timeline;
mod usage;
pub(in crate::cli) mod words;

use std::process::ExitCode;

use anyhow::Context as _;

use super::logging::Audience;
use super::{block_on, load, out};
use crate::config;
use crate::ids::JobId;
use crate::job::phase::{Fault, Trouble};
use crate::journal::{Page, Reader, Record, Standing};

/// Arguments of `jobs`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Everything about this job
    #[arg(value_name = "JOB_ID")]
    job: Option<JobId>,
    /// Also finished and refused jobs
    #[arg(long, conflicts_with = "job")]
    all: bool,
    /// How many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "job",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// What this job used of what it asked for
    #[arg(long, requires = "job")]
    usage: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Publish an output that could not be published in time and is kept
    Retry(retry::Args),
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Command::Retry(retry)) = &args.command {
        return block_on(retry::execute(retry));
    }
    let data_dir = load(Audience::Client, config::data_dir)?;
    let journal = Reader::open(&data_dir)?;
    let Some(job) = &args.job else {
        let page =
            if args.all { journal.jobs(args.limit)? } else { journal.open_jobs(args.limit)? };
        list(&page, args)?;
        return Ok(ExitCode::SUCCESS);
    };
    let chronicle = journal.chronicle(job)?;
    let chronicle = chronicle.with_context(|| {
        format!("this node's journal knows no job {job}; a job is forgotten 30 days after its end")
    })?;
    if args.usage {
        let kept = journal.usage(job)?;
        let report = usage::Report::new(&chronicle, kept.as_ref());
        if args.json {
            out::json(&report.object())?;
        } else {
            report.print()?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let has_receipt = journal.receipt(job)?.is_some();
    let kept = journal.kept(job)?;
    if args.json {
        out::json(&object::of_history(&chronicle, has_receipt, kept.as_ref()))?;
    } else {
        show::print(&chronicle, has_receipt, kept.as_ref())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(page: &Page, args: &Args) -> std::io::Result<()> {
    for record in &page.records {
        if args.json {
            out::json(&object::of_record(record))?;
        } else {
            out::line(&line(record))?;
        }
    }
    let left_out = page.total.saturating_sub(page.records.len() as u64);
    if left_out > 0 {
        out::note(&format!("{left_out} older ones are not shown: --limit shows more"));
    } else if page.records.is_empty() {
        let hint = if args.all { "" } else { "; --all shows what is done" };
        out::note(&format!("no job is in hand{hint}"));
    }
    Ok(())
}

/// A job as one line of text.
fn line(record: &Record) -> String {
    let id = &record.id;
    match &record.standing {
        Standing::Taken(job) => {
            let (since, phase) = (job.since, words::phase(&job.phase));
            let (attempt, target) = (job.attempt, &job.target);
            let why = match (&job.trouble, fault(record)) {
                (Some(trouble), _) => format!("; {}", trouble_text(trouble)),
                (None, Some(fault)) => format!(": {}", words::fault_text(fault)),
                (None, None) => String::new(),
            };
            format!("{since} {id} {phase} (attempt {attempt}, from {target}){why}")
        }
        Standing::Refused { status, .. } => {
            let error = out::clean(status.error.as_deref().unwrap_or_default());
            let code = status.reason_code.map(|reason| format!(" ({})", reason.code()));
            format!("{} {id} rejected: {error}{}", status.timestamp, code.unwrap_or_default())
        }
        Standing::IdOnly { phase, until } => {
            format!("{} {id} {phase}; only its id is remembered, until {until}", record.updated)
        }
    }
}

/// Why a job that was taken and has ended did not complete.
fn fault(record: &Record) -> Option<&Fault> {
    match &record.standing {
        Standing::Taken(job) => job.phase.outcome().and_then(words::fault_of),
        Standing::Refused { .. } | Standing::IdOnly { .. } => None,
    }
}

/// The trouble that keeps a job from going on, as text.
fn trouble_text(trouble: &Trouble) -> String {
    let (fault, retry_at) = (words::fault_text(&trouble.fault), trouble.retry_at);
    let times = words::count(trouble.failures as usize, "time");
    format!("did not work {times}: {fault}; the next try is at {retry_at}")
}
