//! `logs`: shows what a job writes, live. Once the job has ended, it shows the kept log, whose CID the node
//! signed. The live log is not authenticated: anybody on the server can add to it.
//!
//! Must hold: without `--raw` no character of a log reaches the terminal that it would obey.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::follow::{self, Follower, Line, News};
use super::judge::{Judge, Patience};
use super::logging::Audience;
use super::{UNVERIFIED, load, out, unless_interrupted, watch};
use crate::artifact::Gateways;
use crate::bus::{PoolName, StatusFilter};
use crate::config::Client;
use crate::ids::{Address, Cid, JobId};
use crate::job::Status;

/// Upper bound on a kept log; the node caps logs well below it.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long to wait for the live log's last lines after the last status.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    #[arg(value_name = "JOB_ID")]
    job: JobId,
    /// The node that runs or ran it (default: any, and `AGENT_ADDRESS` for the kept log)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool")]
    agent: Option<Address>,
    /// The pool that it was submitted to
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Print what the job wrote as it is: its escape sequences then move your terminal's cursor, and more
    #[arg(long)]
    raw: bool,
}

/// How much of the live log was shown.
#[derive(Debug, Default)]
struct Live {
    raw: bool,
    last_seq: u64,
    missing: bool,
}

impl Live {
    fn show(&mut self, line: &Line) -> std::io::Result<()> {
        match line {
            Line::Text { seq, line, .. } => {
                self.missing |= *seq != self.last_seq + 1;
                self.last_seq = *seq;
                show(line, self.raw)
            }
            Line::Gap { .. } => {
                self.missing = true;
                Ok(())
            }
        }
    }
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let client = load(Audience::Client, Client::read)?;
    let bus = follow::connect(&client.bus).await?;
    let judge = Judge::new(watch::authority(&bus, args.agent, args.pool, &client)?);
    let filter = StatusFilter { agent: args.agent, job: Some(args.job) };
    let follower = Follower::start(&bus, filter, true, true).await?;
    let shown = Live { raw: args.raw, ..Live::default() };
    unless_interrupted(follow(follower, judge, shown, &client)).await
}

/// Shows the log until the job's end is believed or no believable end is expected.
async fn follow(
    mut follower: Follower,
    mut judge: Judge,
    mut shown: Live,
    client: &Client,
) -> anyhow::Result<ExitCode> {
    let mut patience = Patience::default();
    let ended = loop {
        tokio::select! {
            news = follower.next() => match news? {
                News::Log(line) => shown.show(&line)?,
                News::Status(status, body) if status.stage.is_terminal() => {
                    judge.hear(status, body);
                }
                News::Status(..) => {}
            },
            judged = judge.next() => {
                let status = judged.status;
                let Some(why) = judged.doubt else { break status };
                let (agent, why) = (status.agent_address, out::clean(&why));
                out::note(&format!("an end that {agent} told of is not verified: {why}"));
                if judged.is_last_word {
                    patience.begin();
                }
            }
            () = patience.over() => return Ok(UNVERIFIED.into()),
        }
    };
    for line in follower.last_lines(LAST_LINES).await {
        shown.show(&line)?;
    }
    finish(&ended, &shown, client).await
}

/// Shows the kept log if the live one was incomplete.
async fn finish(ended: &Status, live: &Live, client: &Client) -> anyhow::Result<ExitCode> {
    let Some(cid) = &ended.log_cid else {
        if live.last_seq == 0 {
            out::note(&format!("job {} left no log", ended.job_id));
        }
        return Ok(ExitCode::SUCCESS);
    };
    if live.last_seq > 0 && !live.missing {
        return Ok(ExitCode::SUCCESS);
    }
    if live.last_seq > 0 {
        out::note(&format!("lines are missing above; the whole log, {cid}:"));
    }
    let kept = kept(cid, client).await?;
    if live.raw {
        out::raw(&kept)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in String::from_utf8_lossy(&kept).lines().flat_map(steps) {
        out::line(&out::clean(line))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(line: &str, raw: bool) -> std::io::Result<()> {
    if raw { out::raw(format!("{line}\n").as_bytes()) } else { out::line(&out::clean(line)) }
}

/// Splits a line as the live log does, where each step of a progress bar is a line.
fn steps(line: &str) -> impl Iterator<Item = &str> {
    let is_bar = line.trim_end_matches('\r').contains('\r');
    line.split('\r')
        .enumerate()
        .filter(move |(at, step)| !step.is_empty() || (*at == 0 && !is_bar))
        .map(|(_, step)| step)
}

async fn kept(cid: &Cid, client: &Client) -> anyhow::Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("log");
    let fetched = Gateways::new(&client.artifact)?.fetch(cid, &path, LOG_BYTES_MAX, |_| ()).await;
    fetched.with_context(|| format!("the log {cid} could not be fetched"))?;
    std::fs::read(&path).with_context(|| format!("{cid} is not a log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[u64]) -> Live {
        let mut log = Live::default();
        for seq in lines {
            let (stream, line) = ("stdout".to_owned(), "x".to_owned());
            log.show(&Line::Text { seq: *seq, stream, line }).unwrap();
        }
        log
    }

    #[test]
    fn a_live_log_knows_whether_it_is_whole() {
        assert!(!shown(&[1, 2, 3]).missing);
        assert!(shown(&[2, 3]).missing);
        assert!(shown(&[1, 3]).missing);
        let mut gap = shown(&[1]);
        gap.show(&Line::Gap { dropped: 5 }).unwrap();
        assert!(gap.missing);
    }
}
