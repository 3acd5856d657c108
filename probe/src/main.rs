//! The one program of the node's tool image: it does everything that the node needs done inside a container.
//!
//! It is linked statically, since the image has no libraries, and embedded in the node (`build.rs`). The node
//! starts it by its path in the image with a subcommand; its answer is its standard output and its exit code:
//! 0, 1 if the subcommand failed (the reason is on standard error), 64 if there is no such subcommand.
//!
//! Must hold: it takes orders only from its arguments, and trusts neither its environment nor files of a job.

mod addresses;
mod fence;
mod groups;
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
        ("remove-groups", [folder, paths @ ..]) => groups::remove(folder, paths),
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
            // The reader may be gone.
            writeln!(std::io::stderr(), "{reason}").ok();
            ExitCode::FAILURE
        }
    }
}
