//! `hub rebuild --from-chain`: uptime and scores of all nodes, recomputed from the contract's events alone. Two
//! strangers who ask different endpoints for the same block get the same bytes.
//!
//! Each line is a JSON object: `node`, `block` (the last one that was read), `since_s`, `last_seen_s`, `on_time`,
//! `missed`, `streak`, `completed_claimed`, `failed_claimed`, `confirmed`, `score`; the nodes by address.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::super::logging::Audience;
use super::super::{Misused, contract, load, out};
use crate::chain::Reader;
use crate::chain::extension::Reputation;
use crate::chain::history::{Entry, Event, Walk};
use crate::config::Contract;
use crate::ids::Address;
use crate::reputation::standing::{Deed, Standing};

/// How often the comparison is begun again because the chain went on meanwhile.
const TRIES: u32 = 5;

/// Arguments of `hub rebuild`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recompute from the contract's events; there is no other source yet
    #[arg(long, required = true)]
    from_chain: bool,
    /// The first block: that of the contract's deployment, or any before it
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_block: u64,
    /// The last block (default: the latest)
    #[arg(long, value_name = "N", conflicts_with = "check")]
    block: Option<u64>,
    /// Compare with what the contract says itself; exit code 1 if it says something else
    #[arg(long)]
    check: bool,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row {
    node: Address,
    block: u64,
    #[serde(flatten)]
    standing: Standing,
    score: u16,
}

pub(super) async fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = load(Audience::Client, Contract::read)?;
    let reader = contract::reader(&settings)?;
    for _ in 0..TRIES {
        let head = reader.head().await?;
        let last = args.block.unwrap_or(head);
        if last > head {
            let text = format!("block {last} is not there yet: the chain is at {head}");
            return Err(Misused(text).into());
        }
        let rows = rows(&reader, args.from_block, last).await?;
        let differing = if args.check { differing(&reader, &rows).await? } else { Vec::new() };
        // What the contract says is as of its latest block.
        if args.check && reader.head().await? != head {
            continue;
        }
        for row in &rows {
            out::json(row)?;
        }
        for what in &differing {
            out::note(what);
        }
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    Err(anyhow::anyhow!(
        "the chain went on at each try: without --check it is recomputed as of a block"
    ))
}

/// The records of all nodes as of this block.
async fn rows(reader: &Reader, first: u64, last: u64) -> anyhow::Result<Vec<Row>> {
    let mut nodes = BTreeMap::<Address, Standing>::new();
    let mut walk = Walk::of_all(first, last);
    while let Some(entries) = reader.next_of_all(&mut walk).await? {
        for (node, entry) in entries {
            let deed = deed(reader, &entry).await?;
            let standing = nodes.entry(node).or_default();
            if standing.since_s == 0 && !matches!(deed, Deed::Registered(_)) {
                let text = format!(
                    "{node} had registered before block {first}: begin with the contract's own block"
                );
                return Err(Misused(text).into());
            }
            *standing = standing.after(deed);
        }
    }
    let now = reader.time_of(last).await?;
    let row = |(node, standing): (Address, Standing)| {
        let standing = standing.as_of(now);
        Row { node, block: last, standing, score: standing.score() }
    };
    Ok(nodes.into_iter().map(row).collect())
}

async fn deed(reader: &Reader, entry: &Entry) -> anyhow::Result<Deed> {
    Ok(match &entry.event {
        Event::Registered { .. } => Deed::Registered(match entry.time_s {
            Some(second) => second,
            // Older clients don't tell it with the event.
            None => reader.time_of(entry.block).await?,
        }),
        Event::Heartbeat => Deed::Beat(entry.time_s.unwrap_or_default()),
        Event::JobConfirmed { jobs } => Deed::Confirmed(*jobs),
        Event::ReceiptsCommitted { completed, failed, .. } => Deed::Claimed(*completed, *failed),
    })
}

/// Where the contract says something else, in words.
async fn differing(reader: &Reader, rows: &[Row]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for row in rows {
        let told = reader.reputation(row.node).await?;
        let computed = Reputation { standing: row.standing, score: row.score };
        if told.as_ref() != Some(&computed) {
            found
                .push(format!("{}: recomputed {computed:?}, the contract says {told:?}", row.node));
        }
    }
    Ok(found)
}
