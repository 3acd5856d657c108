//! `sidecar discover`: what runs on this machine, as a configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;

use super::super::{Misused, out};
use crate::clock::SystemClock;
use crate::container::docker;
use crate::host::lookaround::{Asked, look_around};
use crate::watch::discover::discover;
use crate::watch::pattern::Pattern;

/// Arguments of `sidecar discover`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folders of programs, besides the usual ones
    folders: Vec<PathBuf>,
    /// A part of the command line of any other program, as a regular expression
    #[arg(long, value_name = "PATTERN")]
    command: Option<String>,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let command = args.command.as_deref().map(Pattern::new).transpose();
    let command = command.map_err(|err| Misused(format!("--command: {err}")))?;
    let home = std::env::home_dir().map(|home| home.join("rl-swarm"));
    let folders = args.folders.into_iter().chain(home.filter(|home| home.is_dir())).collect();
    let asked = Asked { folders, command };
    let looked = tokio::task::spawn_blocking(move || look_around(&SystemClock, &asked)).await;
    let mut found = looked.map_err(|err| anyhow!("the machine can't be looked at: {err}"))?;
    match docker::listed().await {
        Ok(containers) => {
            let each = containers.into_iter().map(|it| crate::watch::discover::Container {
                id: it.id,
                name: it.name,
                image: it.image,
                mounts: it.mounts,
            });
            found.containers = each.collect();
        }
        Err(why) => found.could_not.push(why),
    }
    let discovery = discover(&found);
    out::line(discovery.toml.trim_end())?;
    for missing in &discovery.missing {
        out::note(&out::clean(missing));
    }
    Ok(if discovery.proposals.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
