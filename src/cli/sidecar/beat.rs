//! `sidecar beat`: one look at the watched program and one heartbeat to a hub, as the original Linux agent does it.
//!
//! Must hold: it ends within a minute, whatever the network does; it exits with 0 only if the hub took the heartbeat;
//! what could not be found out is told to nobody as DOWN.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::super::{Misused, out};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, AgentEnv, Environment};
use crate::gswarm::beat::{Beat, Monitor};
use crate::host::process::facts;
use crate::watch::checks::{Answer, judge};

/// Tries of one heartbeat, each of 8 s at most, and the time between them.
const TRIES: u32 = 4;
const BETWEEN: Duration = Duration::from_secs(2);

pub(super) async fn execute() -> anyhow::Result<ExitCode> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let settings = config::agent_env(&Environment::read(), &host).map_err(Misused)?;
    let AgentEnv { checks, mut beat, monitor, warnings } = settings;
    for warning in warnings {
        out::note(&format!("warning: {}", out::clean(&warning)));
    }
    let looked = checks.clone();
    let looked = tokio::task::spawn_blocking(move || facts(&looked, &SystemClock)).await;
    let found = looked.context("this machine can't be looked at")?;
    match judge(&checks, &found) {
        Answer::Up => {}
        Answer::Down(reason) => {
            beat.set_down(&reason.to_string());
            out::note(reason.remedy());
        }
        Answer::Unknown { what, why } => {
            return Err(anyhow!("it can't be found out {what}: {why}; no heartbeat is sent"));
        }
    }
    let said = format!("node_id={} status={} meta={}", beat.node_id, beat.status, beat.meta);
    let Some(monitor) = monitor else {
        out::line(&format!("{said}, and no SERVER_URL to tell it to"))?;
        return Ok(ExitCode::FAILURE);
    };
    post(&monitor, &beat).await?;
    out::line(&format!("beat {said}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Posts the heartbeat until it is taken, or refused for good.
async fn post(monitor: &Monitor, beat: &Beat) -> anyhow::Result<()> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match monitor.post(beat).await {
            Ok(_) => return Ok(()),
            Err(refused) if left == 0 || refused.is_final => {
                let why = out::clean(&refused.reason);
                return Err(anyhow!(
                    "the hub at {} did not take the heartbeat: {why}",
                    monitor.shown()
                ));
            }
            // A hub that asks for more time than this has gets the next heartbeat.
            Err(_) => SystemClock.sleep(BETWEEN).await,
        }
    }
}
