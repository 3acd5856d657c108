//! The driver's events about the cards.
//!
//! Invariants: one thread waits for events, and nothing waits for that thread; a driver that hangs stops only
//! the events. The thread registers only for the types that are read here, since clocks cause an event at
//! every start and end of work. It ends soon after its receiver is dropped, or with the driver's call if that
//! one hangs.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::{Bits, NvmlError};
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{Device, EventSet, Nvml as Library};
use tokio::sync::mpsc;

use super::devices::{self, Card};
use super::library::{driver, open};
use crate::backoff::Backoff;
use crate::gpu::Error;
use crate::node::GpuUuid;
use crate::node::card::{CardEvent, Happened};

/// How long one wait for an event takes: the thread ends this long after its receiver is dropped.
const WAIT: Duration = Duration::from_millis(500);
/// Time until a driver that failed is opened again; opening it takes 15 ms and wakes up idle cards.
const REOPEN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(2));
/// Time until a card that could not be registered is tried again, with all others: while the driver is being
/// opened again it sends no event of any card.
const REGISTER_AGAIN: Duration = Duration::from_mins(10);
/// The driver can't reach the card: an event type of newer drivers that the binding has no name for.
const UNAVAILABLE: u64 = 0x4000;
/// The Xid that NVML writes if it has no number.
const XID_UNKNOWN: u64 = 999;

/// Lets one thread at a time wait for events.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Starts a thread that waits for events and sends them to the receiver.
    pub(super) fn begin(&self, candidates: Vec<OsString>, tell: mpsc::Sender<Happened>) {
        let turn = self.clone();
        let thread = std::thread::Builder::new().name("nvml-events".to_owned());
        let spawned = thread.spawn(move || turn.run(&candidates, &tell));
        if let Err(err) = spawned {
            tracing::warn!("the GPUs' events are not read: no thread for it: {err}");
        }
    }

    fn run(&self, candidates: &[OsString], tell: &mpsc::Sender<Happened>) {
        // An earlier watch whose receiver was dropped may still be in the driver.
        let _turn = loop {
            match self.0.try_lock() {
                Ok(turn) => break turn,
                Err(TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(TryLockError::WouldBlock) if tell.is_closed() => return,
                Err(TryLockError::WouldBlock) => std::thread::sleep(WAIT),
            }
        };
        let mut failures = 0;
        while !tell.is_closed() {
            let began = Instant::now();
            let Err(err) = open(candidates).and_then(|library| watch(&library, tell)) else {
                failures = 0;
                continue;
            };
            if began.elapsed() > REOPEN.max {
                failures = 0;
            }
            failures += 1;
            if failures == 1 {
                tracing::warn!("the GPUs' events can't be read for now: {err}");
            }
            rest(REOPEN.jittered(failures), tell);
        }
    }
}

/// Waits for this long, or until the receiver is dropped.
fn rest(wait: Duration, tell: &mpsc::Sender<Happened>) {
    let until = Instant::now() + wait;
    while !tell.is_closed()
        && let Some(left) = until.checked_duration_since(Instant::now())
    {
        std::thread::sleep(left.min(WAIT));
    }
}

/// Sends events until the receiver is gone, or it is time to register again.
fn watch(library: &Library, tell: &mpsc::Sender<Happened>) -> Result<(), Error> {
    let Registered { set, is_whole } = register(library).map_err(|err| driver(&err))?;
    let since = Instant::now();
    while !tell.is_closed() && (is_whole || since.elapsed() < REGISTER_AGAIN) {
        let began = Instant::now();
        match set.wait(u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX)) {
            Ok(data) => {
                for happened in told(data) {
                    if tell.blocking_send(happened).is_err() {
                        return Ok(());
                    }
                }
            }
            // A wait that returns too soon must not become a busy loop.
            Err(NvmlError::Timeout) => rest(WAIT.saturating_sub(began.elapsed()) / 2, tell),
            Err(err) => {
                if matches!(err, NvmlError::GpuLost) {
                    let lost = Happened { card: None, event: CardEvent::Unavailable };
                    let _ended = tell.blocking_send(lost);
                }
                return Err(driver(&err));
            }
        }
    }
    Ok(())
}

struct Registered<'l> {
    set: EventSet<'l>,
    /// Whether the set has every card that can send events.
    is_whole: bool,
}

/// Whether a card belongs into the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    In,
    /// The card failed, but may work the next time.
    Refused,
    /// The card has no events.
    Without,
}

/// A set with all cards that can be registered.
fn register(library: &Library) -> Result<Registered<'_>, NvmlError> {
    let mut places = vec![Place::In; devices::count(library)? as usize];
    // A failed registration frees the whole set, so the next attempt leaves that card out.
    while places.contains(&Place::In) {
        if let Some(set) = register_all(library, &mut places)? {
            return Ok(Registered { set, is_whole: !places.contains(&Place::Refused) });
        }
    }
    Err(NvmlError::NotSupported)
}

/// Registers the cards that belong into the set. `None` if there are none, or if one is refused now.
fn register_all<'l>(
    library: &'l Library,
    places: &mut [Place],
) -> Result<Option<EventSet<'l>>, NvmlError> {
    let mut set = library.create_event_set()?;
    for (index, place) in (0..).zip(places.iter_mut()).filter(|(_, place)| **place == Place::In) {
        let asked = library.device_by_index(index);
        let asked = asked.and_then(|device| Ok((wanted(&device)?, device)));
        let (types, device) = match asked {
            Ok((types, device)) if !types.is_empty() => (types, device),
            Ok(_) | Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
                *place = Place::Without;
                continue;
            }
            Err(_) => {
                *place = Place::Refused;
                continue;
            }
        };
        set = match device.register_events(types, set) {
            Ok(set) => set,
            Err(err) => {
                tracing::warn!(gpu.index = index, "GPU {index} tells no events: {}", err.error);
                *place = Place::Refused;
                return Ok(None);
            }
        };
    }
    Ok(places.contains(&Place::In).then_some(set))
}

/// The event types that are read here and that the card supports.
fn wanted(device: &Device<'_>) -> Result<EventTypes, NvmlError> {
    let supported = match device.supported_event_types_strict() {
        Ok(types) => types.bits(),
        // It has types that the binding has no name for.
        Err(NvmlError::IncorrectBits(Bits::U64(bits))) => bits,
        Err(err) => return Err(err),
    };
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    Ok(EventTypes::from_bits_retain(supported & (wanted.bits() | UNAVAILABLE)))
}

/// The meaning of one event, for each device of its card.
fn told(data: EventData<'_>) -> Vec<Happened> {
    let Some(event) = meaning(data.event_type, data.event_data.as_ref()) else { return Vec::new() };
    // A card that just fell off the bus may answer this, and nothing else.
    let uuid = data.device.uuid().ok().and_then(|uuid| GpuUuid::new(&uuid));
    let cards = match Card::of(data.device) {
        Ok(card) => card.devices().iter().map(|found| Some(found.uuid.clone())).collect(),
        Err(_) => Vec::new(),
    };
    let cards = if cards.is_empty() { vec![uuid] } else { cards };
    cards.into_iter().map(|card| Happened { card, event }).collect()
}

/// The binding drops the types that it has no name for; of these only one was registered.
fn meaning(types: EventTypes, data: Option<&XidError>) -> Option<CardEvent> {
    if types.contains(EventTypes::CRITICAL_XID_ERROR) {
        return Some(CardEvent::Xid(match data {
            Some(XidError::Value(number)) => *number,
            Some(XidError::Unknown) | None => XID_UNKNOWN,
        }));
    }
    if types.contains(EventTypes::DOUBLE_BIT_ECC_ERROR) {
        return Some(CardEvent::UncorrectedError);
    }
    types.is_empty().then_some(CardEvent::Unavailable)
}
