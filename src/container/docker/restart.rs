//! Asks the engine to start a container of somebody else again.

use std::time::Duration;

use bollard::query_parameters::RestartContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker as Client};

use super::CLIENT_TIMEOUT_S;

/// How long the container gets to end by itself, in seconds.
const STOP_S: i32 = 30;

/// How long the engine may take.
const WITHIN: Duration = Duration::from_secs(90);

/// Restarts a container by its name or id, in the engine of this host. The error is one sentence.
pub async fn restart(container: &str) -> Result<(), String> {
    let socket = std::path::Path::new("/var/run/docker.sock");
    let client = Client::connect_with_unix(&socket.to_string_lossy(), CLIENT_TIMEOUT_S, API_DEFAULT_VERSION);
    let client = client.map_err(|err| format!("the container engine can't be asked: {err}"))?;
    let options = RestartContainerOptionsBuilder::default().t(STOP_S).build();
    let call = client.restart_container(container, Some(options));
    match tokio::time::timeout(WITHIN, call).await {
        Err(_) => Err("the container engine did not answer in time".to_owned()),
        Ok(Err(err)) => Err(format!("the container engine refused: {err}")),
        Ok(Ok(())) => Ok(()),
    }
}
