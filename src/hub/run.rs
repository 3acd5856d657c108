//! The hub as a whole: opens its store, answers requests, and keeps house.
//!
//! Invariant: whatever fails for good ends the hub with a reason; nothing goes on without the rest.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::api::signed::Providers;
use super::api::{self, Shared, admin};
use super::error::Error;
use super::links::Links;
use super::parts;
use super::settings::Settings;
use super::store::view::Eyes;
use super::store::{self, Store};
use crate::backoff::Backoff;
use crate::chain::Reader;
use crate::clock::Clock as _;
use crate::supervise::{Failure, Services};
use crate::web;

/// How long answers under way may take once the hub is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How often the hub notes that it is there.
const WATCH: Duration = Duration::from_secs(10);

/// How often the hub looks whether another process gave a node a secret or a key.
const LOOK: Duration = Duration::from_secs(1);

/// How often the hub forgets what is too old, and the pause between two parts of that.
const CLEAN: Duration = Duration::from_hours(1);
const PAUSE: Duration = Duration::from_millis(200);

/// How long the hub watches before it forgets nodes.
const PRUNE_AFTER: Duration = Duration::from_hours(24);

const STORE_REMEDY: &str = "look whether the disk under DB_PATH is full or broken";

/// The store refused to forget nodes; it has said why.
#[derive(Debug, thiserror::Error)]
#[error("nodes that were silent for long could not be forgotten")]
struct Silent;

/// Runs the hub until `shutdown`.
pub async fn run(
    settings: Settings,
    links: Links,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let at = settings.listen;
    // Before the store: an address that is taken is the commoner mistake, and leaves nothing behind.
    let listener = TcpListener::bind(at).await.map_err(|source| Error::Listen { at, source })?;
    let at = listener.local_addr().map_err(Error::Serve)?;
    let (stop, stopping) = watch::channel(false);
    let store = Store::open(&settings.db)?;
    let mut shared = Shared::start(store, settings, stopping).await?;
    shared.eyes = Eyes::open(&shared.settings.db)?;
    if let Some(config) = links.chain.clone().filter(|_| shared.settings.takes_chains_keys) {
        let reader = Reader::new(config).map_err(|err| Error::Link(err.into()))?;
        shared.providers = Providers::of(reader);
    }
    say(&shared, at);
    let mut services = Services::default();
    start(&mut services, &shared);
    parts::start(&mut services, &mut shared, links).await?;
    let (live, views) = (shared.live.clone(), shared.views.clone());
    let end = async move {
        shutdown.await;
        live.end();
        tracing::info!("asked to end: no more beats are taken");
        stop.send_replace(true);
    };
    let app = api::router(shared);
    let serve = web::serve_within_until(listener, app, api::BOUNDS, end, GRACE);
    let ended = tokio::select! {
        ended = serve => ended.map_err(Error::Serve),
        failed = services.first_fatal() => Err(Error::Part(failed)),
    };
    services.stop().await;
    views.gone(GRACE).await;
    ended
}

/// Says once where the hub is, and what it does without.
fn say(shared: &Shared, at: SocketAddr) {
    let count = shared.fleet.len();
    tracing::info!("the hub is at http://{at}/ and knows {}", crate::fleet::words::nodes(count));
    for without in &shared.settings.without {
        tracing::info!("{without}");
    }
    if let Some(until) = shared.watched_until {
        let gap = shared.began.since(until);
        tracing::info!("nobody watched for {} before", crate::fleet::words::age(gap));
    }
}

/// Starts what the hub does besides answering.
fn start(services: &mut Services, shared: &Shared) {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    services.spawn_with("watch", backoff, shared.clone(), keep_watch);
    services.spawn_with("secrets", backoff, shared.clone(), follow_secrets);
    services.spawn_with("housekeeping", backoff, shared.clone(), keep_house);
}

fn again(err: store::Error) -> Failure {
    Failure::again(err, STORE_REMEDY)
}

async fn keep_watch(shared: Shared) -> Result<(), Failure> {
    loop {
        shared.clock.sleep(WATCH).await;
        shared.store.still_here(shared.began, shared.clock.now()).await.map_err(again)?;
    }
}

async fn follow_secrets(shared: Shared) -> Result<(), Failure> {
    let mut known = None;
    loop {
        let version = shared.store.outside_version().await.map_err(again)?;
        if known != Some(version) {
            let tokens = shared.tokens.clone();
            let then = move |secrets: &_| tokens.set_nodes(Clone::clone(secrets));
            shared.store.secrets(then).await.map_err(again)?;
            let identities = shared.fleet.identities().clone();
            let then = move |keys: &_| identities.set_keys(Clone::clone(keys));
            shared.store.keys(then).await.map_err(again)?;
            known = Some(version);
        }
        shared.clock.sleep(LOOK).await;
    }
}

async fn keep_house(shared: Shared) -> Result<(), Failure> {
    loop {
        // Who lives has said so in the first day of a hub that was away.
        let watched = shared.clock.now().since(shared.began);
        if let Some(silent) = shared.settings.prune.filter(|_| watched >= PRUNE_AFTER) {
            let forgotten = admin::forget(&shared, silent).await;
            let count = forgotten.map_err(|_| Failure::again(Silent, STORE_REMEDY))?;
            if count > 0 {
                tracing::info!("{count} nodes that were silent for long are forgotten");
            }
        }
        while shared.store.forget(shared.clock.now()).await.map_err(again)? {
            shared.clock.sleep(PAUSE).await;
        }
        shared.clock.sleep(CLEAN).await;
    }
}
