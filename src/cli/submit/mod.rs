//! `submit`: does for one job what a dispatcher does.
//!
//! With `--json` every line of standard output is one object with an `event`:
//!
//! | event | keys |
//! |---|---|
//! | `input` | `cid`, `bytes` |
//! | `unfit` | `pool`, `nodes`: how many nodes of the pool are present, none of which could run the job |
//! | `submitted` | `job_id`, `target`, `spec_hash`, `signed_by`?, `stream_seq`? |
//! | `status` | `status`: the message of docs/protocol.md, section 2 |
//! | `unverified` | `status`: an end that is not believed; `problem`: why |
//! | `log` | `seq`, `stream`, `line`, or `dropped` |
//! | `receipt` | `valid`, `problem`?, `receipt`?: docs/protocol.md, section 3 |
//! | `fetched` | `cid`, `path`, `bytes` |
//! | `detached` | `job_id`: it was left running |
//! | `result` | `job_id`, `status`, `reason_code`?, `error`?, `exit_code`?, `output_cid`? |

mod body;
mod fits;
mod input;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::authority::Authority;
use super::follow::{self, Follower, News};
use super::judge::Judge;
use super::logging::Audience;
use super::receipt_check::{self, Expected, Verdict};
use super::signer::{self, KeyArgs};
use super::{INTERRUPTED, Misused, load, the_agent, unless_interrupted};
use crate::artifact::Gateways;
use crate::bus::{Bus, PoolName, StatusFilter, Target};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::Client;
use crate::host;
use crate::ids::{Address, Cid, Domain, JobId};
use crate::job::Status;
use crate::job::status::Stage;
use report::Report;
pub(super) use report::{describe, stage_name};

/// How long to wait for the live log's last lines after the last status.
const LAST_LINES: Duration = Duration::from_millis(200);
const MIB: u64 = 1024 * 1024;

/// Arguments of `submit`.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own on the command line"
)]
pub(super) struct Args {
    /// The container image, such as docker.io/library/python:3.12
    #[arg(long, value_name = "REFERENCE")]
    image: String,
    /// The job's input, shown at /input/input: a CID, or a file or folder to upload first
    #[arg(long, value_name = "FILE|DIR|CID")]
    input: Option<String>,
    /// Where the job leaves its output, if not in /output/output or /output
    #[arg(long, value_name = "PATH")]
    output_path: Option<String>,
    /// The node that shall run it (default: `AGENT_ADDRESS`)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    agent: Option<Address>,
    /// The pool of nodes, one of which shall run it
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// A node of the pool whose word counts though it does not hold the job's claim (repeatable)
    #[arg(long, value_name = "ADDRESS", requires = "pool")]
    signer: Vec<Address>,
    #[command(flatten)]
    needs: body::Needs,
    #[command(flatten)]
    key: KeyArgs,
    /// Don't sign the job, though there is a key
    #[arg(long, conflicts_with = "keystore")]
    unsigned: bool,
    /// Show the job's stages and what it writes until it has ended
    #[arg(long)]
    follow: bool,
    /// Fetch the verified output into this folder (follows the job)
    #[arg(long, value_name = "DIR")]
    fetch: Option<PathBuf>,
    /// Print what the job writes as it is: its escape sequences then move your terminal's cursor, and more
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
    /// Replaces the image's command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let target = match &args.pool {
        Some(pool) => Target::Pool(pool.clone()),
        None => Target::Agent(the_agent(args.agent, client.agent)?),
    };
    let fetch_to = args.fetch.as_deref().map(|dir| fetch_path(dir, args.output_path.as_deref()));
    let fetch_to = fetch_to.transpose()?;
    let (key, domain) = signer(&args, &client).await?;
    let mut report = Report::new(args.json, args.raw);

    let input = match &args.input {
        Some(input) => Some(input::resolve(input, &client, &mut report).await?),
        None => None,
    };
    let mut draft = body::Draft::new(&args, input.as_ref())?;
    if let (Some(key), Some(domain)) = (&key, &domain) {
        draft.sign(key, domain, &target, SystemClock.now());
    }
    let job = draft.finish()?;

    let bus = follow::connect(&client.bus).await?;
    let following = args.follow || fetch_to.is_some();
    // Start before the job is sent, so that no status is missed.
    let follower = if following {
        Some(Follower::start(&bus, filter(&target, &job.id), true, true).await?)
    } else {
        None
    };
    if let Target::Pool(pool) = &target {
        fits::tell(&bus, pool, &job, &report).await?;
    }
    let seq = publish(&bus, &target, &job, key.map(|key| key.address()), &report).await?;
    let Some(follower) = follower else { return Ok(ExitCode::SUCCESS) };
    let agent = match &target {
        Target::Agent(agent) => Some(*agent),
        Target::Pool(_) => None,
    };
    let expected = Expected { spec_hash: Some(job.spec_hash), agent, domain };
    let named = agent.into_iter().chain(args.signer).collect();
    let authority = Authority::new(&bus, named, args.pool, domain, &client.signing)?;
    let Some(ended) = follow_to_the_end(follower, Judge::new(authority), &mut report).await? else {
        report.detached(&job.id, &whose(&target), &cancelling(&job.id, &target, seq))?;
        return Ok(INTERRUPTED.into());
    };
    unless_interrupted(finish(&ended, &expected, fetch_to.as_deref(), &client, &mut report)).await
}

fn filter(target: &Target, job: &JobId) -> StatusFilter {
    let agent = match target {
        Target::Agent(agent) => Some(*agent),
        Target::Pool(_) => None,
    };
    StatusFilter { agent, job: Some(job.clone()) }
}

/// The signing key and the domain of its signature. A key of the settings is not used if they do not name a
/// domain; a key given on the command line must be usable.
async fn signer(
    args: &Args,
    client: &Client,
) -> anyhow::Result<(Option<crate::chain::Key>, Option<Domain>)> {
    if args.unsigned || (client.key.is_none() && !args.key.is_given()) {
        // The domain also serves to check the receipt, if it is known without asking the chain.
        return Ok((None, signer::known_domain(&client.signing)));
    }
    let domain = signer::domain(&client.signing).await?;
    if domain.is_none() && args.key.is_given() {
        let text = "to sign the job, set REPUTATION_CONTRACT_ADDRESS, and CHAIN_ID or \
                    OPBNB_RPC_URL";
        return Err(Misused(text.to_owned()).into());
    }
    match domain {
        Some(_) => Ok((args.key.load(client.key.as_ref())?, domain)),
        None => Ok((None, None)),
    }
}

/// The path for the fetched output, named as in the job. Fails if it exists.
fn fetch_path(dir: &Path, output_path: Option<&str>) -> anyhow::Result<PathBuf> {
    let name = output_path.and_then(|path| Path::new(path).file_name());
    let path = dir.join(name.unwrap_or("output".as_ref()));
    if path.symlink_metadata().is_ok() {
        let text = format!("{} exists; --fetch never writes over anything", path.display());
        return Err(Misused(text).into());
    }
    Ok(std::path::absolute(path)?)
}

/// Publishes the job; returns its sequence number in the queue, if any.
async fn publish(
    bus: &Bus,
    target: &Target,
    job: &body::Job,
    signed_by: Option<Address>,
    report: &Report,
) -> anyhow::Result<Option<u64>> {
    // JetStream drops a message with the same id within two minutes, so repeating the command does not submit
    // the job twice.
    let msg_id = format!("{}:{}", job.id, job.spec_hash);
    let published = bus.publish_job(target, job.body.clone().into(), &msg_id).await;
    let published = published.context("NATS did not accept the job")?;
    let by = signed_by.map(|address| format!(", signed by {address}")).unwrap_or_default();
    let again = if published.duplicate { " (it was there already)" } else { "" };
    let seq = published.stream_seq;
    let number = seq.map(|seq| format!(", number {seq} of the queue")).unwrap_or_default();
    report.event(
        "submitted",
        &json!({
            "job_id": job.id, "target": target.to_string(), "spec_hash": job.spec_hash,
            "signed_by": signed_by, "stream_seq": seq,
        }),
        &format!("job {} is submitted to {target}{by}{number}{again}", job.id),
    )?;
    Ok(seq)
}

/// The arguments that name the job's node or pool.
fn whose(target: &Target) -> String {
    match target {
        Target::Agent(agent) => format!(" --agent {agent}"),
        Target::Pool(pool) => format!(" --pool {pool}"),
    }
}

/// The command that cancels the job.
fn cancelling(job: &JobId, target: &Target, seq: Option<u64>) -> String {
    let seq = seq.map(|seq| format!(" --seq {seq}"));
    let seq = seq.filter(|_| matches!(target, Target::Pool(_))).unwrap_or_default();
    format!("lamda-node cancel {job}{}{seq}", whose(target))
}

/// Follows the job to a terminal status that is believed; `None` if the user interrupts. Ends that are not
/// believed are reported and skipped, or anybody who can publish could end the following.
async fn follow_to_the_end(
    mut follower: Follower,
    mut judge: Judge,
    report: &mut Report,
) -> anyhow::Result<Option<Status>> {
    report.busy("waiting for a node");
    let mut gone = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let judged = tokio::select! {
            news = follower.next() => {
                match news? {
                    News::Log(line) => report.log(&line)?,
                    News::Status(status, body) if status.stage.is_terminal() => {
                        judge.hear(status, body);
                    }
                    News::Status(status, body) => report.status(&status, &body)?,
                }
                continue;
            }
            judged = judge.next() => judged,
            _ = &mut gone => return Ok(None),
        };
        let (status, body) = (judged.status, judged.body);
        if let Some(why) = judged.doubt {
            report.unverified(&status, &body, &why)?;
            continue;
        }
        for line in follower.last_lines(LAST_LINES).await {
            report.log(&line)?;
        }
        report.status(&status, &body)?;
        return Ok(Some(*status));
    }
}

/// Checks the receipt, fetches the output, and reports the result.
async fn finish(
    ended: &Status,
    expected: &Expected,
    fetch_to: Option<&Path>,
    client: &Client,
    report: &mut Report,
) -> anyhow::Result<ExitCode> {
    let verdict = receipt_check::check(ended, expected);
    report.receipt(&verdict, expected.domain.is_some())?;
    let good = ended.stage == Stage::Completed && !matches!(verdict, Verdict::Invalid(_));
    if let (true, Some(path), Some(cid)) = (good, fetch_to, &ended.output_cid) {
        fetch(cid, path, client, report).await?;
    }
    report.result(ended)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fetch(cid: &Cid, path: &Path, client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let dir = path.parent().context("the output's path has no parent folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("no folder {}", dir.display()))?;
    let bytes_max = host::disk_free_mib(dir)?.saturating_mul(MIB);
    let gateways = Gateways::new(&client.artifact)?;
    let progress = report.transfer(&format!("fetching {cid}"), None);
    let fetched = input::patiently(async || gateways.fetch(cid, path, bytes_max, &progress).await);
    let fetched =
        fetched.await.with_context(|| format!("the output {cid} could not be fetched"))?;
    report.quiet();
    report.event(
        "fetched",
        &json!({"cid": cid, "path": path, "bytes": fetched.bytes}),
        &format!("output: {} ({} bytes, verified)", path.display(), fetched.bytes),
    )?;
    Ok(())
}

/// Parses a time, or a span from now.
fn parse_deadline(text: &str) -> Result<Timestamp, String> {
    if let Ok(span) = crate::config::parse_duration(text) {
        return Ok(SystemClock.now().plus(span));
    }
    text.parse()
        .map_err(|_| "neither a time such as 2026-11-22T00:00:00Z nor a span such as 2h".into())
}

/// Parses a span into whole seconds.
fn parse_timeout(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let span = crate::config::parse_duration(text).map_err(|err| err.to_string())?;
    Ok(span.as_secs())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A random job id, long enough to be unique.
fn random_id() -> anyhow::Result<JobId> {
    let digits: String = std::iter::repeat_with(fastrand::alphanumeric).take(20).collect();
    match format!("job-{}", digits.to_ascii_lowercase()).parse() {
        Ok(id) => Ok(id),
        Err(err) => bail!("{err}"),
    }
}
