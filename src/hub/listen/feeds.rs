//! The feeds: each is set up, then read for as long as the connection lasts.

use std::convert::Infallible;

use tokio::time::timeout;

use super::{Error, Listener, OnNats, SET_UP, Source, gather, on_nats};
use crate::bus::{self, Bus, EventStream, Presences, Recorded, Records, Start};
use crate::clock::Clock;
use crate::fleet::Event;
use crate::hub::store::heard::{EVENTS, STATUSES};
use crate::ids::Address;
use crate::node::presence::Presence;

impl<C: Clock> Listener<C> {
    /// What nodes tell of themselves, each every few seconds.
    pub(super) async fn presences(&self, bus: &Bus) -> Result<Infallible, Error> {
        let mut feed = within(bus.presence_feed()).await?;
        self.listens();
        loop {
            let told = gather(&mut feed).await?;
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
            let statuses = gather(&mut feed).await?;
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
        if is_anew {
            self.store.events_anew().await?;
        }
        let start = if after == 0 || is_anew { Start::Oldest } else { Start::After(after) };
        let mut feed = within(bus.events(None, start, true)).await?;
        loop {
            let mut events = gather(&mut feed).await?;
            let now = self.clock.now();
            let heard = events.iter().map(|(seq, event)| {
                (on_nats(event.node, event.timestamp.min(now), Some(*seq)), None)
            });
            let heard = heard.collect();
            for (_, event) in &mut events {
                // A node whose clock runs ahead can't keep an incident open by it.
                event.timestamp = event.timestamp.min(now);
            }
            let rows = self.store.keep_events(events.clone()).await?;
            for row in rows {
                let seq = row.seq.and_then(|seq| u64::try_from(seq).ok());
                for (_, event) in events.iter().filter(|(number, _)| Some(*number) == seq) {
                    self.views.event(event);
                }
                self.live.event(row);
            }
            self.heard(heard).await?;
            for (_, event) in events {
                self.happened.note(event);
            }
            self.poke.notify_one();
        }
    }
}

impl Source for Presences {
    type Told = (Address, Presence);

    async fn told(&mut self) -> Result<Self::Told, bus::Error> {
        self.next().await
    }
}

impl Source for Records {
    type Told = Recorded;

    async fn told(&mut self) -> Result<Self::Told, bus::Error> {
        self.next().await
    }
}

impl Source for EventStream {
    /// An event with its number in the stream.
    type Told = (u64, Event);

    async fn told(&mut self) -> Result<Self::Told, bus::Error> {
        let (event, _) = self.next().await?.ok_or(bus::Error::Closed)?;
        Ok((self.last().unwrap_or_default(), event))
    }
}

/// Sets a feed up, in bounded time.
pub(super) async fn within<T>(
    work: impl Future<Output = Result<T, bus::Error>>,
) -> Result<T, Error> {
    let silent = bus::Error::Timeout { what: "read what nodes say" };
    Ok(timeout(SET_UP, work).await.unwrap_or(Err(silent))?)
}
