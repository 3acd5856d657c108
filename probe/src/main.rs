//! The one program of the node's tool image: what the node has to do or see inside a container.
//!
//! It is linked statically, since the image holds nothing else, and embedded in the node (`build.rs`). The node
//! starts it by its path in the image with a subcommand; its answer is its standard output and its exit code:
//! 0, 1 if it could not do what it was asked to (the reason is on standard error), 64 if it does not know the
//! subcommand.
//!
//! Must hold: it takes orders from its arguments alone, and trusts no environment and no file of a job's.

mod addresses;
mod fence;
mod hold;
mod netfilter;
mod prefix;
mod raw;
mod sandbox;

use std::io::Write as _;
use std::process::ExitCode;

/// Exit code for arguments that it does not know (`EX_USAGE`).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match (command.as_str(), args.as_slice()) {
        ("hold", []) => hold::forever(),
        ("fence", refused) => fence::raise(refused),
        ("addresses", []) => addresses::tell(),
        ("sandbox", []) => sandbox::try_all().map_err(|err| err.to_string()),
        ("sandbox-hog", []) => {
            sandbox::hog();
            Ok(())
        }
        ("sandbox-whoami", []) => sandbox::whoami().map_err(|err| err.to_string()),
        _ => return ExitCode::from(USAGE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Nobody may listen any more.
            writeln!(std::io::stderr(), "{reason}").ok();
            ExitCode::FAILURE
        }
    }
}
