//! `events`: shows what nodes tell of themselves and of their jobs. With `--json` each line is an event as it
//! was sent. `events redis on|off` turns a node's Redis sink on or off while it runs.
//!
//! Nothing here is signed: whoever may publish on the server can make up events.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::logging::Audience;
use super::signer::{self, KeyArgs};
use super::{Misused, follow, load, out, the_agent, unless_interrupted};
use crate::backoff::Backoff;
use crate::bus::{Bus, DeliveryMode, EventStream, Start};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::fleet::{Event, Level};
use crate::ids::{Address, JobId, Signature};

/// Time limit for the node's answer, which it gives at once.
const ANSWER: Duration = Duration::from_secs(10);

/// The wait before a broken stream is requested again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
    /// Go on with new events, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// With `--follow`: only events from now on
    #[arg(long, requires = "follow")]
    no_replay: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only events about this job
    #[arg(long, value_name = "ID")]
    job: Option<JobId>,
    /// Only events that matter at least so much: debug, info, warning, error or critical
    #[arg(long, value_name = "LEVEL", default_value = "debug")]
    level: Level,
    /// Only this node's events
    #[arg(long, value_name = "ADDRESS")]
    node: Option<Address>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Turn the Redis sink of a running node on or off, until it restarts
    Redis(RedisArgs),
}

#[derive(Debug, clap::Args)]
struct RedisArgs {
    /// Whether the node writes to Redis
    state: State,
    /// The node (default: `AGENT_ADDRESS`, or that of the key)
    #[arg(long, value_name = "ADDRESS")]
    node: Option<Address>,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object, for programs: the node's answer
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    On,
    Off,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        let is_of_job = self.job.as_ref().is_none_or(|job| event.job_id.as_ref() == Some(job));
        is_of_job && event.level >= self.level
    }
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    if let Some(Action::Redis(args)) = &args.action {
        return redis(args, &client).await;
    }
    if client.bus.mode == DeliveryMode::Core && !args.follow {
        let text = "with NATS_MODE=core no events are kept: --follow shows new ones";
        return Err(Misused(text.to_owned()).into());
    }
    let bus = follow::connect(&client.bus).await?;
    unless_interrupted(show(&bus, &args)).await
}

async fn show(bus: &Bus, args: &Args) -> anyhow::Result<ExitCode> {
    let node = args.filter.node;
    let start = if args.no_replay { Start::New } else { Start::Oldest };
    let mut events = bus.events(node, start, args.follow).await?;
    let (mut last, mut failures) = (None, 0);
    loop {
        match events.next().await {
            Ok(None) => return Ok(ExitCode::SUCCESS),
            Ok(Some((event, body))) => {
                (last, failures) = (events.last().or(last), 0);
                if args.filter.takes(&event) {
                    line(&event, &body, args.json)?;
                }
            }
            Err(err) if args.follow && err.is_transient() => {
                failures += 1;
                tracing::warn!("following the events failed, trying again: {err}");
                tokio::time::sleep(AGAIN.jittered(failures)).await;
                events = again(bus, node, last.map_or(start, Start::After), events).await;
            }
            Err(err) => return Err(err.into()),
        }
    }
}

/// The stream from where it broke; the broken one if that can't be had now.
async fn again(bus: &Bus, node: Option<Address>, start: Start, broken: EventStream) -> EventStream {
    bus.events(node, start, true).await.unwrap_or(broken)
}

fn line(event: &Event, body: &[u8], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return Ok(out::json(&serde_json::from_slice::<Value>(body)?)?);
    }
    let (at, level, node) = (event.timestamp, event.level.as_str(), event.node);
    let what = format!("{}/{}", event.component, event.event_type);
    let message = out::clean(event.message());
    Ok(out::line(&format!("{at} {level:<8} {node} {what:<18} {message}"))?)
}

async fn redis(args: &RedisArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let key = args.key.load(client.key.as_ref())?;
    let key = key.context("the node's key or its owner's signs this: --keystore FILE")?;
    let node = the_agent(args.node, client.agent.or_else(|| Some(key.address())))?;
    let domain = signer::domain(&client.signing).await?;
    let domain = domain.context("REPUTATION_CONTRACT_ADDRESS is what the request is signed for")?;
    let (is_on, at_ms) = (args.state == State::On, SystemClock.now().unix_ms());
    let word = if is_on { "on" } else { "off" };
    let digest = domain.control_digest("redis", word, node, at_ms);
    let request = json!({
        "action": "redis", "on": is_on, "agent": node, "issued_at_ms": at_ms,
        "signature": Signature(key.sign_digest(&digest.0)),
    });
    let bus = Bus::connect(&client.bus).await?;
    let body = bus.control(node, request.to_string().into_bytes().into(), ANSWER).await?;
    let answer: Value =
        serde_json::from_slice(&body).context("the node's answer is not a valid reply")?;
    let is_done = answer["ok"] == true;
    if args.json {
        out::json(&answer)?;
    } else if is_done {
        out::line(&format!("ok: the Redis sink of {node} is {word}"))?;
    } else {
        let text = |key: &str| out::clean(answer[key].as_str().unwrap_or_default());
        out::note(&format!("not done: {}: {}", text("reason_code"), text("error")));
    }
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
