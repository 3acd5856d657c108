//! `gpus --readmit`: tells the running node that a retired GPU was repaired.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::logging::Audience;
use super::super::signer::{self, KeyArgs};
use super::super::{load, out, the_agent};
use crate::bus::Bus;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::ids::Signature;
use crate::node::GpuUuid;

/// Time limit for the node's answer, which it gives at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the node of `AGENT_ADDRESS`; signed with its key or its owner's.
pub(super) async fn ask(card: &GpuUuid, key: &KeyArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let key = key.load(client.key.as_ref())?;
    let key = key.context("the node's key or its owner's signs this: --keystore FILE")?;
    let node = the_agent(None, client.agent.or_else(|| Some(key.address())))?;
    let domain = signer::domain(&client.signing).await?;
    let domain = domain.context("REPUTATION_CONTRACT_ADDRESS is what the request is signed for")?;
    let at_ms = SystemClock.now().unix_ms();
    let digest = domain.control_digest("readmit", card.as_str(), node, at_ms);
    let request = json!({
        "action": "readmit", "gpu": card, "agent": node, "issued_at_ms": at_ms,
        "signature": Signature(key.sign_digest(&digest.0)),
    });
    let bus = Bus::connect(&client.bus).await?;
    let body = bus.control(node, request.to_string().into_bytes().into(), ANSWER).await;
    let body = body.context("only a node that runs can take a GPU back")?;
    let answer: Value =
        serde_json::from_slice(&body).context("the node's answer is not a valid reply")?;
    let is_done = answer["ok"] == true;
    if as_json {
        out::json(&answer)?;
    } else if is_done {
        out::line(&format!("ok: {card} is tried now; `lamda-node gpus` tells what came of it"))?;
    } else {
        let text = |key: &str| out::clean(answer[key].as_str().unwrap_or_default());
        out::note(&format!("not done: {}: {}", text("reason_code"), text("error")));
    }
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
