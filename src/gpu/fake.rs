//! A list of simulated cards, for the demo and for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{EVENTS_MAX, Error, GpuProbe};
use crate::node::card::{Happened, Reading, Round, Sample, Unknown};
use crate::node::toolkit::Verdict;
use crate::node::{Gpu, GpuInventory, GpuUuid};

const MIB: u64 = 1024 * 1024;

/// A list of cards. Clones share it, so that a test can take a card away.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Mutex<Cards>>);

#[derive(Debug, Default)]
struct Cards {
    inventory: GpuInventory,
    /// The samples of cards that don't idle.
    samples: BTreeMap<GpuUuid, Reading<Sample>>,
    /// Why sampling fails; `None` if it works.
    silent: Option<String>,
    listeners: Vec<mpsc::Sender<Happened>>,
    toolkit: Option<Verdict>,
}

impl Fake {
    /// Reports this inventory, in the order of the UUIDs as the real probe does.
    pub fn new(inventory: GpuInventory) -> Self {
        let fake = Self(Arc::default());
        fake.change(|list| *list = inventory);
        fake
    }

    /// Replaces the inventory that later calls report.
    pub fn change(&self, change: impl FnOnce(&mut GpuInventory)) {
        let mut cards = self.cards();
        change(&mut cards.inventory);
        cards.inventory.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    }

    /// Sets the card's sample for later calls, whether it is listed or not.
    pub fn set_sample(&self, card: GpuUuid, sample: Reading<Sample>) {
        self.cards().samples.insert(card, sample);
    }

    /// Makes later calls for samples fail with this reason; `None` makes them work again.
    pub fn silence(&self, reason: Option<&str>) {
        self.cards().silent = reason.map(str::to_owned);
    }

    /// What is told of the toolkit from now on; else that none is used.
    pub fn set_toolkit(&self, verdict: Verdict) {
        self.cards().toolkit = Some(verdict);
    }

    /// Sends an event to all watchers.
    pub fn happens(&self, happened: &Happened) {
        self.cards().listeners.retain(|listener| match listener.try_send(happened.clone()) {
            Ok(()) | Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => false,
        });
    }

    fn cards(&self) -> MutexGuard<'_, Cards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GpuProbe for Fake {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        Ok(self.cards().inventory.clone())
    }

    async fn sample(&self) -> Result<Round, Error> {
        let cards = self.cards();
        if let Some(reason) = &cards.silent {
            return Err(Error::Driver { reason: reason.clone() });
        }
        let idle = cards.inventory.gpus.iter().map(|gpu| (gpu.uuid.clone(), Ok(idle(gpu))));
        Ok(idle.chain(cards.samples.clone()).collect())
    }

    fn events(&self) -> mpsc::Receiver<Happened> {
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        self.cards().listeners.push(tell);
        told
    }

    async fn toolkit(&self) -> Verdict {
        self.cards().toolkit.clone().unwrap_or(Verdict::Unused)
    }
}

/// A card on which nothing runs; a simulated one has no sensors.
fn idle(gpu: &Gpu) -> Sample {
    Sample {
        used_bytes: Ok(0),
        free_bytes: Ok(gpu.vram_mib.saturating_mul(MIB)),
        processes: Ok(Vec::new()),
        ..Sample::unknown(&Unknown::NotSupported)
    }
}
