//! What the hub answers over HTTP: the original monitor's API ([`seed`]), its admin calls ([`admin`]), what
//! watchers say (`observations`), and what says how the hub itself is.
//!
//! Invariants: a body is bounded before it is read; what is refused is refused in the original's form; a client
//! that dawdles holds up nobody.

pub mod admin;
pub mod alerts_view;
mod apps;
mod asked;
pub mod auth;
mod body;
mod earned;
mod earnings;
pub mod enroll;
pub mod error;
pub mod fleet;
mod foreign;
mod kept;
pub mod limit;
pub mod live;
pub mod metrics;
mod observations;
pub mod pages;
pub mod people;
mod proplets;
pub mod seed;
pub mod signed;
pub mod silences;
mod site;
mod steer;
pub mod stream;
mod tasks;
mod usage;
mod ws;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::apps::Apps;
use super::figures::Figures;
use super::fleet::Fleet;
use super::happened::Happened;
use super::pair::Pair;
use super::settings::Settings;
use super::store::view::Eyes;
use super::store::{self, Store};
use super::views::Views;
use crate::bus::Bus;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::fleet::alerts::Silence;
use crate::fleet::clocks::Listening;
use crate::ids::Address;
use crate::web::extract::{Request, State};
use crate::web::http::{HeaderMap, StatusCode};
use crate::web::routing::get;
use crate::web::{Bounds, Peer, Router};
use auth::Tokens;
use error::Refusal;
use limit::Guesses;
use pages::{Now, Pages, Project, Show, Site};
use signed::Providers;
use stream::Live;

/// What the hub grants its clients: a thousand pages and as many agents at a time. Streams of events stay longer by
/// [`Peer::may_stay`]. A connection brings a beat every few milliseconds at most.
pub const BOUNDS: Bounds = Bounds {
    connections: 2_048,
    lifetime: Duration::from_secs(30),
    request_bytes: 64 * 1024 * 1024,
};

/// How long the store may take to say that it is there.
const READY: Duration = Duration::from_secs(2);

/// What all handlers share. Clones share it too.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// The nodes in memory.
    pub fleet: Fleet,
    /// What the owner set.
    pub settings: Arc<Settings>,
    /// The time.
    pub clock: SystemClock,
    /// Whose tokens are right.
    pub tokens: Tokens,
    /// Which keys the contract calls those of nodes.
    pub providers: Providers,
    /// Wrong tokens, by address.
    pub guesses: Guesses,
    /// Passwords that were tried, by address.
    pub logins: Guesses,
    /// What was counted since the start.
    pub counted: Arc<Counted>,
    /// What the pages' questions read.
    pub eyes: Eyes,
    /// Tells the pages what changes.
    pub live: Live,
    /// The contract that the hub reads.
    pub project: Project,
    /// What nodes told lately.
    pub happened: Happened,
    /// What jobs told lately of what they use.
    pub figures: Figures,
    /// The live views of SOLLOL's dashboard.
    pub views: Views,
    /// The connection to NATS, while there is one.
    pub wire: Arc<watch::Sender<Option<Bus>>>,
    /// What this hub shares with another one, if it does.
    pub pair: Option<Pair>,
    /// The applications that have registered.
    pub apps: Apps,
    /// Asks for a look at the nodes at once.
    pub poke: Arc<Notify>,
    /// The silences that last.
    pub silences: Arc<watch::Sender<Vec<Silence>>>,
    /// What the hub listens to, and since when.
    pub listening: Arc<watch::Sender<Listening>>,
    /// Since when this hub watches.
    pub began: Timestamp,
    /// Until when a hub watched before; `None`: never.
    pub watched_until: Option<Timestamp>,
    /// True once the hub is to stop: streams end then.
    pub stopping: watch::Receiver<bool>,
}

/// What is counted since the start.
#[derive(Debug, Default)]
pub struct Counted {
    /// Beats that were taken in.
    pub beats: AtomicU64,
    /// Beats without a right token.
    pub unauthorized: AtomicU64,
    /// Beats with a body that is none.
    pub invalid: AtomicU64,
}

impl Shared {
    /// Reads what the store knows, and begins to watch.
    pub async fn start(
        store: Store,
        settings: Settings,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, store::Error> {
        let (clock, fleet) = (SystemClock, Fleet::new(store.load_all().await?));
        let began = clock.now();
        fleet.identities().set_keys(store.keys(|_| ()).await?);
        fleet.identities().set_runs(store.runs().await?);
        Ok(Self {
            tokens: Tokens::new(&settings, store.secrets(|_| ()).await?),
            watched_until: store.began(began).await?,
            fleet,
            providers: Providers::default(),
            settings: Arc::new(settings),
            guesses: Guesses::default(),
            logins: Guesses::default(),
            counted: Arc::default(),
            eyes: Eyes::of(store.clone()),
            live: Live::default(),
            project: Project::default(),
            listening: Arc::new(watch::Sender::new(Listening {
                own: began,
                nats: None,
                chain: None,
            })),
            happened: Happened::default(),
            figures: Figures::default(),
            views: Views::default(),
            wire: Arc::new(watch::Sender::new(None)),
            apps: Apps::default(),
            pair: None,
            poke: Arc::default(),
            silences: Arc::new(watch::Sender::new(store.book().silences(began).await?)),
            store,
            clock,
            began,
            stopping,
        })
    }

    /// Refuses who has no right token, and counts the guess.
    pub fn refuse(&self, peer: &Peer) -> Refusal {
        match self.guesses.wrong(peer.address.ip(), self.clock.monotonic()) {
            Ok(()) => Refusal::Unauthorized,
            Err(wait) => Refusal::TooMany(wait),
        }
    }

    /// Refuses who has no right proof, with the reason, and counts the guess.
    pub fn refuse_for(&self, peer: &Peer, why: impl Into<String>) -> Refusal {
        match self.refuse(peer) {
            Refusal::Unauthorized => Refusal::Plain(StatusCode::UNAUTHORIZED, why.into()),
            other => other,
        }
    }

    /// The name under which a node is kept that calls itself so. An address has several spellings, and ours is in lower
    /// case; what the hub knows in another spelling keeps it.
    fn kept_name(&self, name: String) -> String {
        match spelled(&name) {
            Some(address) if self.fleet.get(&name).is_none() && !self.tokens.has_node(&name) => {
                address.lower_hex()
            }
            _ => name,
        }
    }

    /// Whether only a key speaks for the node that calls itself so: it is bound by that name, or has that address.
    fn has_key(&self, name: &str) -> bool {
        let ids = self.fleet.identities();
        ids.is_bound(name) || spelled(name).is_some_and(|key| ids.name_of(key).is_some())
    }

    /// `Err` unless who sent this head is the owner.
    pub fn only_admin(&self, head: &HeaderMap, peer: &Peer) -> Result<(), Refusal> {
        if self.tokens.is_admin(head) { Ok(()) } else { Err(self.refuse(peer)) }
    }
}

/// The address that this is in any spelling, also in one whose checksum is wrong.
fn spelled(name: &str) -> Option<Address> {
    name.to_ascii_lowercase().parse().ok()
}

/// Everything that the hub answers.
pub fn router(shared: Shared) -> Router {
    let pages = people::Views::new(|show, logs| pages(&shared, show, logs));
    Router::new()
        .merge(seed::routes())
        .merge(observations::routes())
        .merge(enroll::routes())
        .merge(admin::routes())
        .merge(metrics::routes())
        .merge(people::routes())
        .merge(silences::routes())
        .merge(apps::routes())
        .merge(proplets::routes())
        .merge(tasks::routes())
        .merge(steer::routes())
        .merge(ws::routes())
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(move |State(shared): State<Shared>, request: Request| async move {
            people::show(&shared, pages, request).await
        })
        .method_not_allowed_fallback(error::not_allowed)
        .with_state(shared)
}

/// The pages of what is shared.
fn pages(shared: &Shared, show: Show, shows_logs: bool) -> Pages {
    let settings = &shared.settings;
    let (title, patience) = (settings.title.clone(), settings.patience());
    let site = Site { title, show, patience, shows_logs, project: shared.project.clone() };
    let clock = shared.clock;
    let now = Now::new(move || clock.now());
    let pages =
        Pages::new(shared.fleet.clone(), shared.eyes.clone(), site, shared.live.clone(), now);
    pages.of_pair(shared.pair.clone())
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match tokio::time::timeout(READY, shared.store.answers()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store doesn't answer\n"),
    }
}

/// One more.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
