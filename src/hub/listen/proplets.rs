//! What nodes tell live of themselves and of their jobs: kept for those who ask later.

use std::convert::Infallible;

use super::feeds::within;
use super::{Error, Listener, Source, gather};
use crate::bus::proplets::Proplets;
use crate::bus::{self, Bus, DeliveryMode};
use crate::clock::Clock;
use crate::usage::heard::{Heard, Kind};

impl<C: Clock> Listener<C> {
    /// What nodes tell live, from now on.
    pub(super) async fn proplets(&self, bus: &Bus) -> Result<Infallible, Error> {
        let mut feed = within(bus.proplet_feed()).await?;
        loop {
            let told = gather(&mut feed).await?;
            let now = self.clock.now();
            let read = |(kind, body): (Kind, bytes::Bytes)| match Heard::parse(kind, &body, now) {
                Ok(heard) => Some(heard),
                Err(err) => {
                    tracing::debug!("skipped what is no message of a node: {err}");
                    None
                }
            };
            let heard: Vec<Heard> = told.into_iter().filter_map(read).collect();
            let kept = self.store.keep_told(heard, bus.mode() != DeliveryMode::Core).await?;
            self.figures.note(&kept);
        }
    }
}

impl Source for Proplets {
    type Told = (Kind, bytes::Bytes);

    async fn told(&mut self) -> Result<Self::Told, bus::Error> {
        self.next().await
    }
}
