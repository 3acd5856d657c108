//! Independent Python libraries (`eth-account`, `eth-utils`, `rfc8785`) that check what this program wrote.

use std::path::Path;
use std::process::Command;

use super::tools::run_with_input;

/// The output of a program of `tests/oracle` for this input; panics if it fails.
pub(crate) fn python(program: &str, args: &[&str], input: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".tools/nv/bin/python");
    assert!(python.is_file(), "eth-account is missing: scripts/test installs it");
    let mut command = Command::new(python);
    command.arg(root.join("tests/oracle").join(program)).args(args);
    let output = run_with_input(&mut command, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
