//! The program: parses the arguments, runs the command and exits with its code.

use std::process::ExitCode;

use lamda_node::{cli, failpoint, http};

fn main() -> ExitCode {
    http::install_crypto();
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

/// Arms the failpoint that a test names in `LAMDA_FAILPOINT`; without effect in a release build.
#[expect(clippy::disallowed_methods, reason = "not a setting: only tests use it")]
fn arm_failpoint() {
    if let Ok(place) = std::env::var("LAMDA_FAILPOINT") {
        failpoint::arm(&place);
    }
}
