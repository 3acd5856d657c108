//! The feeds: each is set up, then read for as long as the connection lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Error, Listener, OnNats, SET_UP, Source, gather, on_nats};
use crate::bus::{self, Bus, EventStream, Presences, Recorded, Records, Start};
use crate::clock::{Clock, Timestamp};
use crate::fleet::instances::{Clash, ON_NATS};
use crate::fleet::{Event, signed};
use crate::hub::logs::{Lines, Whose};
use crate::hub::store::heard::{EVENTS, STATUSES};
use crate::hub::store::usage::{Told, USAGE};
use crate::ids::Address;
use crate::node::presence::Presence;
use crate::usage::Batch;

/// The component of what watchers say.
const WATCHER: &str = crate::fleet::kinds::SIDECAR_WELL.component;

impl<C: Clock> Listener<C> {
    /// What nodes tell of themselves, each every few seconds.
    pub(super) async fn presences(&self, bus: &Bus) -> Result<Infallible, Error> {
        let mut feed = within(bus.presence_feed()).await?;
        self.listens();
        loop {
            let told = gather(&mut feed).await?;
            let now = self.clock.now();
            let clashes = self.clashes(&told, now);
            let heard = told.into_iter().map(|(node, presence)| {
                let text = presence.to_json();
                (OnNats { presence: Some(text), ..on_nats(node, now, None) }, Some(presence))
            });
            self.heard(heard.collect()).await?;
            for (node, clash) in clashes {
                let name = self.fleet.name_of(node);
                self.fleet.update_if_known(&name, |node| node.heard.clash = Some(clash));
                self.poke.notify_one();
            }
        }
    }

    /// The nodes of which two runs of the program are there at once.
    fn clashes(&self, told: &[(Address, Presence)], now: Timestamp) -> Vec<(Address, Clash)> {
        let hears = |(node, presence): &(Address, Presence)| {
            let run = (signed::instance(presence.instance.as_ref()?), None);
            // A crowd of them is a clash that was told before.
            let clash = self.fleet.identities().hears(*node, run, ON_NATS, now).ok()?;
            clash.map(|clash| (*node, clash))
        };
        told.iter().filter_map(hears).collect()
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
            // A watcher is no node, and is silent while nothing changes.
            let by_nodes = events.iter().filter(|(_, event)| event.component.as_str() != WATCHER);
            let heard = by_nodes.map(|(seq, event)| {
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

/// How long to wait for the stream of batches to be made, and how long a live log's lines are gathered.
const MADE: Duration = Duration::from_secs(30);
const LINES: Duration = Duration::from_millis(100);

impl<C: Clock> Listener<C> {
    /// What the jobs of all nodes use.
    pub(super) async fn usage(&self, bus: &Bus) -> Result<Infallible, Error> {
        let after = self.store.cursor(USAGE).await?.unwrap_or_default();
        let mut is_told = false;
        let mut feed = loop {
            match within(bus.usage_records(after)).await {
                Ok(Some(feed)) => break feed,
                // An account may lack the right to it; the hub's other sources matter more.
                Err(Error::Bus(err)) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!("what jobs use can't be read: {}", crate::report::causes(&err));
                }
                Ok(None) | Err(Error::Bus(_)) => {}
                Err(err @ Error::Store(_)) => return Err(err),
            }
            self.clock.sleep(MADE).await;
        };
        loop {
            let records = gather(&mut feed).await?;
            let Some(last) = records.last().map(|it| it.seq) else { continue };
            // Some milliseconds each, at a time when thousands may wait.
            let read = move || records.iter().filter_map(batch).collect();
            let told = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            self.store.keep_usage(told, last).await?;
        }
    }

    /// What jobs write, while somebody looks at it.
    pub(super) async fn logs(&self, bus: &Bus) -> Result<Infallible, Error> {
        let logs = &self.live.logs;
        let (mut changed, mut heard) = (logs.watch(), FuturesUnordered::new());
        logs.none_heard();
        loop {
            for (whose, sender) in logs.unheard() {
                logs.set_heard(&whose, true);
                heard.push(self.log(bus, whose, sender));
            }
            tokio::select! {
                // The hub has one end of it itself.
                _ = changed.changed() => {}
                Some(()) = heard.next() => {}
            }
        }
    }

    /// One log, until nobody looks at it.
    async fn log(&self, bus: &Bus, whose: Whose, sender: broadcast::Sender<Arc<str>>) {
        let logs = &self.live.logs;
        let Ok(mut log) = bus.logs(Some(whose.node), &whose.job).await else {
            logs.set_waiting(&whose);
            // Not again at once: the connection is gone, or the account may not read it.
            self.clock.sleep(MADE).await;
            if !logs.forget(&whose) {
                logs.set_heard(&whose, false);
            }
            return;
        };
        loop {
            let piece = tokio::select! {
                () = sender.closed() => {
                    if logs.forget(&whose) {
                        return;
                    }
                    continue;
                }
                piece = log.next() => piece,
            };
            let Ok(piece) = piece else { break };
            let mut lines = Lines::default();
            lines.take(&piece);
            let end = Instant::now() + LINES;
            while !lines.is_full() {
                let Ok(Ok(piece)) = timeout_at(end, log.next()).await else { break };
                lines.take(&piece);
            }
            sender.send(lines.text()).ok();
        }
        logs.set_heard(&whose, false);
    }
}

/// What a record says that a job used; `None` if it is no batch of the job that its subject names.
fn batch(record: &Recorded) -> Option<Told> {
    let batch = match Batch::unpack(&record.body) {
        Ok((batch, _)) if batch.node == record.agent && batch.job_id == record.job => batch,
        Ok(_) => return None,
        Err(err) => {
            tracing::debug!(seq = record.seq, "skipped what is no batch: {err}");
            return None;
        }
    };
    Some(Told { node: record.agent, seq: record.seq, at: record.at, batch })
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
