//! The devices that jobs can get: whole cards, and the MIG instances of split cards.
//!
//! Invariant: a split card itself is not a device, with or without instances.

use nvml_wrapper::Device;
use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::NvmlError;

use super::library::{in_words, reading, unknown};
use crate::node::GpuUuid;
use crate::node::card::{Reading, Unknown};
use crate::report::one_line;

/// A card has at most 7 instances today; more indices than this are not looked at.
const INSTANCES_MAX: u32 = 64;

/// More cards than a host has; a higher count is not believed.
const CARDS_MAX: u32 = 256;

/// How many cards the driver has.
pub(super) fn count(library: &Library) -> Result<u32, NvmlError> {
    Ok(library.device_count()?.min(CARDS_MAX))
}

/// A whole card, or an instance of one.
#[derive(Debug)]
pub(super) struct Found<'l> {
    /// Its UUID.
    pub(super) uuid: GpuUuid,
    /// The driver's handle for questions about it.
    pub(super) device: Device<'l>,
}

/// A card and its devices.
#[derive(Debug)]
pub(super) struct Card<'l> {
    /// The card itself.
    pub(super) whole: Found<'l>,
    /// Whether it is split into MIG instances.
    pub(super) mig: Reading<bool>,
    /// Its instances if it is split.
    pub(super) instances: Vec<Found<'l>>,
}

impl<'l> Card<'l> {
    /// The card at an index, or the reason why it can't be used, as a clause.
    pub(super) fn at(library: &'l Library, index: u32) -> Result<Self, Unknown> {
        Self::of(library.device_by_index(index).map_err(unknown)?)
    }

    /// The card of this handle.
    pub(super) fn of(device: Device<'l>) -> Result<Self, Unknown> {
        let whole = Found::new(device)?;
        let mig = mig(&whole.device);
        let instances = if mig == Ok(true) { instances(&whole.device)? } else { Vec::new() };
        Ok(Self { whole, mig, instances })
    }

    /// The devices of this card that jobs can get.
    pub(super) fn devices(&self) -> &[Found<'l>] {
        match self.mig {
            Ok(true) => &self.instances,
            _ => std::slice::from_ref(&self.whole),
        }
    }
}

impl<'l> Found<'l> {
    fn new(device: Device<'l>) -> Result<Self, Unknown> {
        let uuid = device.uuid().map_err(unknown)?;
        let uuid = GpuUuid::new(&uuid)
            .ok_or_else(|| Unknown::Failed(format!("its UUID is {:?}", one_line(&uuid, 100))))?;
        Ok(Self { uuid, device })
    }
}

/// Whether the card is split now; a mode that takes effect at the next reset does not count.
fn mig(device: &Device<'_>) -> Reading<bool> {
    match reading(device.mig_mode())?.current {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Unknown::Failed(format!("its MIG mode is {other}"))),
    }
}

/// The instances of a card. Destroyed ones leave gaps in the indices.
fn instances<'l>(device: &Device<'l>) -> Result<Vec<Found<'l>>, Unknown> {
    let most = device.mig_device_count().map_err(unknown)?;
    let mut found = Vec::new();
    for index in 0..most.min(INSTANCES_MAX) {
        match device.mig_device_by_index(index) {
            Ok(instance) => found.push(Found::new(instance)?),
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => {}
            Err(err) => return Err(Unknown::Failed(in_words(err))),
        }
    }
    Ok(found)
}
