//! `cancel`: asks a node to end a job. A pool's job that no node has is removed from the queue.
//!
//! With `--json` it prints one object: the node's answer (docs/protocol.md, section 1) or one of the same
//! form. It has `withdrawn` and `stream_seq` if the job was removed from the queue, and then `asked`
//! (`agent`, `ok`, `error`?) if a node claimed in a status that it was working on the job.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::logging::Audience;
use super::signer::{self, KeyArgs};
use super::{follow, load, out, the_agent};
use crate::bus::{Bus, Hint, PoolName, Recall};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::ids::{Address, JobId, Signature};

/// A node answers once it has decided, which may have to wait for a container's start.
const ANSWER: Duration = Duration::from_secs(30);

/// Arguments of `cancel`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    #[arg(value_name = "JOB_ID")]
    job: JobId,
    /// The node that runs it (default: `AGENT_ADDRESS`)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    agent: Option<Address>,
    /// The pool that it was submitted to: asks the node that has it, or else removes it from the queue
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Its number in the queue, which `submit` printed (default: it is searched for)
    #[arg(long, value_name = "N", requires = "pool")]
    seq: Option<u64>,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object, for programs: the node's answer
    #[arg(long)]
    json: bool,
}

/// A node's answer, or an object of the same form made here.
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
    let Some(pool) = &args.pool else {
        let agent = the_agent(args.agent, client.agent)?;
        let bus = Bus::connect(&client.bus).await?;
        return ask(&bus, &args, &client, agent).await;
    };
    let bus = follow::connect(&client.bus).await?;
    let cancelled = format!("ok: job {} is cancelled", args.job);
    let (verdict, said) = match bus.recall(pool, &args.job, args.seq).await? {
        Recall::Ask(agent) => {
            let asked = ask(&bus, &args, &client, agent).await;
            return asked.with_context(|| format!("{agent} has job {}", args.job));
        }
        Recall::Withdrawn { seq, hint } => withdrawn(&bus, &args, &client, (seq, hint)).await,
        Recall::Hinted(agent, code, error) => {
            let answer = answer(&bus, &args, &client, agent).await;
            let verdict = match answer {
                Ok(answer) if answer["ok"] == true => {
                    if bus.is_confirmed(pool, &args.job, agent).await? {
                        answer
                    } else {
                        let why =
                            format!("{agent} says that it cancelled the job; no claim says so");
                        refusal(code, &format!("{error}; {why}"))
                    }
                }
                // The status that named this node may be anybody's, so its refusal decides nothing.
                _ => refusal(code, &error),
            };
            (verdict, cancelled)
        }
        Recall::Not(code, error) => (refusal(code, &error), String::new()),
    };
    tell(&args, &verdict, &said)
}

fn refusal(code: &str, error: &str) -> Value {
    json!({"ok": false, "reason_code": code, "error": error})
}

/// After the job was removed from the queue, tells the node of its latest status, if any. A node that gave
/// the job back publishes a last status for it; one that says it is working on it is asked to stop.
async fn withdrawn(
    bus: &Bus,
    args: &Args,
    client: &Client,
    (seq, hint): (u64, Option<Hint>),
) -> (Value, String) {
    let mut verdict = json!({"ok": true, "withdrawn": true, "stream_seq": seq});
    let text = format!("ok: job {} is taken out of the queue; ", args.job);
    let Some(Hint { agent, is_former }) = hint else {
        return (verdict, text + "no node had it");
    };
    let answer = answer(bus, args, client, agent).await;
    if is_former {
        return (verdict, text + "no node had it");
    }
    let (ok, error) = match answer {
        Ok(answer) if answer["ok"] == true => (true, None),
        Ok(answer) => (false, answer["error"].as_str().map(str::to_owned)),
        Err(err) => (false, Some(out::chain(&err))),
    };
    verdict["asked"] = json!({"agent": agent, "ok": ok});
    let text = match error {
        None if ok => format!("{text}{agent}, which says that it had it, ends it"),
        error => {
            let error = error.unwrap_or_default();
            verdict["asked"]["error"] = json!(error);
            let error = out::clean(&error);
            format!("{text}{agent} says that it had it, and does not end it: {error}")
        }
    };
    (verdict, text)
}

/// Sends the request to a node and returns its answer.
async fn answer(bus: &Bus, args: &Args, client: &Client, agent: Address) -> anyhow::Result<Value> {
    let request = request(args, client, agent).await?;
    let body = bus.control(agent, request.to_string().into_bytes().into(), ANSWER).await?;
    serde_json::from_slice(&body).context(NO_ANSWER)
}

/// Asks the node that has the job and prints the answer.
async fn ask(bus: &Bus, args: &Args, client: &Client, agent: Address) -> anyhow::Result<ExitCode> {
    let verdict = answer(bus, args, client, agent).await?;
    tell(args, &verdict, &format!("ok: job {} is cancelled", args.job))
}

const NO_ANSWER: &str = "the node's answer is not a valid reply";

/// Prints the result; `done` is the text for success.
fn tell(args: &Args, verdict: &Value, done: &str) -> anyhow::Result<ExitCode> {
    let answer = Answer::deserialize(verdict).context(NO_ANSWER)?;
    if args.json {
        out::json(verdict)?;
    } else if answer.ok {
        out::line(done)?;
    } else {
        let (code, error) = (out::clean(&answer.reason_code), out::clean(&answer.error));
        out::note(&format!("not cancelled: {code}: {error}"));
    }
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the request, signed if there is a key and the settings name a chain and contract.
async fn request(args: &Args, client: &Client, agent: Address) -> anyhow::Result<Value> {
    let mut request = json!({"action": "cancel", "job_id": args.job});
    if !args.key.is_given() && client.key.is_none() {
        return Ok(request);
    }
    let domain = match signer::domain(&client.signing).await {
        // A node that accepts unsigned jobs also accepts unsigned requests, so this is no reason to fail.
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
