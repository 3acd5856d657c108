//! Other people's libraries in Python (`eth-account`, `eth-utils`, `rfc8785`), asked what they make
//! of what this program wrote.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program of `tests/oracle` says to `input`; ends the test where it fails.
pub(crate) fn python(program: &str, args: &[&str], input: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".tools/nv/bin/python");
    assert!(python.is_file(), "eth-account is missing: scripts/test installs it");
    let mut command = Command::new(python);
    command.arg(root.join("tests/oracle").join(program)).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python starts");
    let mut stdin = child.stdin.take().expect("its input is piped");
    // Who needs no input may have ended already.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
