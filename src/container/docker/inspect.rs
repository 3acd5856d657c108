//! One container as the engine knows it.

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptions;

use super::super::Error;
use super::{Docker, fault, within};

/// The container's current state; `None` if there is no such container.
pub(super) async fn inspect(
    docker: &Docker,
    name_or_id: &str,
) -> Result<Option<ContainerInspectResponse>, Error> {
    let client = docker.client().await?;
    let call = client.inspect_container(name_or_id, None::<InspectContainerOptions>);
    match within(docker.config.call_timeout, call).await {
        Ok(found) => Ok(Some(found)),
        Err(err) if fault::status(&err) == Some(404) => Ok(None),
        Err(err) => Err(docker.fault(err)),
    }
}
