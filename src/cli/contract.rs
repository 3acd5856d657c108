//! `contract`: puts the reputation contract on a chain, or shows what it says.
//!
//! `deploy --json`: `contract`, `owner`, `tx_hash`, `block`, `gas_used`.
//! `show --json`: `contract`, `chain_id`, `block`, `owner`, `providers`, `active`, and `node`:
//! `address`, `balance_wei`, `registered`, and where that is true `gpu_model`, `vram_mib`,
//! `last_seen_s`, `jobs`, `active`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::logging::Audience;
use super::signer::KeyArgs;
use super::{Misused, load, out};
use crate::chain::{Reader, deploy::deploy};
use crate::config::{Contract, RECEIPT_DEADLINE, parse_rpc_urls};
use crate::node::Address;

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
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The chain's JSON-RPC endpoint, or a comma list (default: `OPBNB_RPC_URL`)
    #[arg(long, value_name = "URL")]
    rpc_url: Option<String>,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let mut settings = load(Audience::Client, Contract::read)?;
    let (Action::Deploy { common, .. } | Action::Show { common, .. }) = &args.action;
    if let Some(list) = &common.rpc_url {
        let urls = parse_rpc_urls(list).map_err(|what| missing(&format!("--rpc-url: {what}")))?;
        settings.signing.rpc_urls = urls;
    }
    match args.action {
        Action::Deploy { key, common } => deploy_to(&settings, &key, common.json).await?,
        Action::Show { node, common } => show(&settings, node, common.json).await?,
    }
    Ok(ExitCode::SUCCESS)
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

async fn show(settings: &Contract, node: Option<Address>, json: bool) -> anyhow::Result<()> {
    let config = settings.signing.chain().ok_or_else(|| {
        missing("which contract? Set OPBNB_RPC_URL and REPUTATION_CONTRACT_ADDRESS")
    })?;
    let node = match (node.or(settings.agent), &settings.key) {
        (None, Some(key)) => Some(key.address()?),
        (node, _) => node,
    };
    let contract = config.contract;
    let reader = Reader::new(config)?;
    let account = node.unwrap_or_else(|| Address::new([0; 20]));
    let facts = reader.facts(account).await?;
    let (owner, providers, active) =
        tokio::try_join!(reader.owner(), reader.total_providers(), reader.active_count())?;
    let mut shown = json!({
        "contract": contract, "chain_id": facts.chain_id, "block": facts.block, "owner": owner,
        "providers": providers, "active": active,
    });
    if let Some(node) = node {
        let provider = reader.provider(node).await?;
        let mut record = json!(provider.as_ref());
        if provider.is_none() {
            record = json!({});
        }
        record["address"] = json!(node);
        record["balance_wei"] = json!(facts.balance_wei);
        record["registered"] = json!(provider.is_some());
        shown["node"] = record;
    }
    if json { Ok(out::json(&shown)?) } else { Ok(print(&shown)?) }
}

fn print(shown: &Value) -> std::io::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => out::clean(text),
        other => other.to_string(),
    };
    let of = |key: &str| text(&shown[key]);
    out::line(&format!(
        "contract {} on chain {}, block {}",
        of("contract"),
        of("chain_id"),
        of("block")
    ))?;
    out::line(&format!("owner {}", of("owner")))?;
    out::line(&format!("nodes: {} registered, {} active", of("providers"), of("active")))?;
    let Some(node) = shown.get("node") else { return Ok(()) };
    let of = |key: &str| text(&node[key]);
    out::line(&format!("node {}: {} wei", of("address"), of("balance_wei")))?;
    if node["registered"] == true {
        out::line(&format!(
            "  registered as {} with {} MiB, last seen {} (Unix), active: {}, jobs confirmed: {}",
            of("gpu_model"),
            of("vram_mib"),
            of("last_seen_s"),
            of("active"),
            of("jobs")
        ))
    } else {
        out::line("  not registered")
    }
}
