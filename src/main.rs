//! The program: parses its arguments, does what they say, exits with what came of it.

use std::process::ExitCode;

use lamda_node::{artifact, cli, failpoint};

fn main() -> ExitCode {
    artifact::install_crypto();
    arm_failpoint();
    let args = match cli::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match cli::execute(args) {
        Ok(code) => code,
        Err(error) => cli::tell(&error),
    }
}

/// Tests say here where the program is to die; in a release build nothing listens.
#[expect(clippy::disallowed_methods, reason = "no setting: nobody but a test has a use for it")]
fn arm_failpoint() {
    if let Ok(place) = std::env::var("LAMDA_FAILPOINT") {
        failpoint::arm(&place);
    }
}
