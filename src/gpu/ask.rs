//! Runs one of NVIDIA's programs for its answer.
//!
//! Invariants: the answer is bounded, and the program gets nothing of the agent's environment. The caller has
//! the deadline: a program whose answer is waited for no more is killed.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::report::one_line;

/// Where programs find others: the container runtime asks `runc`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program prints with these arguments, at most this many bytes; or why it does not, as a clause. One
/// that hangs in the driver can't be killed, and is waited for by nobody.
pub(super) async fn ask(
    program: &Path,
    arguments: &[&str],
    bytes_max: u64,
) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|err| format!("it can't be started: {err}"))?;
    let mut answer = Vec::new();
    if let Some(out) = child.stdout.take() {
        let read = out.take(bytes_max + 1).read_to_end(&mut answer).await;
        read.map_err(|err| format!("its answer can't be read: {err}"))?;
    }
    if answer.len() as u64 > bytes_max {
        return Err(format!("its answer is longer than {bytes_max} bytes"));
    }
    let answer = String::from_utf8(answer).map_err(|_| "its answer is no text".to_owned())?;
    let status = child.wait().await.map_err(|err| format!("its end is not known: {err}"))?;
    if !status.success() {
        return Err(format!("{status}: {}", one_line(&answer, 200)));
    }
    Ok(answer)
}
