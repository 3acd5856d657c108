//! The command line: one file a subcommand.
//!
//! What must hold: only this folder prints, by way of `out`; results go to standard output, all
//! else to standard error; what strangers wrote is printed without its control characters. Exit
//! codes: 0 done, 1 not done (a job that did not complete, a receipt that does not hold, `doctor`'s
//! warnings), 2 `doctor`'s failures, 3 an end that nobody who may has signed, 64 wrong settings or
//! arguments, 69 a start that can't be helped by waiting, 130 a Ctrl-C before what was waited for.

mod authority;
mod cancel;
mod claim;
mod contract;
mod doctor;
mod follow;
mod jobs;
mod judge;
mod key;
mod logging;
mod logs;
mod out;
mod receipt;
mod run;
mod signer;
mod store;
mod submit;
mod verify;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::agent;
use crate::config::{self, Env, Environment, Problems};
use crate::ids::Address;
use logging::Audience;

/// An end of a job that could not be verified.
const UNVERIFIED: u8 = 3;
/// What shells say of a command that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of sysexits(3).
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
    /// Show what nodes say of jobs, as they say it
    Watch(watch::Args),
    /// Show what a job writes
    Logs(logs::Args),
    /// Cancel a job
    Cancel(cancel::Args),
    /// Show what this node knows of its jobs, and what to do about those that failed
    Jobs(jobs::Args),
    /// Serve a small IPFS store: a stand-in for the pinning service and its gateway
    Store(store::Args),
    /// Check everything that a node needs
    Doctor(doctor::Args),
    /// Make, import or look at a key
    Key(key::Args),
    /// Deploy the reputation contract, or show what it says
    Contract(contract::Args),
    /// Show what this node signed about jobs, and prove that the chain holds it
    Receipt(receipt::Args),
    /// Check a signed receipt, or a proof that the chain holds one
    Verify(verify::Args),
}

/// What only the arguments can mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// A start that can't be helped by waiting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unavailable(String);

/// The arguments, or the exit code of a call that was a question or a mistake.
pub fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|err| {
        err.print().ok();
        if err.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS }
    })
}

/// Does what the arguments say.
pub fn execute(args: Args) -> anyhow::Result<ExitCode> {
    forbid_looking_into_memory();
    match args.command {
        Command::Run(args) => run::execute(&args),
        Command::Submit(args) => block_on(submit::execute(*args)),
        Command::Watch(args) => block_on(watch::execute(args)),
        Command::Logs(args) => block_on(logs::execute(args)),
        Command::Cancel(args) => block_on(cancel::execute(args)),
        Command::Jobs(args) => jobs::execute(&args),
        Command::Store(args) => block_on(store::execute(args)),
        Command::Doctor(args) => block_on(doctor::execute(args)),
        Command::Key(args) => key::execute(args),
        Command::Contract(args) => block_on(contract::execute(args)),
        Command::Receipt(args) => receipt::execute(args),
        Command::Verify(args) => block_on(verify::execute(args)),
    }
}

/// A core dump would hold the key, and so would what another program of this user could read of
/// this one's memory.
fn forbid_looking_into_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).ok();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
}

/// Says on standard error what went wrong, and with which code the program ends for it.
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

/// What the work comes to, or that the user did not wait for it (Ctrl-C).
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

/// Reads the settings that a command needs, and begins to log as they say. Every problem of theirs
/// is told at once.
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

/// The node that a command is about.
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
