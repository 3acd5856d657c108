//! A list of simulated cards, for the demo and for tests.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, GpuProbe};
use crate::node::GpuInventory;

/// A list of cards. Clones share it, so that a test can take a card away.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Mutex<GpuInventory>>);

impl Fake {
    /// Reports this inventory, in the order of the UUIDs as the real probe does.
    pub fn new(inventory: GpuInventory) -> Self {
        let fake = Self(Arc::new(Mutex::new(inventory)));
        fake.change(|_| {});
        fake
    }

    /// Changes what later calls report.
    pub fn change(&self, change: impl FnOnce(&mut GpuInventory)) {
        let mut inventory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inventory);
        inventory.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    }
}

impl GpuProbe for Fake {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
