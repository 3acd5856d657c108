//! What the node offers to all jobs together.

use super::settings::Settings;
use crate::host;
use crate::node::Gpu;
use crate::node::admission::Offer;

/// Memory that stays the host's own, in per cent.
const HOST_MEMORY_PERCENT: u64 = 10;

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
        disk_mib: settings.disk_limits().for_jobs(disk_free, engines_room),
        network: settings.network,
        slots,
    })
}
