//! `cancel`: asks a node to end a job.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;

use super::logging::Audience;
use super::signer::{self, KeyArgs};
use super::{load, out, the_agent};
use crate::bus::Bus;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::job::{JobId, Signature};
use crate::node::Address;

/// A node answers when it has decided, which may wait for a container's start.
const ANSWER: Duration = Duration::from_secs(30);

/// Arguments of `cancel`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    #[arg(value_name = "JOB_ID")]
    job: JobId,
    /// The node that runs it (default: `AGENT_ADDRESS`)
    #[arg(long, value_name = "ADDRESS")]
    agent: Option<Address>,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object, for programs: the node's answer
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    reason_code: String,
    #[serde(default)]
    error: String,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let agent = the_agent(args.agent, client.agent)?;
    let request = request(&args, &client, agent).await?;
    let bus = Bus::connect(&client.bus).await?;
    let body = bus.control(agent, request.to_string().into_bytes().into(), ANSWER).await?;
    let answer: Answer =
        serde_json::from_slice(&body).context("the node's answer is none of this protocol")?;
    if args.json {
        out::json(&serde_json::from_slice::<serde_json::Value>(&body)?)?;
    } else if answer.ok {
        out::line(&format!("ok: job {} is cancelled", args.job))?;
    } else {
        let (code, error) = (out::clean(&answer.reason_code), out::clean(&answer.error));
        out::note(&format!("not cancelled: {code}: {error}"));
    }
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The request, signed where there is a key and the settings say what to bind it to.
async fn request(
    args: &Args,
    client: &Client,
    agent: Address,
) -> anyhow::Result<serde_json::Value> {
    let mut request = json!({"action": "cancel", "job_id": args.job});
    if !args.key.is_given() && client.key.is_none() {
        return Ok(request);
    }
    let domain = match signer::domain(&client.signing).await {
        // A node that takes everybody's jobs cancels for everybody: not worth failing for.
        Err(err) if !args.key.is_given() => {
            tracing::warn!("the request goes unsigned: {}", out::chain(&err));
            None
        }
        domain => domain?,
    };
    let (Some(domain), Some(key)) = (domain, args.key.load(client.key.as_ref())?) else {
        return Ok(request);
    };
    let at_ms = SystemClock.now().unix_ms();
    let digest = domain.control_digest("cancel", args.job.as_str(), agent, at_ms);
    request["agent"] = json!(agent);
    request["issued_at_ms"] = json!(at_ms);
    request["signature"] = json!(Signature(key.sign_digest(&digest.0)));
    Ok(request)
}
