//! The program: parses its arguments, does what they say, exits with what came of it.

use std::process::ExitCode;

use lamda_node::{artifact, cli, failpoint};

fn main() -> ExitCode {
    artifact::install_crypto();
    // A test's; a release build has no such places.
    if let Ok(place) = std::env::var("LAMDA_FAILPOINT") {
        failpoint::arm(&place);
    }
    let args = match cli::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match cli::execute(args) {
        Ok(code) => code,
        Err(error) => cli::tell(&error),
    }
}
