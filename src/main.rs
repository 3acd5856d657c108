//! The program: parses its arguments, does what they say, exits with what came of it.

use std::process::ExitCode;

use lamda_node::{artifact, cli};

fn main() -> ExitCode {
    artifact::install_crypto();
    let args = match cli::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match cli::execute(args) {
        Ok(code) => code,
        Err(error) => cli::tell(&error),
    }
}
