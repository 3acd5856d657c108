//! What the node offers to all jobs together.

use std::time::Duration;

use super::settings::Settings;
use super::stock;
use crate::container::ContainerRuntime;
use crate::host;
use crate::node::Gpu;
use crate::node::admission::Offer;

/// Time limit for the engine to say how much room it has; without that only `DATA_DIR`'s disk is offered.
const ENGINE: Duration = Duration::from_secs(3);

/// Memory that stays the host's own, in per cent.
const HOST_MEMORY_PERCENT: u64 = 10;

/// MiB that can be free on the engine's disk, once every image that this node pulled has gone; `None` if the
/// engine does not say.
pub(super) async fn engines_room<R: ContainerRuntime>(runtime: &R) -> Option<u64> {
    let asked = async {
        let free = stock::engine_free(runtime).await?;
        stock::room_with_images(runtime, free).await
    };
    tokio::time::timeout(ENGINE, asked).await.ok().flatten()
}

/// What the node offers to jobs, by what the host has now and by its owner's settings.
pub(super) fn of(
    settings: &Settings,
    gpus: Vec<Gpu>,
    engines_room: Option<u64>,
) -> std::io::Result<Offer> {
    let cores = host::cores();
    let slots = settings.slots.unwrap_or(if gpus.is_empty() { cores } else { gpus.len() });
    let memory_mib = host::memory_mib();
    let disk_free = host::disk_free_mib(&settings.data_dir)?;
    Ok(Offer {
        gpus,
        milli_cpus: cores as u64 * 1000,
        memory_mib: memory_mib - memory_mib * HOST_MEMORY_PERCENT / 100,
        disk_mib: settings.disk_limits().offered(disk_free, engines_room),
        bridge: settings.allow_bridge,
        slots,
    })
}
