//! What the engine knows of images.

use std::collections::HashMap;

use bollard::models::ImageInspect;
use bollard::query_parameters::ListImagesOptionsBuilder;

use super::super::Error;
use super::{Docker, fault, within};

/// The image of this name or id; `None` if the engine has none.
pub(super) async fn inspect(docker: &Docker, name: &str) -> Result<Option<ImageInspect>, Error> {
    let client = docker.client().await?;
    match within(docker.config.call_timeout, client.inspect_image(name)).await {
        Ok(found) => Ok(Some(found)),
        Err(err) if fault::status(&err) == Some(404) => Ok(None),
        Err(err) => Err(docker.fault(err)),
    }
}

/// The engine's ids of all images on this host, with their sizes in bytes.
pub(super) async fn all(docker: &Docker) -> Result<HashMap<String, u64>, Error> {
    let client = docker.client().await?;
    let options = ListImagesOptionsBuilder::default().all(true).build();
    let listed = docker.call(client.list_images(Some(options))).await?;
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    Ok(listed.into_iter().map(|image| (image.id, size(image.size))).collect())
}
