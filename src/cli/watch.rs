//! `watch`: what nodes say of jobs. With `--json` each line is a status as it was sent.
//!
//! Of one job it ends with the job, and only what its node signed counts as its end. Of many it shows
//! what is said, and which ends are not signed by the node that they name.

use std::process::ExitCode;

use super::authority::{Authority, Patience};
use super::follow::{self, Follower, News};
use super::logging::Audience;
use super::submit::describe;
use super::{UNVERIFIED, claim, load, out, signer};
use crate::bus::{Bus, PoolName, StatusFilter};
use crate::config::Client;
use crate::job::status::Stage;
use crate::job::{JobId, Status};
use crate::node::Address;

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this job; ends with it, with exit code 0 where it completed, and 3 where its end can't be
    /// verified
    #[arg(value_name = "JOB_ID")]
    job: Option<JobId>,
    /// Only what this node says (default for whose word ends a job: `AGENT_ADDRESS`)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    agent: Option<Address>,
    /// The pool that the job was submitted to: its end is what the node says that has it
    #[arg(long, value_name = "NAME", requires = "job")]
    pool: Option<PoolName>,
    /// Begin with what was said before (this is the default)
    #[arg(long, overrides_with = "no_replay")]
    replay: bool,
    /// Only what is said from now on
    #[arg(long)]
    no_replay: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let bus = follow::connect(&client.bus).await?;
    let authority = authority(&bus, args.agent, args.pool, &client)?;
    let one_job = args.job.is_some();
    let filter = StatusFilter { agent: args.agent, job: args.job };
    let mut follower = Follower::start(&bus, filter, !args.no_replay, false).await?;
    let mut patience = Patience::default();
    let mut gone = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            () = patience.over() => return Ok(UNVERIFIED.into()),
            _ = &mut gone => return Ok(ExitCode::SUCCESS),
        };
        let News::Status(status, body) = news else { continue };
        let unsigned = status.stage.is_terminal() && claim::forged(&status, &body, None).is_some();
        if args.json {
            out::json(&body)?;
        } else {
            out::line(&line(&status, unsigned))?;
        }
        if !one_job || !status.stage.is_terminal() {
            continue;
        }
        match authority.fault(&status, &body).await? {
            None if status.stage == Stage::Completed => return Ok(ExitCode::SUCCESS),
            None => return Ok(ExitCode::FAILURE),
            Some(why) => {
                out::note(&format!("not verified: {}", out::clean(&why)));
                patience.begin();
            }
        }
    }
}

fn line(status: &Status, unsigned: bool) -> String {
    let (agent, job) = (status.agent_address, &status.job_id);
    let cid = status.output_cid.map(|cid| format!(" {cid}")).unwrap_or_default();
    let warning = if unsigned { " [not signed by this node]" } else { "" };
    format!("{agent} {job} {}{cid}{warning}", describe(status))
}

/// Whose word ends a job that is only looked on: the node that was named, else the settings', or
/// whichever has it in the pool.
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
