//! Starts what watches, listens and tells: each part that the owner's settings allow.
//!
//! Invariant: a part that is missing or away holds no other one up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::api::Shared;
use super::api::pages::Now;
use super::chain::ChainClock;
use super::daily::{Digests, tell_absence};
use super::error::Error;
use super::links::Links;
use super::listen::Listener;
use super::odd::Odd;
use super::pair::Pair;
use super::store;
use super::watch::Watcher;
use crate::backoff::Backoff;
use crate::bus;
use crate::chain::{self, Reader};
use crate::clock::Clock as _;
use crate::fleet::alerts::Daily;
use crate::fleet::clocks::Listening;
use crate::fleet::rule::{Condition, Rule};
use crate::http::Url;
use crate::notify::{Channel, Outbox, Switch};
use crate::supervise::{Failure, Services};

/// How long a link that failed is left alone.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// Most events of before that rules are held against after a start.
const EVENTS_MAX: u32 = 5_000;

/// Starts the parts.
pub(super) async fn start(
    services: &mut Services,
    shared: &mut Shared,
    links: Links,
) -> Result<(), Error> {
    let channels = Channel::all(&links.channels).map_err(Error::Link)?;
    services.spawn_with("channels", BACKOFF, channels.clone(), Channel::check_all);
    let names = channels.iter().map(Channel::name);
    shared.pair = links.pair.map(|name| Pair::new(name, names, &shared.wire, shared.clock));
    let shared = &*shared;
    let outbox = outbox(services, shared, channels);
    outbox.warn_of_others().await.map_err(store::Error::from)?;
    outbox.spawn(services);
    remember(shared).await?;
    tell_of_absence(shared, &outbox).await?;
    let listening = Arc::clone(&shared.listening);
    listen(services, shared, (links.bus, links.chain), &listening)?;
    say(services, shared, (links.digest, links.ping), &outbox)?;
    let odd = Odd::default();
    let watcher = Watcher {
        store: shared.store.clone(),
        fleet: shared.fleet.clone(),
        rules: Arc::new(shared.settings.rules.clone()),
        policy: links.policy,
        patience: shared.settings.patience(),
        listening: Arc::clone(&listening),
        happened: shared.happened.clone(),
        odd: odd.clone(),
        silences: shared.silences.subscribe(),
        channels: outbox.names(),
        poke: Arc::clone(&shared.poke),
        outbox,
        live: shared.live.clone(),
        clock: shared.clock,
    };
    services.spawn_with("alerts", BACKOFF, Arc::new(watcher), Watcher::run);
    services.spawn_with("pages", BACKOFF, shared.clone(), async |shared| {
        let clock = shared.clock;
        shared.live.tell(&shared.fleet, &Now::new(move || clock.now())).await;
        Ok(())
    });
    let look = (odd, shared.clone());
    services.spawn_with("anomalies", BACKOFF, look, async |(odd, shared)| {
        let Shared { figures, eyes, clock, .. } = &shared;
        let remedy = "look at the disk of DB_PATH; until then nobody is told of what is odd";
        odd.run(figures, eyes, clock).await.map_err(|err| Failure::again(err, remedy))
    });
    services.spawn_with("views", BACKOFF, shared.clone(), async |shared| {
        let Shared { views, fleet, apps, clock, live, .. } = &shared;
        views.tell(fleet, apps, clock, &live.end).await;
        Ok(())
    });
    // Lives as long as the service that reads it, also where nothing is linked.
    services.spawn_with("links", BACKOFF, listening, async |listening| {
        listening.closed().await;
        Ok(())
    });
    Ok(())
}

/// The outbox, in turns with another hub if the owner says so.
fn outbox(services: &mut Services, shared: &Shared, channels: Vec<Channel>) -> Outbox {
    let Some(pair) = &shared.pair else { return Outbox::new(shared.store.book(), channels) };
    pair.spawn(services, BACKOFF);
    tracing::info!("alerts are shared with the other hub of the pair; this one is {}", pair.name());
    Outbox::shared(shared.store.book(), channels, |channel| pair.partner(channel))
}

/// Starts what listens besides to beats.
fn listen(
    services: &mut Services,
    shared: &Shared,
    (bus, chain): (Option<bus::Config>, Option<chain::Config>),
    listening: &Arc<watch::Sender<Listening>>,
) -> Result<(), Error> {
    if let Some(config) = bus {
        let listener = Listener {
            config: Arc::new(config),
            store: shared.store.clone(),
            fleet: shared.fleet.clone(),
            happened: shared.happened.clone(),
            listening: Arc::clone(listening),
            poke: Arc::clone(&shared.poke),
            live: shared.live.clone(),
            views: shared.views.clone(),
            figures: shared.figures.clone(),
            wire: Arc::clone(&shared.wire),
            clock: shared.clock,
        };
        services.spawn_with("nats", BACKOFF, Arc::new(listener), Listener::run);
    }
    if let Some(config) = chain {
        let reader = Reader::new(config).map_err(|err| Error::Link(err.into()))?;
        let (fleet, clock) = (shared.fleet.clone(), shared.clock);
        let (listening, project) = (Arc::clone(listening), shared.project.clone());
        let chain = ChainClock { reader, fleet, listening, project, clock };
        services.spawn_with("chain", BACKOFF, Arc::new(chain), ChainClock::run);
    }
    Ok(())
}

/// Starts what the hub says of itself.
fn say(
    services: &mut Services,
    shared: &Shared,
    (digest, ping): (Option<Daily>, Option<Url>),
    outbox: &Outbox,
) -> Result<(), Error> {
    if let Some(at) = digest {
        let (store, clock) = (shared.store.clone(), shared.clock);
        let (channels, outbox) = (outbox.names(), outbox.clone());
        let digests = Digests { store, at, channels, outbox, clock };
        services.spawn_with("digest", BACKOFF, Arc::new(digests), Digests::run);
    }
    if let Some(url) = ping {
        let switch = Switch::new("HUB_PING_URL", url).map_err(Error::Link)?;
        let state = (switch, shared.store.clone(), shared.clock);
        services.spawn_with("ping", BACKOFF, state, async |(switch, store, clock)| {
            switch.run(clock, async || Ok(store.has_people().await.map(drop)?)).await
        });
    }
    Ok(())
}

/// Takes up the events that still count for a rule.
async fn remember(shared: &Shared) -> Result<(), Error> {
    let spans = shared.settings.rules.iter().filter(|rule| is_of_events(rule));
    let Some(longest) = spans.map(|rule| rule.clear).max() else { return Ok(()) };
    let ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let since = shared.began.unix_ms().saturating_sub(ms);
    let since = crate::clock::Timestamp::from_unix_ms(since);
    for mut event in shared.store.events_since(since, EVENTS_MAX).await? {
        event.timestamp = event.timestamp.min(shared.began);
        shared.happened.note(event);
    }
    Ok(())
}

fn is_of_events(rule: &Rule) -> bool {
    matches!(rule.when, Condition::Event { .. })
}

/// Tells that nobody watched, if that lasted long enough for a node to fall silent unseen.
async fn tell_of_absence(shared: &Shared, outbox: &Outbox) -> Result<(), Error> {
    let Some(until) = shared.watched_until else { return Ok(()) };
    let gap = shared.began.since(until);
    if gap > shared.settings.down_threshold && !shared.fleet.is_empty() {
        tell_absence(&shared.store, until, shared.clock.now(), outbox.names()).await?;
        outbox.poke();
    }
    Ok(())
}
