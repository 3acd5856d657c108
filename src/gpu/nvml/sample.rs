//! Samples of the cards: load, memory, power, temperature, errors, processes.
//!
//! Invariant: a missing value comes with the reason. A card that was there before and can't be reached any
//! more is reported as well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::Nvml as Library;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;

use super::devices::{self, Card, Found};
use super::library::{reading, unknown};
use crate::node::GpuUuid;
use crate::node::card::{CardProcess, Reading, Round, Rows, Sample, Slowed, Unknown};

/// Time between two slow readings. An H100's energy takes 5 ms of the driver's time, its errors and rows up
/// to 3 ms each: for eight cards each second that would be a tenth of a core.
const SLOW_EVERY: Duration = Duration::from_mins(1);
/// A card has at most a few hundred contexts; a count above this is not believed.
const PROCESSES_MAX: u32 = 4096;
/// No chip works at more degrees than this; a higher reading is not believed.
const CELSIUS_MAX: u32 = 250;

/// Values kept from one round for the next.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The devices that the card at each index last gave.
    seen: BTreeMap<u32, Vec<GpuUuid>>,
    slow: BTreeMap<GpuUuid, (Instant, Slow)>,
}

/// The slow readings, which are taken seldom.
#[derive(Debug, Clone)]
struct Slow {
    energy_mj: Reading<u64>,
    uncorrected_errors: Reading<u64>,
    rows: Reading<Rows>,
}

/// Asks all cards once.
pub(super) fn read(library: &Library, remembered: &mut Remembered) -> Result<Round, NvmlError> {
    let count = devices::count(library)?;
    let mut round = Round::new();
    for index in 0..count {
        match Card::at(library, index) {
            Ok(card) => {
                let slow = remembered.slow(&card.whole);
                for found in card.devices() {
                    round.insert(found.uuid.clone(), sample(&card, found, slow.clone()));
                }
                let given = card.devices().iter().map(|found| found.uuid.clone()).collect();
                remembered.seen.insert(index, given);
            }
            Err(why) => remembered.miss(index, &why, &mut round),
        }
    }
    // A driver may no longer count a card that fell off the bus.
    let gone: Vec<u32> = remembered.seen.range(count..).map(|(index, _)| *index).collect();
    for index in gone {
        remembered.miss(index, &Unknown::Lost, &mut round);
    }
    Ok(round)
}

/// The energy of these devices, asked now.
pub(super) fn energy(
    library: &Library,
    wanted: &[GpuUuid],
) -> Result<BTreeMap<GpuUuid, Reading<u64>>, NvmlError> {
    let mut told = BTreeMap::new();
    for index in 0..devices::count(library)? {
        let Ok(card) = Card::at(library, index) else { continue };
        for found in card.devices() {
            if !wanted.contains(&found.uuid) {
                continue;
            }
            // As in a sample: the energy of the whole card is not its instance's.
            let energy = if found.uuid == card.whole.uuid {
                told_u64(found.device.total_energy_consumption())
            } else {
                Err(Unknown::NotSupported)
            };
            told.insert(found.uuid.clone(), energy);
        }
    }
    Ok(told)
}

impl Remembered {
    /// Reports this for the devices that the card at this index gave, unless another index has them now.
    fn miss(&self, index: u32, why: &Unknown, round: &mut Round) {
        for uuid in self.seen.get(&index).into_iter().flatten() {
            round.entry(uuid.clone()).or_insert_with(|| Err(why.clone()));
        }
    }

    fn slow(&mut self, whole: &Found<'_>) -> Slow {
        if let Some((taken, slow)) = self.slow.get(&whole.uuid)
            && taken.elapsed() < SLOW_EVERY
        {
            return slow.clone();
        }
        let device = &whole.device;
        let uncorrected = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
        let slow = Slow {
            energy_mj: told_u64(device.total_energy_consumption()),
            uncorrected_errors: told_u64(uncorrected),
            rows: rows(device),
        };
        self.slow.insert(whole.uuid.clone(), (Instant::now(), slow.clone()));
        slow
    }
}

fn sample(card: &Card<'_>, found: &Found<'_>, slow: Slow) -> Reading<Sample> {
    let (own, whole) = (&found.device, &card.whole.device);
    let memory = reading(own.memory_info());
    if matches!(memory, Err(Unknown::Lost)) {
        return Err(Unknown::Lost);
    }
    let sample = Sample {
        busy_percent: reading(own.utilization_rates()).and_then(|told| at_most(told.gpu, 100)),
        used_bytes: memory.clone().and_then(|memory| is_told(memory.used)),
        free_bytes: memory.and_then(|memory| is_told(memory.free)),
        power_mw: told_u32(own.power_usage()),
        energy_mj: slow.energy_mj,
        sm_mhz: told_u32(whole.clock_info(Clock::SM)),
        memory_mhz: told_u32(whole.clock_info(Clock::Memory)),
        celsius: reading(whole.temperature(TemperatureSensor::Gpu))
            .and_then(|told| at_most(told, CELSIUS_MAX)),
        slowed: reading(whole.current_throttle_reasons()).map(slowed),
        uncorrected_errors: slow.uncorrected_errors,
        rows: slow.rows,
        processes: processes(own),
    };
    if found.uuid == card.whole.uuid {
        return Ok(sample);
    }
    // The power of the whole card is not the instance's, and would be counted once for each instance.
    let absent = Unknown::NotSupported;
    Ok(Sample { power_mw: Err(absent.clone()), energy_mj: Err(absent), ..sample })
}

fn slowed(reasons: ThrottleReasons) -> Slowed {
    let thermal = ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    Slowed {
        thermal: reasons.intersects(thermal),
        power_brake: reasons.intersects(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
    }
}

/// The binding has no call for remapped rows; the same counters are field values.
fn rows(device: &Device<'_>) -> Reading<Rows> {
    let fields = [field_id::NVML_FI_DEV_REMAPPED_PENDING, field_id::NVML_FI_DEV_REMAPPED_FAILURE];
    let told = reading(device.field_values_for(&fields.map(FieldId)))?;
    let [pending, failed] = <[_; 2]>::try_from(told)
        .map_err(|_| Unknown::Failed("the driver told other fields".to_owned()))?;
    let is_set = |field: Result<nvml_wrapper::struct_wrappers::device::FieldValueSample, _>| {
        reading(field.and_then(|field| field.value)).and_then(|value| match value {
            SampleValue::U32(count) => Ok(count > 0),
            SampleValue::U64(count) => Ok(count > 0),
            SampleValue::I64(count) => Ok(count > 0),
            SampleValue::F64(count) => Err(Unknown::Failed(format!("{count} rows"))),
        })
    };
    Ok(Rows { pending: is_set(pending)?, failed: is_set(failed)? })
}

/// Processes with a compute or a graphics context, each once, with its memory in both.
fn processes(device: &Device<'_>) -> Reading<Vec<CardProcess>> {
    let believed = |count: u32| match count {
        0..=PROCESSES_MAX => Ok(()),
        _ => Err(Unknown::Failed(format!("the driver told {count} processes"))),
    };
    let mut held: BTreeMap<u32, Reading<u64>> = BTreeMap::new();
    let counted = reading(device.running_compute_processes_count())?;
    believed(counted)?;
    if counted > 0 {
        add(&mut held, reading(device.running_compute_processes())?);
    }
    match reading(device.running_graphics_processes_count()) {
        Ok(0) | Err(Unknown::NotSupported) => {}
        Ok(counted) => {
            believed(counted)?;
            add(&mut held, reading(device.running_graphics_processes())?);
        }
        Err(why) => return Err(why),
    }
    Ok(held.into_iter().map(|(pid, bytes)| CardProcess { pid, bytes }).collect())
}

/// A process with both kinds of context is in both lists with the same sum, so the larger one counts.
fn add(held: &mut BTreeMap<u32, Reading<u64>>, told: Vec<ProcessInfo>) {
    for process in told {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Ok(bytes),
            UsedGpuMemory::Unavailable => Err(Unknown::NotSupported),
        };
        let entry = held.entry(process.pid).or_insert_with(|| bytes.clone());
        if let (Ok(known), Ok(more)) = (&*entry, &bytes)
            && more > known
        {
            *entry = bytes;
        }
    }
}

fn told_u32(answer: Result<u32, NvmlError>) -> Reading<u32> {
    at_most(answer.map_err(unknown)?, u32::MAX - 1)
}

fn told_u64(answer: Result<u64, NvmlError>) -> Reading<u64> {
    is_told(answer.map_err(unknown)?)
}

/// The library writes all ones instead of a missing value.
fn is_told(value: u64) -> Reading<u64> {
    if value == u64::MAX { Err(Unknown::NotSupported) } else { Ok(value) }
}

/// A value that can be true.
fn at_most(value: u32, most: u32) -> Reading<u32> {
    match value {
        u32::MAX => Err(Unknown::NotSupported),
        _ if value > most => Err(Unknown::Failed(format!("the driver told {value}"))),
        _ => Ok(value),
    }
}
