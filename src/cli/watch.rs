//! `watch`: shows the statuses that nodes publish about jobs. With `--json` each line is a status as it was
//! sent.
//!
//! For one job it ends with the job, and only an end that the job's node signed counts. For many jobs it
//! shows every status and marks ends that are not signed by the node they name.

use std::process::ExitCode;

use super::authority::Authority;
use super::follow::{self, Follower, News};
use super::judge::{Judge, Patience};
use super::logging::Audience;
use super::submit::describe;
use super::{UNVERIFIED, load, out, receipt_check, signer, unless_interrupted};
use crate::bus::{Bus, PoolName, StatusFilter};
use crate::config::Client;
use crate::ids::{Address, JobId};
use crate::job::Status;
use crate::job::status::Stage;

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this job: ends with it, with exit code 0 if it completed, 3 if its end can't be verified, and 130
    /// on Ctrl-C
    #[arg(value_name = "JOB_ID")]
    job: Option<JobId>,
    /// Only this node's statuses (default for whose word ends a job: `AGENT_ADDRESS`)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    agent: Option<Address>,
    /// The pool that the job was submitted to: the word of the node that has it ends the job
    #[arg(long, value_name = "NAME", requires = "job")]
    pool: Option<PoolName>,
    /// Begin with earlier statuses (this is the default)
    #[arg(long, overrides_with = "no_replay")]
    replay: bool,
    /// Only statuses from now on
    #[arg(long)]
    no_replay: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let bus = follow::connect(&client.bus).await?;
    let judge = Judge::new(authority(&bus, args.agent, args.pool, &client)?);
    let one_job = args.job.is_some();
    let filter = StatusFilter { agent: args.agent, job: args.job };
    let follower = Follower::start(&bus, filter, !args.no_replay, false).await?;
    unless_interrupted(follow(follower, judge, one_job, args.json)).await
}

/// Shows the statuses; for one job, until its end is believed or no believable end is expected.
async fn follow(
    mut follower: Follower,
    mut judge: Judge,
    one_job: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut patience = Patience::default();
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            judged = judge.next() => {
                let status = &judged.status;
                let doubt = judged.doubt.or_else(|| judge.receipt_fault(status));
                let Some(why) = doubt else {
                    let completed = status.stage == Stage::Completed;
                    return Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
                };
                out::note(&format!("not verified: {}", out::clean(&why)));
                if judged.is_last_word {
                    patience.begin();
                }
                continue;
            }
            () = patience.over() => return Ok(UNVERIFIED.into()),
        };
        let News::Status(status, body) = news else { continue };
        let unsigned =
            status.stage.is_terminal() && receipt_check::forged(&status, &body, None).is_some();
        if json {
            out::json(&body)?;
        } else {
            out::line(&line(&status, unsigned))?;
        }
        if one_job && status.stage.is_terminal() {
            judge.hear(status, body);
        }
    }
}

fn line(status: &Status, unsigned: bool) -> String {
    let (agent, job) = (status.agent_address, &status.job_id);
    let cid = status.output_cid.map(|cid| format!(" {cid}")).unwrap_or_default();
    let warning = if unsigned { " [not signed by this node]" } else { "" };
    format!("{agent} {job} {}{cid}{warning}", describe(status))
}

/// Whose word ends a job that is only observed: the named node's, else that of the settings, or the holder's
/// in the pool.
pub(super) fn authority(
    bus: &Bus,
    agent: Option<Address>,
    pool: Option<PoolName>,
    client: &Client,
) -> anyhow::Result<Authority> {
    let own = if pool.is_none() { client.agent } else { None };
    let named = agent.or(own).into_iter().collect();
    Authority::new(bus, named, pool, signer::known_domain(&client.signing), &client.signing)
}
