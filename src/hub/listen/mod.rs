//! Hears what our nodes say on NATS: statuses and events from where the hub left off, presences as they are told.
//!
//! Invariants: what is read is kept in the same commit as the place up to which it was read. While there is no
//! connection the hub says that it doesn't listen, so that nobody is called silent for it.

mod feeds;
mod proplets;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::api::stream::Live;
use super::figures::Figures;
use super::fleet::Fleet;
use super::happened::Happened;
use super::store::heard::OnNats;
use super::store::{self, Store};
use super::views::Views;
use crate::bus::{self, Bus, DeliveryMode};
use crate::clock::{Clock, Timestamp};
use crate::fleet::clocks::Listening;
use crate::ids::Address;
use crate::node::presence::Presence;
use crate::supervise::Failure;

/// Most messages that are kept in one commit.
const BATCH_MAX: usize = 256;

/// The longest that a message waits for others.
const GATHER: Duration = Duration::from_millis(200);

/// A message of a node that is older than this doesn't make it known.
const STALE: Duration = Duration::from_mins(1);

/// How long the server may take to set a feed up.
const SET_UP: Duration = Duration::from_secs(20);

/// Listens to NATS. One service.
#[derive(Debug)]
pub struct Listener<C> {
    /// How to connect.
    pub config: Arc<bus::Config>,
    /// The database.
    pub store: Store,
    /// The nodes.
    pub fleet: Fleet,
    /// What nodes told lately.
    pub happened: Happened,
    /// What the hub listens to, and since when.
    pub listening: Arc<watch::Sender<Listening>>,
    /// Asks for a look at the nodes at once.
    pub poke: Arc<Notify>,
    /// Tells the pages of events.
    pub live: Live,
    /// Where the connection is for who sends something, while there is one.
    pub wire: Arc<watch::Sender<Option<Bus>>>,
    /// What jobs told lately of what they use.
    pub figures: Figures,
    /// The live views of SOLLOL's dashboard.
    pub views: Views,
    /// The clock.
    pub clock: C,
}

/// Why the hub stopped listening.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Bus(#[from] bus::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl<C: Clock> Listener<C> {
    /// Listens until the connection is lost; the caller starts it again.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let remedy = "NATS_URL says where the server is; the hub goes on without what nodes say";
        let ended = Box::pin(self.listen()).await;
        self.listening.send_modify(|listening| listening.nats = None);
        self.wire.send_replace(None);
        self.live.logs.none_heard();
        match ended {
            Err(err) => Err(Failure::again(err, remedy)),
        }
    }

    async fn listen(&self) -> Result<Infallible, Error> {
        let bus = Bus::connect(&self.config).await?;
        bus.prepare().await?;
        tracing::info!(server = bus.server(), "listening to NATS at {}", bus.server());
        self.wire.send_replace(Some(bus.clone()));
        let connection = bus.connection();
        let lost = async {
            bus.lost(connection).await?;
            Err(bus::Error::Disconnected { server: bus.server() }.into())
        };
        let keeps = bus.mode() != DeliveryMode::Core;
        if !keeps {
            tracing::warn!("NATS_MODE=core: the hub sees neither jobs nor events of before");
        }
        let presences = self.presences(&bus);
        tokio::select! {
            ended = presences => ended,
            ended = self.proplets(&bus) => ended,
            ended = self.statuses(&bus), if keeps => ended,
            ended = self.events(&bus), if keeps => ended,
            ended = self.usage(&bus), if keeps => ended,
            ended = self.logs(&bus) => ended,
            ended = lost => ended,
        }
    }

    /// Notes that nodes were heard.
    async fn heard(&self, heard: Vec<(OnNats, Option<Presence>)>) -> Result<(), Error> {
        let now = self.clock.now();
        // A node that has been silent since the hub was away is no news, and none that nobody knows.
        let is_old = |one: &OnNats| now.since(one.at) > STALE;
        let is_known = |one: &OnNats| self.fleet.get(&self.fleet.name_of(one.node)).is_some();
        let heard: Vec<_> =
            heard.into_iter().filter(|(one, _)| !is_old(one) || is_known(one)).collect();
        let row = |(one, _): &(OnNats, _)| OnNats { at: one.at.min(now), ..one.clone() };
        let rows = heard.iter().map(row).collect();
        let fleet = self.fleet.clone();
        let then = move |(): &()| {
            for (one, presence) in heard {
                // What an older message tells is news to the page, and not that the node is there.
                let at = one.at.min(now);
                let presence = presence.and_then(|it| serde_json::to_value(it).ok()).map(Arc::new);
                fleet.update(&fleet.name_of(one.node), at, |node| {
                    node.address = Some(one.node);
                    node.heard.is_ours = true;
                    node.heard.nats = node.heard.nats.max(Some(at));
                    node.nats_seq = one.seq.or(node.nats_seq);
                    node.presence = presence.or(node.presence.take());
                });
            }
        };
        self.store.heard_on_nats(rows, then).await?;
        Ok(())
    }

    /// From now on what is not heard counts as silent after its patience.
    fn listens(&self) {
        let now = self.clock.now();
        self.listening.send_modify(|listening| listening.nats = Some(now));
        self.poke.notify_one();
    }
}

/// One node was heard.
fn on_nats(node: Address, at: Timestamp, seq: Option<u64>) -> OnNats {
    OnNats { node, at, seq, presence: None }
}

/// Messages of one kind.
trait Source: Send {
    /// A message.
    type Told: Send;

    /// The next message. Cancel-safe.
    fn told(&mut self) -> impl Future<Output = Result<Self::Told, bus::Error>> + Send;
}

/// Waits for a message, and takes those that follow within [`GATHER`].
async fn gather<S: Source>(source: &mut S) -> Result<Vec<S::Told>, bus::Error> {
    let mut gathered = vec![source.told().await?];
    let end = Instant::now() + GATHER;
    while gathered.len() < BATCH_MAX {
        match timeout_at(end, source.told()).await {
            Ok(message) => gathered.push(message?),
            Err(_) => break,
        }
    }
    Ok(gathered)
}
