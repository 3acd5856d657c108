//! The check of the engine's disk: how much is free there, and who holds jobs to their `disk_mib`.

use super::{DOCKER, Finding, hasty, node_of, unset};
use crate::config::Parts;
use crate::container::docker::Docker;
use crate::container::{ContainerRuntime as _, Error};
use crate::host;

/// Tries whether the engine holds layers to a size, and measures its disk.
pub(super) async fn disk(parts: &Parts) -> Finding {
    let (Some(config), Some(settings)) = (&parts.docker, &parts.settings) else { return unset() };
    let looked = async {
        let docker = Docker::connect(&hasty(config))?;
        let engine = docker.engine().await?;
        let held = docker.tries_to_hold_a_layer(node_of(parts), "doctor-layer").await?;
        Ok::<_, Error>((engine, held, docker.root_folder().await?))
    };
    let (engine, held, root) = match looked.await {
        Ok(looked) => looked,
        Err(err) => return Finding::failed(err, DOCKER),
    };
    let (kind, folder) = (&engine.storage_driver, engine.root_dir.display());
    let free = root.and_then(|root| host::disk_free_mib(&root).ok());
    let space = free.map(|mib| format!(", {mib} MiB free")).unwrap_or_default();
    let how = if held {
        "the engine holds each job's layer to its disk_mib, and the node watches the sum"
    } else {
        "the engine holds no layer to a size (btrfs, or overlay2 on XFS with pquota, would): the node \
         watches and stops jobs above their disk_mib"
    };
    let text = format!("{kind} in {folder}{space}; {how}");
    let min = settings.disk_free_min_mib;
    if free.is_some_and(|free| free < min) {
        let text = format!("{text}; images and layers have less than {min} MiB left");
        return Finding::fail(text, "make room there: no job is taken (DISK_FREE_MIN_MIB)");
    }
    Finding::ok(text)
}
