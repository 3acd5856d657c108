//! The feeds: each is set up, then read for as long as the connection lasts.

use std::convert::Infallible;

use tokio::time::timeout;

use super::{Error, Listener, OnNats, SET_UP, gather, on_nats};
use crate::bus::{self, Bus, Start};
use crate::clock::Clock;
use crate::fleet::Event;
use crate::hub::store::heard::{EVENTS, STATUSES};

impl<C: Clock> Listener<C> {
    /// What nodes tell of themselves, each every few seconds.
    pub(super) async fn presences(&self, bus: &Bus) -> Result<Infallible, Error> {
        let mut feed = within(bus.presence_feed()).await?;
        self.listens();
        loop {
            let told = gather(async || feed.next().await).await?;
            let now = self.clock.now();
            let heard = told.into_iter().map(|(node, presence)| {
                let text = presence.to_json();
                (OnNats { presence: Some(text), ..on_nats(node, now, None) }, Some(presence))
            });
            self.heard(heard.collect()).await?;
        }
    }

    /// The statuses of all jobs.
    pub(super) async fn statuses(&self, bus: &Bus) -> Result<Infallible, Error> {
        let after = self.store.cursor(STATUSES).await?.unwrap_or_default();
        let mut feed = within(bus.records(after)).await?;
        loop {
            let statuses = gather(async || feed.next().await).await?;
            let heard = statuses.iter().map(|it| (on_nats(it.agent, it.at, Some(it.seq)), None));
            let heard = heard.collect();
            self.store.keep_statuses(statuses).await?;
            self.heard(heard).await?;
        }
    }

    /// The events of all nodes.
    pub(super) async fn events(&self, bus: &Bus) -> Result<Infallible, Error> {
        let after = self.store.cursor(EVENTS).await?.unwrap_or_default();
        let is_anew = within(bus.last_event()).await? < after;
        let start = if after == 0 || is_anew { Start::Oldest } else { Start::After(after) };
        let mut feed = within(bus.events(None, start, true)).await?;
        loop {
            let next = async || {
                let event = feed.next().await?.ok_or(bus::Error::Closed)?.0;
                Ok::<(u64, Event), bus::Error>((feed.last().unwrap_or_default(), event))
            };
            let events = gather(next).await?;
            let now = self.clock.now();
            let heard = events.iter().map(|(seq, event)| {
                (on_nats(event.node, event.timestamp.min(now), Some(*seq)), None)
            });
            let heard = heard.collect();
            self.store.keep_events(events.clone()).await?;
            self.heard(heard).await?;
            for (_, mut event) in events {
                // A node whose clock runs ahead can't keep an incident open by it.
                event.timestamp = event.timestamp.min(now);
                self.happened.note(event);
            }
            self.poke.notify_one();
        }
    }
}

/// Sets a feed up, in bounded time.
async fn within<T>(work: impl Future<Output = Result<T, bus::Error>>) -> Result<T, Error> {
    let silent = bus::Error::Timeout { what: "read what nodes say" };
    Ok(timeout(SET_UP, work).await.unwrap_or(Err(silent))?)
}
