//! `receipt`: shows the receipts that this node signed, read from its journal, also while the node is
//! running.
//!
//! `show` and `proof` print one JSON document (docs/protocol.md, section 3). `list --json` prints one object
//! per receipt: `job_id`, `finished`, `completed`, `exit_code`, `state` (`waiting`, `sent`, `committed`), and
//! if there is one, `root`, `tx_hash`, `block`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};

use super::logging::Audience;
use super::{load, out};
use crate::clock::Timestamp;
use crate::config;
use crate::ids::JobId;
use crate::job::receipt::Signed;
use crate::journal::{Commitment, Kept, Reader};
use crate::reputation::{Proof, merkle};

/// Arguments of `receipt`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a job's signed receipt
    Show {
        /// The job
        #[arg(value_name = "JOB_ID")]
        job: JobId,
    },
    /// Print the proof that the chain holds a job's receipt; `verify --rpc URL` checks it
    Proof {
        /// The job
        #[arg(value_name = "JOB_ID")]
        job: JobId,
        /// Write it to this file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List receipts, the newest first
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 20,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let data_dir = load(Audience::Client, config::data_dir)?;
    let journal = Reader::open(&data_dir)?;
    match args.action {
        Action::Show { job } => out::json(&find(&journal, &job)?.signed.to_json())?,
        Action::Proof { job, out } => {
            let proof = prove(&journal, find(&journal, &job)?)?.to_json();
            match out {
                None => out::json(&proof)?,
                Some(path) => write(&path, &proof)?,
            }
        }
        Action::List { limit, json } => list(&journal.receipts(limit)?, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(journal: &Reader, job: &JobId) -> anyhow::Result<Kept> {
    if let Some(kept) = journal.receipt(job)? {
        return Ok(kept);
    }
    match journal.phase(job)? {
        None => bail!("this node's journal knows no job {job}"),
        Some(phase) => bail!(
            "job {job} has no receipt (it is {phase}): a job gets one when it has ended, if its \
             container was started"
        ),
    }
}

fn prove(journal: &Reader, kept: Kept) -> anyhow::Result<Proof> {
    let Signed { domain, receipt, .. } = &kept.signed;
    let (job, digest) = (&receipt.job_id, receipt.digest(domain));
    let (root, outcome, transaction) = match kept.commitment {
        Commitment::Mined { root, outcome, transaction } => (root, outcome, transaction),
        Commitment::Sent { root } => bail!(
            "the receipt of job {job} is under the root {root}, and the heartbeat that carries it \
             is still on its way; try again in a minute"
        ),
        Commitment::Waiting if journal.passed_over(&kept.signed)? => bail!(
            "the receipt of job {job} is under no root: the node's last heartbeat to {} on chain \
             {} carried none; most likely that contract takes none (docs/reputation.md)",
            domain.contract,
            domain.chain_id
        ),
        Commitment::Waiting => bail!(
            "the receipt of job {job} is under no root yet: it goes with the next heartbeat to {} \
             on chain {}",
            domain.contract,
            domain.chain_id
        ),
    };
    let leaves = journal.leaves(transaction)?;
    let siblings = leaves.iter().position(|leaf| *leaf == digest);
    let siblings = siblings.and_then(|index| merkle::proof(&leaves, index));
    let siblings = siblings.context("the journal lost the receipt's place under its root")?;
    // A gap in the journal would otherwise yield a proof that nobody can verify.
    ensure!(
        merkle::verify(digest, &siblings, root),
        "the receipts in the journal do not make the root {root} that was sent"
    );
    let (tx_hash, block) = (outcome.hash, outcome.block);
    Ok(Proof { receipt: kept.signed, siblings, root, tx_hash, block })
}

fn write(path: &Path, document: &Value) -> anyhow::Result<()> {
    let text = format!("{document}\n");
    std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}

fn list(receipts: &[Kept], json: bool) -> std::io::Result<()> {
    for kept in receipts {
        let receipt = &kept.signed.receipt;
        let finished = Timestamp::from_unix_ms(receipt.finished_at);
        if json {
            let mut object = json!({
                "job_id": receipt.job_id, "finished": finished, "completed": kept.completed,
                "exit_code": receipt.exit_code, "state": state(&kept.commitment),
            });
            match &kept.commitment {
                Commitment::Waiting => {}
                Commitment::Sent { root } => object["root"] = json!(root),
                Commitment::Mined { root, outcome, .. } => {
                    object["root"] = json!(root);
                    object["tx_hash"] = json!(outcome.hash);
                    object["block"] = json!(outcome.block);
                }
            }
            out::json(&object)?;
            continue;
        }
        let ended = if kept.completed { "completed" } else { "not completed" };
        let block = match &kept.commitment {
            Commitment::Mined { outcome, .. } => format!(" in block {}", outcome.block),
            _ => String::new(),
        };
        let state = state(&kept.commitment);
        out::line(&format!("{finished} {} {ended}, {state}{block}", receipt.job_id))?;
    }
    Ok(())
}

fn state(commitment: &Commitment) -> &'static str {
    match commitment {
        Commitment::Waiting => "waiting",
        Commitment::Sent { .. } => "sent",
        Commitment::Mined { .. } => "committed",
    }
}
