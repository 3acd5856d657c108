//! Tells what the node decides, when it decides it: one handle that every part of the agent pushes into, and the
//! services that carry it to NATS and Redis.
//!
//! Must hold: whoever tells an event never waits; NATS gets every event, Redis those that sampling takes; what a
//! sink could not send is counted, and the count is an event too. A handle without sinks does nothing.

mod chain;
mod dashboard;
mod gpus;
mod jobs;
mod link;
mod registry;
mod sink;
mod to_nats;
mod to_redis;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::bus::MessageIds;
use crate::clock::{Clock, Timestamp};
use crate::fleet::{Event, Kind, Sampling, kinds};
use crate::ids::Address;
use crate::node::Gpu;
use crate::node::card::Round;
use crate::push::dashboard::Dashboard;
use crate::push::{Counts, redis as adapter};
use sink::Sink;

/// The owner's settings of events.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `EVENTS_REDIS_MAX_EVENTS`: how many events wait for each sink at most.
    pub ring: usize,
    /// `EVENTS_REDIS_URL`: where dashboards read.
    pub redis: Option<adapter::Config>,
    /// `EVENTS_REDIS_SAMPLING` and `…_SAMPLE_RATE`.
    pub sampling: Sampling,
    /// `EVENTS_REDIS_BATCH_SIZE`: events in one round trip.
    pub batch: usize,
    /// `EVENTS_REDIS_BATCH_TIMEOUT`: how long an event waits for others at most.
    pub flush: Duration,
    /// `EVENTS_HEARTBEAT_INTERVAL`: the time between two events of the registry; `None` for none.
    pub heartbeat: Option<Duration>,
    /// `EVENTS_DASHBOARD_URL`: the dashboard that lists this node.
    pub dashboard: Option<String>,
}

/// Events that NATS gets in one go.
const NATS_BATCH: usize = 100;

/// Where events are told. Clones tell to the same sinks.
#[derive(Debug, Clone, Default)]
pub struct Events(Option<Arc<Inner>>);

struct Inner {
    node: Address,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Begins the names of this process's messages.
    begun: Timestamp,
    nats: Sink,
    redis: Option<Redis>,
    heartbeat: Option<Duration>,
    dashboard: Option<Arc<dashboard::Listing>>,
    gpus: Vec<Gpu>,
    sampled: watch::Sender<Option<(Timestamp, Round)>>,
    services: Mutex<BTreeMap<String, bool>>,
}

struct Redis {
    sink: Sink,
    config: adapter::Config,
    flush: Duration,
    sampling: Sampling,
    is_on: watch::Sender<bool>,
    /// The time of the newest request that turned it on or off, in ms since 1970.
    asked_at_ms: AtomicU64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Inner {
    fn event(&self, kind: Kind, message: &str) -> Event {
        Event::new(kind, self.node, (self.now)(), message)
    }

    fn push(&self, event: Event) {
        let event = Arc::new(event);
        if let Some(redis) = &self.redis
            && *redis.is_on.borrow()
            && redis.sampling.takes(&event)
        {
            redis.sink.push(Arc::clone(&event));
        }
        self.nats.push(event);
    }
}

impl Events {
    /// Events of this node, for the sinks of these settings.
    pub fn new(
        settings: &Settings,
        node: Address,
        gpus: &[Gpu],
        clock: &(impl Clock + Clone),
    ) -> Self {
        let clock = clock.clone();
        let redis = settings.redis.clone().map(|config| Redis {
            sink: Sink::new("Redis", settings.ring, settings.batch),
            config,
            flush: settings.flush,
            sampling: settings.sampling,
            is_on: watch::Sender::new(true),
            asked_at_ms: AtomicU64::new(0),
        });
        Self(Some(Arc::new(Inner {
            node,
            begun: clock.now(),
            now: Box::new(move || clock.now()),
            nats: Sink::new("NATS", settings.ring, NATS_BATCH),
            redis,
            heartbeat: settings.heartbeat,
            // Its address was checked when the settings were read.
            dashboard: settings
                .dashboard
                .as_deref()
                .and_then(|it| Dashboard::new(it, node).ok())
                .map(dashboard::Listing::new),
            gpus: gpus.to_vec(),
            sampled: watch::Sender::new(None),
            services: Mutex::default(),
        })))
    }

    /// Tells an event. `add` puts in the job and the details.
    pub fn tell(&self, kind: Kind, message: &str, add: impl FnOnce(Event) -> Event) {
        if let Some(inner) = &self.0 {
            inner.push(add(inner.event(kind, message)));
        }
    }

    /// Notes a round of samples of the GPUs.
    pub(super) fn sampled(&self, round: &Round) {
        if let Some(inner) = &self.0 {
            inner.sampled.send_replace(Some(((inner.now)(), round.clone())));
        }
    }

    /// Notes whether a service that the node leans on answers. `name`: its kind and, where there are several,
    /// its address without secrets.
    pub(super) fn leans_on(&self, name: &str, answers: bool) {
        if let Some(inner) = &self.0 {
            let mut services = inner.services.lock().unwrap_or_else(PoisonError::into_inner);
            match services.get_mut(name) {
                Some(known) => *known = answers,
                None => drop(services.insert(name.to_owned(), answers)),
            }
        }
    }

    /// Turns the Redis sink on or off, as was asked at this time; `None` if there is none, `false` if that is not
    /// later than what was done already: then somebody says again what he heard. What waits for the sink when it
    /// is turned off is dropped, and counted.
    pub(super) fn redis(&self, on: bool, asked_at_ms: u64) -> Option<bool> {
        let redis = self.0.as_ref()?.redis.as_ref()?;
        if redis.asked_at_ms.fetch_max(asked_at_ms, Ordering::AcqRel) >= asked_at_ms {
            return Some(false);
        }
        let said = if on { "the Redis sink is on" } else { "the Redis sink is off" };
        if on && !*redis.is_on.borrow() {
            // What was pushed while it was being turned off.
            redis.sink.ring.clear();
        }
        let before = redis.is_on.send_replace(on);
        if before != on {
            tracing::info!("{said}");
            self.tell(kinds::EVENTS_REDIS, said, |event| event.with("on", on));
        }
        Some(true)
    }

    /// What became of the events for each sink.
    pub fn counts(&self) -> BTreeMap<&'static str, Counts> {
        let Some(inner) = &self.0 else { return BTreeMap::new() };
        let redis = inner.redis.as_ref().map(|redis| &redis.sink);
        let sinks = std::iter::once(&inner.nats).chain(redis);
        sinks.map(|sink| (sink.name, sink.ring.counts())).collect()
    }

    /// Starts the services that carry events.
    pub(super) fn serve(
        &self,
        services: &mut crate::supervise::Services,
        retry: crate::backoff::Backoff,
        (link, ids): (super::link::Link, MessageIds),
    ) {
        let Some(inner) = &self.0 else { return };
        let state = (self.clone(), link.clone());
        services.spawn_with("link events", retry, state, |(events, link)| link::run(events, link));
        let state = (Arc::clone(inner), link, ids);
        services.spawn_with("events", retry, state, |(inner, link, ids)| {
            to_nats::run(inner, link, ids)
        });
        if inner.redis.is_some() {
            services.spawn_with("redis", retry, Arc::clone(inner), to_redis::run);
        }
        if let Some(dashboard) = &inner.dashboard {
            services.spawn_with("dashboard", retry, Arc::clone(dashboard), dashboard::run);
        }
        if let Some(every) = inner.heartbeat {
            let state = (self.clone(), every);
            services.spawn_with("registry", retry, state, |(events, every)| {
                registry::run(events, every)
            });
        }
    }

    /// Waits until every sink that works has what was told so far, and takes the node off the dashboard's list; at
    /// most this long.
    pub(super) async fn let_out(&self, limit: Duration) {
        let Some(inner) = &self.0 else { return };
        let sinks = inner.redis.iter().map(|redis| &redis.sink);
        let idle = std::iter::once(&inner.nats).chain(sinks).map(Sink::idle);
        let left = async {
            if let Some(listing) = &inner.dashboard {
                listing.leave().await;
            }
        };
        let all = async { tokio::join!(join_all(idle), left) };
        tokio::time::timeout(limit, all).await.ok();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::secret::Secret;

    /// Events for both sinks, which nobody carries.
    pub(crate) fn events() -> Events {
        of(None)
    }

    /// The same, with a dashboard.
    pub(crate) fn with_dashboard(url: &str) -> Events {
        of(Some(url.to_owned()))
    }

    fn of(dashboard: Option<String>) -> Events {
        let settings = Settings {
            ring: 10,
            redis: Some(adapter::Config::new(Secret::new("redis://127.0.0.1:1")).unwrap()),
            sampling: Sampling::ALL,
            batch: 5,
            flush: Duration::from_secs(1),
            heartbeat: None,
            dashboard,
        };
        Events::new(&settings, Address::new([1; 20]), &[], &SystemClock)
    }

    #[test]
    fn what_turned_the_sink_off_does_not_do_so_twice() {
        let events = events();
        assert_eq!(events.redis(false, 5), Some(true));
        assert_eq!(events.redis(true, 6), Some(true));
        assert_eq!(events.redis(false, 5), Some(false), "heard, and said again");
        assert_eq!(events.redis(true, 6), Some(false));
        let is_on = *events.0.as_ref().unwrap().redis.as_ref().unwrap().is_on.borrow();
        assert!(is_on);
        assert_eq!(Events::default().redis(true, 1), None);
    }
}
