//! Lists the cards, with everything about them that does not change.

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};

use super::devices::{self, Card, Found};
use super::library::{reading, unknown};
use crate::node::card::{Facts, Reading, Unknown};
use crate::node::{Gpu, GpuInventory};
use crate::report::one_line;

const MIB: u64 = 1024 * 1024;
/// More characters than a model's or version's name has; a longer one is cut.
const NAME_MAX: usize = 96;

/// Asks for all facts that do not change while the cards work.
pub(super) fn read(library: &Library) -> Result<GpuInventory, NvmlError> {
    let cuda = library.sys_cuda_driver_version()?;
    let mut inventory = GpuInventory {
        driver: one_line(&library.sys_driver_version()?, NAME_MAX),
        cuda: format!("{}.{}", cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)),
        ..GpuInventory::default()
    };
    for index in 0..devices::count(library)? {
        if let Err(reason) = add(&mut inventory, library, index) {
            tracing::warn!(gpu.index = index, "GPU {index} is left out: {reason}");
            inventory.left_out.push(format!("GPU {index} is left out: {reason}"));
        }
    }
    inventory.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    Ok(inventory)
}

/// Adds the card at this index, or its instances.
fn add(inventory: &mut GpuInventory, library: &Library, index: u32) -> Result<(), Unknown> {
    let card = Card::at(library, index)?;
    let facts = facts(&card);
    if card.devices().is_empty() {
        let why = "it is split (MIG) and has no instance: create some, or switch MIG off";
        return Err(Unknown::Failed(why.to_owned()));
    }
    for found in card.devices() {
        let (gpu, shares) = gpu(found)?;
        if inventory.facts.contains_key(&gpu.uuid) {
            // Two jobs would be given the same card.
            return Err(Unknown::Failed(format!("its UUID {} is another one's too", gpu.uuid)));
        }
        let is_instance = gpu.uuid != card.whole.uuid;
        let parent = is_instance.then(|| card.whole.uuid.clone());
        inventory.share_memory.extend(shares.then(|| gpu.uuid.clone()));
        inventory.facts.insert(gpu.uuid.clone(), Facts { parent, ..facts.clone() });
        inventory.gpus.push(gpu);
    }
    Ok(())
}

/// The device, and whether it uses the host's memory instead of its own.
fn gpu(found: &Found<'_>) -> Result<(Gpu, bool), Unknown> {
    let model = one_line(&found.device.name().map_err(unknown)?, NAME_MAX);
    let (bytes, shares) = match found.device.memory_info() {
        Ok(memory) => (memory.total, false),
        // A chip with both CPU and GPU, such as GB10: they share one memory.
        Err(NvmlError::NotSupported) => (host_memory(), true),
        Err(err) => return Err(unknown(err)),
    };
    Ok((Gpu { uuid: found.uuid.clone(), model, vram_mib: bytes / MIB }, shares))
}

fn facts(card: &Card<'_>) -> Facts {
    let device = &card.whole.device;
    Facts {
        pci: reading(device.pci_info()).and_then(|pci| address(&pci.bus_id)),
        compute_capability: reading(device.cuda_compute_capability())
            .map(|version| format!("{}.{}", version.major, version.minor)),
        power_limit_mw: reading(device.enforced_power_limit()),
        ecc: reading(device.is_ecc_enabled()).map(|mode| mode.currently_enabled),
        mig: card.mig.clone(),
        persistence: reading(device.is_in_persistent_mode()),
        minor: reading(device.minor_number()).and_then(minor),
        parent: None,
    }
}

/// The number of a card's device node, if it can be one: the driver keeps those above for itself.
fn minor(number: u32) -> Reading<u32> {
    const CARDS: u32 = 250;
    if number < CARDS {
        return Ok(number);
    }
    Err(Unknown::Failed(format!("the number of its device node is {number}")))
}

/// An address on the PCI bus, if it looks like one.
fn address(text: &str) -> Reading<String> {
    let plain = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    if text.is_empty() || !plain {
        return Err(Unknown::Failed(format!("its PCI address is {:?}", one_line(text, NAME_MAX))));
    }
    Ok(text.to_owned())
}

/// The host's memory in bytes.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
