//! The command line: one module per subcommand.
//!
//! Invariants: only `out` prints, and only this folder uses it. Results go to standard output, everything
//! else to standard error. Text that strangers wrote is printed without control characters.
//!
//! Exit codes: 0 done; 1 not done (a job that did not complete, an invalid receipt, warnings of `doctor`, a way out
//! that `sandbox-test` finds); 2
//! failures of `doctor`; 3 an end of a job that no authorized node has signed; 64 wrong settings or
//! arguments; 69 a start that waiting can't help; 130 a Ctrl-C before the command was finished.

mod authority;
mod cancel;
mod contract;
mod disk;
mod doctor;
mod events;
mod follow;
mod gpus;
mod hub;
mod jobs;
mod judge;
mod key;
mod logging;
mod logs;
mod out;
mod receipt;
mod receipt_check;
mod run;
mod sandbox_test;
mod sidecar;
mod signer;
mod store;
mod submit;
mod usage;
mod usage_check;
mod verify;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::agent;
use crate::config::{self, Env, Environment, Problems};
use crate::ids::Address;
use logging::Audience;

/// Exit code for a job whose end could not be verified.
const UNVERIFIED: u8 = 3;
/// The exit code that shells report for a command ended by SIGINT.
const INTERRUPTED: u8 = 130;
/// `EX_USAGE` of sysexits(3): wrong settings or arguments.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of sysexits(3): a start that waiting can't help.
const UNAVAILABLE: u8 = 69;

/// Take compute jobs, run them on this machine's GPUs, and earn a reputation for it.
///
/// Settings come from the environment and from `.env` in the working directory; `.env.example`
/// explains each.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node: take jobs until it is stopped
    Run(run::Args),
    /// Submit a job to a node or a pool
    Submit(Box<submit::Args>),
    /// Show the statuses that nodes publish about jobs, live
    Watch(watch::Args),
    /// Show what a job writes
    Logs(logs::Args),
    /// Shows what a job used, as its node published it
    Usage(usage::Args),
    /// Cancel a job
    Cancel(cancel::Args),
    /// Show what this node knows about its jobs, and what to do about those that failed
    Jobs(jobs::Args),
    /// Show this host's GPUs: what each is, who holds it, whether it is well, and what to do if not
    Gpus(gpus::Args),
    /// Show what the node keeps on its disks, and remove images that nobody needs
    Disk(disk::Args),
    /// Show what nodes tell of themselves and of their jobs
    Events(events::Args),
    /// Watch many nodes: take their beats, show them on a page, and tell people
    Hub(hub::Args),
    /// Watch programs that somebody else wrote: do they run, train, publish, earn?
    Sidecar(sidecar::Args),
    /// Serve a small IPFS store: a stand-in for the pinning service and its gateway
    Store(store::Args),
    /// Check everything that a node needs
    Doctor(doctor::Args),
    /// Try from inside a container what a job shall not be able to do
    SandboxTest(sandbox_test::Args),
    /// Make, import or look at a key
    Key(key::Args),
    /// Deploy the reputation contract, or show what it says
    Contract(contract::Args),
    /// Show the receipts that this node signed, and prove that the chain holds them
    Receipt(receipt::Args),
    /// Check a signed receipt, or a proof that the chain holds one
    Verify(verify::Args),
}

/// A wrong call: only other arguments or settings can help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// A start that fails for a reason that waiting can't help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unavailable(String);

/// Parses the arguments. `Err` holds the exit code if the call asked for help or was wrong; the text is
/// already printed.
pub fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|err| {
        err.print().ok();
        if err.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS }
    })
}

/// Runs the subcommand.
pub fn execute(args: Args) -> anyhow::Result<ExitCode> {
    forbid_looking_into_memory();
    match args.command {
        Command::Run(args) => run::execute(&args),
        Command::Submit(args) => block_on(submit::execute(*args)),
        Command::Watch(args) => block_on(watch::execute(args)),
        Command::Logs(args) => block_on(logs::execute(args)),
        Command::Usage(args) => block_on(usage::execute(args)),
        Command::Cancel(args) => block_on(cancel::execute(args)),
        Command::Jobs(args) => jobs::execute(&args),
        Command::Gpus(args) => block_on(gpus::execute(args)),
        Command::Disk(args) => disk::execute(&args),
        Command::Events(args) => block_on(events::execute(args)),
        Command::Hub(args) => hub::execute(args),
        Command::Sidecar(args) => sidecar::execute(args),
        Command::Store(args) => block_on(store::execute(args)),
        Command::Doctor(args) => block_on(doctor::execute(args)),
        Command::SandboxTest(args) => block_on(sandbox_test::execute(args)),
        Command::Key(args) => key::execute(args),
        Command::Contract(args) => block_on(contract::execute(args)),
        Command::Receipt(args) => receipt::execute(args),
        Command::Verify(args) => block_on(verify::execute(args)),
    }
}

/// Disables core dumps and reading of this process's memory by other programs of the same user: either could
/// reveal the key.
fn forbid_looking_into_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).ok();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
}

/// Prints the error to standard error and returns the exit code for it.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    if out::is_closed_pipe(error) {
        return ExitCode::FAILURE;
    }
    out::note(&format!("error: {}", out::chain(error)));
    code_of(error).into()
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Problems>() || error.is::<Misused>() || error.is::<config::KeyError>() {
        return USAGE;
    }
    match error.downcast_ref::<agent::Error>() {
        Some(agent::Error::Pool(_)) => USAGE,
        Some(_) => UNAVAILABLE,
        None if error.is::<Unavailable>() => UNAVAILABLE,
        None => 1,
    }
}

/// Runs `work` to its end, unless the user interrupts it (Ctrl-C).
async fn unless_interrupted(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED.into()),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the program can't start")?.block_on(Box::pin(work))
}

/// Reads the settings that a command needs and starts logging as they say. Reports all problems of the
/// settings at once.
fn load<T>(
    audience: Audience,
    read: impl FnOnce(&mut Env<'_>) -> Result<T, Problems>,
) -> anyhow::Result<T> {
    let environment = Environment::read();
    let mut env = Env::new(&environment);
    env.note(environment.problems());
    env.warn_of(environment.warnings());
    let logging = config::logging(&mut env);
    let settings = read(&mut env)?;
    if let Some(logging) = logging {
        logging::start(&logging, audience);
    }
    for warning in env.take_warnings() {
        match audience {
            Audience::Owner => tracing::warn!("{warning}"),
            Audience::Client => tracing::debug!("{warning}"),
        }
    }
    Ok(settings)
}

/// The node that a command is about: the one named on the command line, else the one of the settings.
fn the_agent(named: Option<Address>, set: Option<Address>) -> anyhow::Result<Address> {
    let text = "which node? Name it with --agent ADDRESS or set AGENT_ADDRESS";
    Ok(named.or(set).ok_or_else(|| Misused(text.to_owned()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn each_kind_of_end_has_its_exit_code() {
        let no_gpu = anyhow::Error::new(agent::Error::NoGpu(None));
        assert_eq!(code_of(&no_gpu.context("the start")), 69);
        assert_eq!(code_of(&Misused("x".into()).into()), 64);
        assert_eq!(code_of(&Problems(Vec::new()).into()), 64);
        assert_eq!(code_of(&anyhow::anyhow!("x")), 1);
    }
}
