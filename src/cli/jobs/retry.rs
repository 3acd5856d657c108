//! `jobs retry`: asks the running node to publish a kept output.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::logging::Audience;
use super::super::signer::{self, KeyArgs};
use super::super::{load, out};
use crate::bus::Bus;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Client};
use crate::ids::{Address, JobId, Signature};
use crate::journal::Reader;

/// The node answers once the request is in its journal.
const ANSWER: Duration = Duration::from_secs(30);

/// Arguments of `jobs retry`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    #[arg(value_name = "JOB_ID")]
    job: JobId,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object, for programs: the node's answer, with `output_cid` once it is published
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let (client, data_dir) = load(Audience::Client, |env| {
        let client = Client::read(env);
        Ok((client?, config::data_dir(env)?))
    })?;
    let id = &args.job;
    let kept = Reader::open(&data_dir)?.kept(id)?;
    let kept = kept.with_context(|| format!("this node keeps no output of job {id}"))?;
    if let Some(result) = &kept.result
        && kept.said
    {
        let cid = &result.output_cid;
        if args.json {
            out::json(&json!({"ok": true, "output_cid": cid}))?;
        } else {
            out::line(&format!("the output of job {id} is published: {cid}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let node = kept.kept.job.node;
    let request = request(args, &client, node).await?;
    let bus = Bus::connect(&client.bus).await?;
    let body = bus.control(node, request.to_string().into_bytes().into(), ANSWER).await;
    let body = body.context("only a node that runs can publish what it keeps")?;
    let answer: Value =
        serde_json::from_slice(&body).context("the node's answer is not a valid reply")?;
    let is_done = answer["ok"] == true;
    if args.json {
        out::json(&answer)?;
    } else if is_done {
        out::line(&format!(
            "ok: the output of job {id} is being published; `lamda-node jobs {id}` tells how it goes"
        ))?;
    } else {
        let text = |key: &str| out::clean(answer[key].as_str().unwrap_or_default());
        out::note(&format!("not done: {}: {}", text("reason_code"), text("error")));
    }
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the request, signed with the node's key or its owner's.
async fn request(args: &Args, client: &Client, node: Address) -> anyhow::Result<Value> {
    let key = args.key.load(client.key.as_ref())?;
    let key = key.context("the node's key or its owner's signs this: --keystore FILE")?;
    let domain = signer::domain(&client.signing).await?;
    let domain = domain.context("REPUTATION_CONTRACT_ADDRESS is what the request is signed for")?;
    let at_ms = SystemClock.now().unix_ms();
    let digest = domain.control_digest("retry", args.job.as_str(), node, at_ms);
    let signature = Signature(key.sign_digest(&digest.0));
    Ok(json!({
        "action": "retry", "job_id": args.job, "agent": node, "issued_at_ms": at_ms,
        "signature": signature,
    }))
}
