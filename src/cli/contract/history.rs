//! `contract history`: a node's history from the contract's events, oldest first.
//!
//! `--json`: one object per event: `block`, `time_s` if known, `tx_hash`, `event` (`registered` with
//! `gpu_model` and `vram_mib`, `heartbeat`, `job_confirmed` with `jobs`, `receipts_committed` with `root`,
//! `completed`, `failed`).

use super::super::{Misused, out};
use super::{Common, node_of, reader};
use crate::chain::Reader;
use crate::chain::history::{Entry, Event, RECENT_BLOCKS, Walk};
use crate::config::Contract;
use crate::ids::Address;

/// Arguments of `contract history`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node (default: `AGENT_ADDRESS`, else that of the settings' key)
    #[arg(value_name = "ADDRESS")]
    node: Option<Address>,
    /// The first block (default: that of the node's registration if the contract records it, else 50000
    /// blocks ago)
    #[arg(long, value_name = "N")]
    from_block: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn history(settings: &Contract, args: &Args) -> anyhow::Result<()> {
    let reader = reader(settings)?;
    let node = node_of(settings, args.node)?
        .ok_or_else(|| Misused("which node? Name it or set AGENT_ADDRESS".to_owned()))?;
    let head = reader.head().await?;
    let first = match args.from_block {
        Some(first) => first,
        None => beginning(&reader, node, head).await?,
    };
    if first > head {
        out::note(&format!("block {first} is not there yet: the chain is at {head}"));
    } else {
        out::note(&format!("{node}, blocks {first} to {head}"));
    }
    let mut walk = Walk::new(node, first, head);
    while let Some(entries) = reader.next_range(&mut walk).await? {
        for entry in entries {
            if args.common.json { out::json(&entry)? } else { out::line(&told(&entry))? }
        }
    }
    Ok(())
}

async fn beginning(reader: &Reader, node: Address, head: u64) -> anyhow::Result<u64> {
    match reader.reputation(node).await? {
        Some(reputation) => Ok(reader.block_at(reputation.standing.since_s, head).await?),
        None => Ok(head.saturating_sub(RECENT_BLOCKS)),
    }
}

/// The event as one line of text.
fn told(entry: &Entry) -> String {
    let time = entry.time_s.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let what = match &entry.event {
        Event::Registered { gpu_model, vram_mib } => {
            format!("registered as {} with {vram_mib} MiB", out::clean(gpu_model))
        }
        Event::Heartbeat => "heartbeat".to_owned(),
        Event::JobConfirmed { jobs } => format!("job confirmed, {jobs} in all"),
        Event::ReceiptsCommitted { root, completed, failed } => {
            format!("receipts of {completed} completed and {failed} failed jobs, root {root}")
        }
    };
    format!("{} {time} {what} ({})", entry.block, entry.tx_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_model_can_not_rewrite_the_terminal() {
        let event = Event::Registered { gpu_model: "\u{1b}[2JX".to_owned(), vram_mib: 1 };
        let entry = Entry { block: 7, time_s: None, tx_hash: "0x1".to_owned(), event };
        assert_eq!(told(&entry), "7 - registered as \\u{1b}[2JX with 1 MiB (0x1)");
    }
}
