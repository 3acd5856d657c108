//! Containers of somebody else, in the engine of this host: which there are, and starting one again. For the sidecar.
//!
//! Must hold: each call ends within its deadline; of others' containers nothing is changed but by [`restart`].

use std::time::Duration;

use bollard::query_parameters::{ListContainersOptions, RestartContainerOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker as Client};

use super::CLIENT_TIMEOUT_S;

/// The engine's socket on this host.
const SOCKET: &str = "/var/run/docker.sock";

/// How long a container gets to end by itself, in seconds.
const STOP_S: i32 = 30;

/// How long the engine may take for a restart, and for a list.
const RESTART_WITHIN: Duration = Duration::from_secs(90);
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// Most containers of a list.
const LISTED_MAX: usize = 1_000;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of.
    pub image: String,
    /// Folders of this machine that it has, and where.
    pub mounts: Vec<(String, String)>,
}

/// The containers that run. The error is one sentence.
pub async fn listed() -> Result<Vec<Listed>, String> {
    let call = client()?;
    let call = call.list_containers(None::<ListContainersOptions>);
    let all = match tokio::time::timeout(LIST_WITHIN, call).await {
        Err(_) => return Err("the container engine did not answer in time".to_owned()),
        Ok(Err(err)) => return Err(format!("the container engine can't be asked: {err}")),
        Ok(Ok(all)) => all,
    };
    let listed = all.into_iter().take(LISTED_MAX).map(|it| {
        let names = it.names.unwrap_or_default();
        let name = names.first().map(|name| name.trim_start_matches('/').to_owned());
        let mounts = it.mounts.unwrap_or_default().into_iter();
        let mounts = mounts.filter_map(|it| Some((it.source?, it.destination?)));
        Listed {
            id: it.id.unwrap_or_default(),
            name: name.unwrap_or_default(),
            image: it.image.unwrap_or_default(),
            mounts: mounts.collect(),
        }
    });
    Ok(listed.collect())
}

/// Restarts a container by its name or id. The error is one sentence.
pub async fn restart(container: &str) -> Result<(), String> {
    let client = client()?;
    let options = RestartContainerOptionsBuilder::default().t(STOP_S).build();
    let call = client.restart_container(container, Some(options));
    match tokio::time::timeout(RESTART_WITHIN, call).await {
        Err(_) => Err("the container engine did not answer in time".to_owned()),
        Ok(Err(err)) => Err(format!("the container engine refused: {err}")),
        Ok(Ok(())) => Ok(()),
    }
}

fn client() -> Result<Client, String> {
    if !std::path::Path::new(SOCKET).exists() {
        return Err(format!(
            "there is no container engine at {SOCKET}: containers were not asked for"
        ));
    }
    Client::connect_with_unix(SOCKET, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        .map_err(|err| format!("the container engine can't be asked: {err}"))
}
