//! `contract show`: the contract's owner, its totals, and one node's record.
//!
//! `--json`: `contract`, `chain_id`, `block`, `owner`, `providers`, `active`, `extension` and `node`.
//! `active` is null if the contract can't count its active nodes, and `active_unknown` says why: the deployed
//! contract looks at every node in one call, which endpoints cut off at some 11,000. `node` has `address`,
//! `balance_wei`, `registered`; if registered, `gpu_model`, `vram_mib`, `last_seen_s`, `jobs`, `active`; and
//! if the contract has the extension, `reputation`: `since_s`, `last_seen_s`, `on_time`, `missed`, `streak`,
//! `completed_claimed`, `failed_claimed`, `confirmed`, `score`.

use serde_json::{Value, json};

use super::super::out;
use super::{node_of, reader};
use crate::chain::Reader;
use crate::config::Contract;
use crate::ids::Address;

pub(super) async fn show(
    settings: &Contract,
    node: Option<Address>,
    json: bool,
) -> anyhow::Result<()> {
    let reader = reader(settings)?;
    let node = node_of(settings, node)?;
    let account = node.unwrap_or_else(|| Address::new([0; 20]));
    let facts = reader.facts(account).await?;
    let (count, others) = tokio::join!(reader.active_count(), async {
        tokio::try_join!(reader.owner(), reader.total_providers(), reader.has_extension())
    });
    let (owner, providers, extension) = others?;
    let (active, unknown) = match count {
        Ok(active) => (Some(active), None),
        Err(err) => (None, Some(out::chain(&err.into()))),
    };
    let mut shown = json!({
        "contract": reader.contract(), "chain_id": facts.chain_id, "block": facts.block,
        "owner": owner, "providers": providers, "active": active, "extension": extension,
    });
    if let Some(unknown) = unknown {
        shown["active_unknown"] = json!(unknown);
    }
    if let Some(node) = node {
        let mut record = record(&reader, node).await?;
        record["balance_wei"] = json!(facts.balance_wei);
        shown["node"] = record;
    }
    if json { Ok(out::json(&shown)?) } else { Ok(print(&shown)?) }
}

async fn record(reader: &Reader, node: Address) -> anyhow::Result<Value> {
    let provider = reader.provider(node).await?;
    let mut record = provider.as_ref().map_or_else(|| json!({}), |provider| json!(provider));
    record["address"] = json!(node);
    record["registered"] = json!(provider.is_some());
    if let Some(reputation) = reader.reputation(node).await? {
        record["reputation"] = json!(reputation);
    }
    Ok(record)
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
    let active = match &shown["active_unknown"] {
        Value::String(why) => format!("how many are active is unknown ({})", out::clean(why)),
        _ => format!("{} active", of("active")),
    };
    out::line(&format!("nodes: {} registered, {active}", of("providers")))?;
    let Some(node) = shown.get("node") else { return Ok(()) };
    let of = |key: &str| text(&node[key]);
    out::line(&format!("node {}: {} wei", of("address"), of("balance_wei")))?;
    if node["registered"] != true {
        return out::line("  not registered");
    }
    out::line(&format!(
        "  registered as {} with {} MiB, last seen {} (Unix), active: {}, jobs confirmed: {}",
        of("gpu_model"),
        of("vram_mib"),
        of("last_seen_s"),
        of("active"),
        of("jobs")
    ))?;
    let Some(reputation) = node.get("reputation") else { return Ok(()) };
    let of = |key: &str| text(&reputation[key]);
    out::line(&format!("  score {} of 10000, since {} (Unix)", of("score"), of("since_s")))?;
    out::line(&format!(
        "  slots of 5 minutes: {} on time, {} missed, {} in a row",
        of("on_time"),
        of("missed"),
        of("streak")
    ))?;
    out::line(&format!(
        "  jobs by its own word: {} completed, {} failed",
        of("completed_claimed"),
        of("failed_claimed")
    ))
}
