//! `contract`: deploys the reputation contract, shows its state, and prints what an explorer needs to verify
//! it.
//!
//! `deploy --json`: `contract`, `owner`, `tx_hash`, `block`, `gas_used`. Each other command has its own
//! module, which documents its `--json`.

mod history;
mod show;
mod verify_data;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::logging::Audience;
use super::signer::KeyArgs;
use super::{Misused, load, out};
use crate::chain::{Reader, deploy::deploy};
use crate::config::{Contract, RECEIPT_DEADLINE, parse_rpc_urls};
use crate::ids::Address;

/// Arguments of `contract`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Deploy the contract to a chain of your own; the key's account pays and owns it
    Deploy {
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Show what the contract says: its owner, its totals, and one node's record
    Show {
        /// The node (default: `AGENT_ADDRESS`, else that of the settings' key)
        #[arg(value_name = "ADDRESS")]
        node: Option<Address>,
        #[command(flatten)]
        common: Common,
    },
    /// Show what happened to a node, from the contract's events
    History(history::Args),
    /// Print what an explorer needs to verify the contract: compiler, settings, sources
    VerifyData(verify_data::Args),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The chain's JSON-RPC endpoint, or a comma list (default: `OPBNB_RPC_URL`)
    #[arg(long, value_name = "URL")]
    rpc_url: Option<String>,
    /// JSON for programs, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Deploy { key, common } => deploy_to(&settings(&common)?, &key, common.json).await?,
        Action::Show { node, common } => show::show(&settings(&common)?, node, common.json).await?,
        Action::History(args) => history::history(&settings(&args.common)?, &args).await?,
        Action::VerifyData(args) => verify_data::verify_data(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn settings(common: &Common) -> anyhow::Result<Contract> {
    let mut settings = load(Audience::Client, Contract::read)?;
    if let Some(list) = &common.rpc_url {
        let urls = parse_rpc_urls(list).map_err(|what| missing(&format!("--rpc-url: {what}")))?;
        settings.signing.rpc_urls = urls;
    }
    Ok(settings)
}

/// A reader of the contract that the settings name. It needs no key.
pub(in crate::cli) fn reader(settings: &Contract) -> anyhow::Result<Reader> {
    let config = settings.signing.chain().ok_or_else(|| {
        missing("which contract? Set OPBNB_RPC_URL and REPUTATION_CONTRACT_ADDRESS")
    })?;
    Ok(Reader::new(config)?)
}

/// The node that was named, else `AGENT_ADDRESS`, else that of the settings' key.
fn node_of(settings: &Contract, named: Option<Address>) -> anyhow::Result<Option<Address>> {
    match (named.or(settings.agent), &settings.key) {
        (None, Some(key)) => Ok(Some(key.address()?)),
        (node, _) => Ok(node),
    }
}

fn missing(what: &str) -> anyhow::Error {
    Misused(what.to_owned()).into()
}

async fn deploy_to(settings: &Contract, key: &KeyArgs, json: bool) -> anyhow::Result<()> {
    let urls = settings.signing.exposed_urls();
    if urls.is_empty() {
        return Err(missing("which chain? Set OPBNB_RPC_URL or use --rpc-url URL"));
    }
    let key = key.load(settings.key.as_ref())?;
    let key = key.ok_or_else(|| missing("whose key pays? Use --keystore FILE"))?;
    let chain_id = settings.signing.chain_id;
    let deployed = deploy(&urls, &key, chain_id, RECEIPT_DEADLINE).await;
    let (contract, mined) = deployed.context("the contract could not be deployed")?;
    if json {
        out::json(&json!({
            "contract": contract, "owner": key.address(), "tx_hash": mined.tx_hash,
            "block": mined.block, "gas_used": mined.gas_used,
        }))?;
    } else {
        out::line(&format!("the contract is at {contract}, owned by {}", key.address()))?;
        out::line(&format!("transaction {} in block {}", mined.tx_hash, mined.block))?;
        out::line(&format!("to use it: REPUTATION_CONTRACT_ADDRESS={contract}"))?;
    }
    Ok(())
}
