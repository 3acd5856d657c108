//! `hub`: runs the hub, takes the original monitor's file over, copies the database, gives a node a secret, enrolls
//! one ([`enroll`]), lets people log in ([`people`]), checks rules and tries them on the past ([`past`]), recomputes records from the chain
//! ([`rebuild`]).

mod enroll;
mod past;
mod people;
mod rebuild;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::logging::Audience;
use super::{Misused, Unavailable, block_on, load, out, run};
use crate::clock::{Clock as _, SystemClock};
use crate::config;
use crate::fleet::{beat, words};
use crate::hub::api::auth;
use crate::hub::api::enroll::new_secret;
use crate::hub::store::{self, Store, beside, import};
use crate::hub::{self, Links, Settings};

/// Arguments of `hub`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take the nodes of an original monitor's database over; the hub must not run
    Import {
        /// The original's file, `monitor.db`
        file: PathBuf,
    },
    /// Copy the hub's database into a new file, while the hub runs
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Give a node a secret of its own and show it once; the shared one is not taken for that node any more
    NodeSecret {
        /// The node's name, the `NODE_ID` of its agent
        node: String,
    },
    /// Make a code with which a node gets a secret of its own, or have a node's key speak for it
    Enroll(enroll::Args),
    /// Recompute uptime and scores of all nodes from the contract's events
    Rebuild(rebuild::Args),
    /// Let people log in
    Person {
        #[command(subcommand)]
        action: people::Action,
    },
    /// Look at rules
    Rules {
        #[command(subcommand)]
        action: RulesAction,
    },
}

#[derive(Debug, clap::Subcommand)]
enum RulesAction {
    /// Check a file of rules (`HUB_RULES`), and list what it holds
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show what rules would have told, by how nodes stood: those of `HUB_RULES`, or of a file
    Test(past::Args),
}

pub(super) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        None => serve(load(Audience::Owner, config::hub)?),
        Some(Action::Rebuild(args)) => block_on(rebuild::execute(&args)),
        Some(Action::Import { file }) => {
            let db = load(Audience::Client, config::hub_db)?;
            block_on(take_over(&db, &file))
        }
        Some(Action::Backup { file }) => {
            let db = load(Audience::Client, config::hub_db)?;
            back_up(&db, &file)
        }
        Some(Action::NodeSecret { node }) => {
            let db = load(Audience::Client, config::hub_db)?;
            node_secret(&db, &node)
        }
        Some(Action::Enroll(args)) => {
            let db = load(Audience::Client, config::hub_db)?;
            enroll::execute(&db, &args)
        }
        Some(Action::Person { action }) => {
            let db = load(Audience::Client, config::hub_db)?;
            people::execute(&db, action)
        }
        Some(Action::Rules { action: RulesAction::Check { file } }) => check(&file),
        Some(Action::Rules { action: RulesAction::Test(args) }) => past::execute(&args),
    }
}

fn serve((settings, links): (Settings, Links)) -> anyhow::Result<ExitCode> {
    make_folder(&settings.db, "DB_PATH")?;
    allow_connections();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the program can't start")?;
    let ended = runtime.block_on(Box::pin(hub::run(settings, links, run::first_signal())));
    ended.map_err(unavailable)?;
    Ok(ExitCode::SUCCESS)
}

/// What no restart mends has its own exit code.
fn unavailable(err: hub::Error) -> anyhow::Error {
    let is_final = matches!(
        err,
        hub::Error::Store(store::Error::InUse(_) | store::Error::Original(_))
            | hub::Error::Listen { .. }
            | hub::Error::Link(_)
    );
    let err = anyhow::Error::new(err);
    if is_final { Unavailable(out::chain(&err)).into() } else { err }
}

/// As many open files as the host allows: many hosts begin with fewer than a hub has connections.
fn allow_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now }).ok();
}

/// The folder of the database, its owner's alone.
pub(super) fn make_folder(db: &Path, setting: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(folder) = db.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("{} can't be made ({setting})", folder.display()))
}

async fn take_over(db: &Path, file: &Path) -> anyhow::Result<ExitCode> {
    if std::fs::canonicalize(db)
        .is_ok_and(|db| std::fs::canonicalize(file).is_ok_and(|it| it == db))
    {
        let text = format!(
            "DB_PATH names {} itself: set it to a file of the hub's own, or leave it out",
            file.display()
        );
        return Err(Misused(text).into());
    }
    let (nodes, unusable) = import::read(file)?;
    make_folder(db, "DB_PATH")?;
    let store = Store::open(db).context("the hub's database can't be opened")?;
    let done = store.import(nodes, SystemClock.now()).await?;
    let taken = words::nodes(done.taken);
    out::line(&format!("{taken} taken over into {}", db.display()))?;
    if done.kept > 0 {
        out::line(&format!("{} left as the hub has heard since", words::nodes(done.kept)))?;
    }
    if unusable > 0 {
        out::note(&format!("{unusable} rows have no name that can be used, and were left out"));
    }
    Ok(ExitCode::SUCCESS)
}

fn back_up(db: &Path, file: &Path) -> anyhow::Result<ExitCode> {
    if file.exists() {
        return Err(Misused(format!("{} exists already", file.display())).into());
    }
    beside::back_up(db, file)?;
    out::line(&format!("{} is copied into {}", db.display(), file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn node_secret(db: &Path, node: &str) -> anyhow::Result<ExitCode> {
    let node = beat::name(node).map_err(|err| Misused(err.to_string()))?;
    let secret = new_secret()?;
    beside::set_secret(db, &node, &auth::hash(secret.expose()), SystemClock.now())?;
    out::note(&format!(
        "the secret of {}, shown this once; put it into its agent as SHARED_SECRET:",
        out::clean(&node)
    ));
    out::line(secret.expose())?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let file = config::hub_file(file).map_err(Misused)?;
    for rule in &file.rules {
        let channels = if rule.channels.is_empty() {
            "all channels".to_owned()
        } else {
            rule.channels.join(", ")
        };
        let name = out::clean(&rule.name);
        out::line(&format!("{name}: {}, to {}", rule.severity.as_str(), out::clean(&channels)))?;
    }
    Ok(ExitCode::SUCCESS)
}
