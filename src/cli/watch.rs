//! `watch`: what nodes say of jobs. With `--json` each line is a status as it was sent.

use std::process::ExitCode;

use super::follow::{self, Follower, News};
use super::logging::Audience;
use super::submit::describe;
use super::{load, out};
use crate::bus::StatusFilter;
use crate::config::Client;
use crate::job::JobId;
use crate::job::status::Stage;
use crate::node::Address;

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this job; ends with it, with exit code 0 where it completed
    #[arg(value_name = "JOB_ID")]
    job: Option<JobId>,
    /// Only what this node says
    #[arg(long, value_name = "ADDRESS")]
    agent: Option<Address>,
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
    let one_job = args.job.is_some();
    let filter = StatusFilter { agent: args.agent, job: args.job };
    let mut follower = Follower::start(&bus, filter, !args.no_replay, false).await?;
    let mut gone = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            _ = &mut gone => return Ok(ExitCode::SUCCESS),
        };
        let News::Status(status, body) = news else { continue };
        if args.json {
            out::json(&body)?;
        } else {
            let (agent, job) = (status.agent_address, &status.job_id);
            let cid = status.output_cid.map(|cid| format!(" {cid}")).unwrap_or_default();
            out::line(&format!("{agent} {job} {}{cid}", describe(&status)))?;
        }
        if one_job && status.stage.is_terminal() {
            let completed = status.stage == Stage::Completed;
            return Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}
