//! Asks systemd to start a unit of somebody else again.
//!
//! Must hold: the unit's name is an argument of its own and never an option; the call ends within its deadline.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long systemd may take.
const WITHIN: Duration = Duration::from_secs(90);

/// Restarts a unit. The error is one sentence.
pub async fn restart(unit: &str) -> Result<(), String> {
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "restart", "--", unit]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await;
    let output = output.map_err(|_| "systemctl did not end in time".to_owned())?;
    let output = output.map_err(|err| format!("systemctl can't be called: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("systemctl refused: {}", crate::report::one_line(&said, 200)))
}
