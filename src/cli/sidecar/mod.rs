//! `sidecar`: watches programs that somebody else wrote, checks profiles and configurations, finds what there is to
//! watch on this machine ([`discover`]), records what was seen and replays it.

mod beat;
mod discover;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};

use super::logging::Audience;
use super::{Misused, Unavailable, block_on, load, out, run};
use crate::config;
use crate::sidecar::{self, Links, Settings, record, store};

/// Arguments of `sidecar`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// What is watched: a sidecar.toml, or the original side car's config.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Look at the program once and post one heartbeat to a hub, by the settings of the original Linux agent
    Beat,
    /// Look what runs on this machine, and print the configuration that watches it
    Discover(discover::Args),
    /// Check a profile or a configuration, and say what is wrong with it
    Check {
        /// A profile, a sidecar.toml or a config.yaml
        file: PathBuf,
    },
    /// Print one of the profiles that this program brings, as a start for your own
    Profile {
        /// Its name; without one: all names
        name: Option<String>,
    },
    /// Write what was seen of a program into a new folder, without personal data
    Record {
        /// The program's name in the configuration
        program: String,
        /// The new folder
        folder: PathBuf,
        /// What is watched
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Judge what a recording holds once more, and print each verdict
    Replay {
        /// The folder
        folder: PathBuf,
    },
}

pub(super) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        None => {
            let named = args.config;
            serve(load(Audience::Owner, |env| config::sidecar(env, named.as_deref()))?)
        }
        Some(Action::Beat) => block_on(beat::execute()),
        Some(Action::Discover(args)) => block_on(discover::execute(args)),
        Some(Action::Check { file }) => check(&file),
        Some(Action::Profile { name }) => profile(name.as_deref()),
        Some(Action::Record { program, folder, config }) => {
            let read = |env: &mut config::Env<'_>| config::sidecar_past(env, config.as_deref());
            let (db, file) = load(Audience::Client, read)?;
            if !file.programs.iter().any(|it| it.name == program) {
                return Err(Misused(format!("no [[watch]] has the name {program:?}")).into());
            }
            let count = record::record(&db, &program, &folder);
            let count = count.map_err(|err| anyhow!(err)).context("nothing was recorded")?;
            out::line(&format!("{count} observations are in {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Action::Replay { folder }) => {
            let differ = record::replay(&folder, |line| out::line(line).map_err(Into::into));
            let differ =
                differ.map_err(|err| anyhow!(err)).context("the recording can't be replayed")?;
            if differ > 0 {
                out::note(&format!("{differ} verdicts differ from those that were recorded"));
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve((settings, links): (Settings, Links)) -> anyhow::Result<ExitCode> {
    super::hub::make_folder(&settings.db, "SIDECAR_DB")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("the program can't start")?;
    let ended = runtime.block_on(Box::pin(sidecar::run(settings, links, run::first_signal())));
    ended.map_err(unavailable)?;
    Ok(ExitCode::SUCCESS)
}

/// What no restart mends has its own exit code.
fn unavailable(err: sidecar::Error) -> anyhow::Error {
    let is_final = matches!(
        err,
        sidecar::Error::Store(
            store::Error::InUse(_) | store::Error::Foreign(_) | store::Error::Broken(_)
        ) | sidecar::Error::Listen { .. }
            | sidecar::Error::Link(_)
    );
    let err = anyhow::Error::new(err);
    if is_final { Unavailable(out::chain(&err)).into() } else { err }
}

/// What a file is, by what stands in it, and what is wrong with it.
fn check(file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let folder = load(Audience::Client, config::sidecar_profiles)?;
    let told = config::check_sidecar_file(file, folder.as_deref()).map_err(Misused)?;
    for line in told {
        out::line(&out::clean(&line))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn profile(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let shelf = crate::watch::profile::Shelf::default();
    let Some(name) = name else {
        for name in shelf.names() {
            let about = shelf.get(name).map(|profile| profile.about).unwrap_or_default();
            out::line(&format!("{name}: {about}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let text = shelf.text(name).ok_or_else(|| {
        let names: Vec<&str> = shelf.names().collect();
        Misused(format!("there is no such profile, only {}", names.join(", ")))
    })?;
    out::line(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
