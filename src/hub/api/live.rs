//! What changes, gathered and written once for all who watch.
//!
//! Must hold: a change is told at once, or [`GATHER`] after the last message; what was lost is said, so that who
//! watches takes a new picture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::hub::fleet::view::{Counts, Row};
use crate::hub::fleet::{Change, Fleet, Node};
use crate::hub::logs::Logs;
use crate::hub::store::view::EventRow;

/// How long changes are gathered into one message.
pub const GATHER: Duration = Duration::from_millis(200);

/// The most streams at a time.
pub const STREAMS_MAX: usize = 1_000;

/// How many messages a reader may be behind.
pub(super) const MESSAGES_MAX: usize = 64;

/// Tells the time.
#[derive(Clone)]
pub struct Now(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Now {
    /// Asks this for the time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn get(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Nodes.
    Fleet,
    /// Incidents, and what was told of them.
    Alerts,
    /// Events of nodes.
    Events,
}

impl Topic {
    pub(super) const ALL: [Self; 3] = [Self::Fleet, Self::Alerts, Self::Events];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Alerts => "alerts",
            Self::Events => "events",
        }
    }
}

/// What somebody tells besides the fleet's own changes.
#[derive(Debug, Clone)]
enum News {
    /// Something about alerts is new.
    Alerts,
    /// This was heard.
    Event(Arc<EventRow>),
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Topic,
    pub(super) text: Arc<str>,
}

/// Tells all who watch. Clones share it.
#[derive(Debug, Clone)]
pub struct Live {
    pub(super) messages: broadcast::Sender<Message>,
    news: broadcast::Sender<News>,
    pub(super) places: Arc<Semaphore>,
    /// What jobs write now.
    pub logs: Logs,
    pub(in crate::hub) end: CancellationToken,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            messages: broadcast::channel(MESSAGES_MAX).0,
            news: broadcast::channel(MESSAGES_MAX).0,
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            logs: Logs::default(),
            end: CancellationToken::new(),
        }
    }
}

impl Live {
    /// Says that something about alerts is new. The page asks what.
    pub fn alerts(&self) {
        // Nobody may watch.
        self.news.send(News::Alerts).ok();
    }

    /// Tells an event that the hub has just written.
    pub fn event(&self, event: EventRow) {
        self.news.send(News::Event(Arc::new(event))).ok();
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        STREAMS_MAX.saturating_sub(self.places.available_permits())
    }

    /// Ends all streams, and lets no new one begin.
    pub fn end(&self) {
        self.end.cancel();
    }

    /// Writes what changes for all who watch, until the streams are ended.
    pub async fn tell(&self, fleet: &Fleet, now: &Now) {
        let mut said = Said::default();
        let (mut changes, mut news) = (fleet.watch(), self.news.subscribe());
        let mut told = Instant::now();
        loop {
            let mut batch = Batch::default();
            tokio::select! {
                () = self.end.cancelled() => return,
                change = changes.recv() => batch.take_change(change),
                it = news.recv() => batch.take_news(it),
            }
            let until = told + GATHER;
            while !batch.is_full() {
                tokio::select! {
                    () = self.end.cancelled() => return,
                    () = tokio::time::sleep_until(until) => break,
                    change = changes.recv() => batch.take_change(change),
                    it = news.recv() => batch.take_news(it),
                }
            }
            batch.take_waiting(&mut changes, &mut news);
            told = Instant::now();
            if self.messages.receiver_count() == 0 {
                // A reader that comes later takes a picture first.
                said = Said::default();
                continue;
            }
            for message in batch.into_messages(&mut said, fleet, now) {
                self.messages.send(message).ok();
            }
        }
    }
}

/// What happened since the last message.
#[derive(Debug, Default)]
struct Batch {
    nodes: BTreeMap<Arc<str>, Option<Arc<Node>>>,
    events: Vec<Arc<EventRow>>,
    has_alerts: bool,
    /// Topics of which something was lost.
    lost: BTreeSet<Topic>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.nodes.len() >= crate::hub::fleet::CHANGES_MAX || self.events.len() >= MESSAGES_MAX
    }

    /// Takes what waits already, at once.
    fn take_waiting(
        &mut self,
        changes: &mut broadcast::Receiver<Change>,
        news: &mut broadcast::Receiver<News>,
    ) {
        while let Ok(change) = changes.try_recv() {
            self.take_change(Ok(change));
            if self.is_full() {
                break;
            }
        }
        while let Ok(it) = news.try_recv() {
            self.take_news(Ok(it));
        }
    }

    fn take_change(&mut self, change: Result<Change, RecvError>) {
        match change {
            Ok(Change::Put(node)) => {
                self.nodes.insert(node.name.as_str().into(), Some(node));
            }
            Ok(Change::Gone(name)) => {
                self.nodes.insert(name, None);
            }
            Err(RecvError::Lagged(_)) => {
                self.lost.insert(Topic::Fleet);
            }
            // The fleet lives as long as this.
            Err(RecvError::Closed) => {}
        }
    }

    fn take_news(&mut self, news: Result<News, RecvError>) {
        match news {
            Ok(News::Alerts) => self.has_alerts = true,
            Ok(News::Event(event)) => self.events.push(event),
            Err(RecvError::Lagged(_)) => {
                self.lost.insert(Topic::Events);
                self.has_alerts = true;
            }
            Err(RecvError::Closed) => {}
        }
    }

    fn into_messages(self, said: &mut Said, fleet: &Fleet, now: &Now) -> Vec<Message> {
        let at = now.get().unix_ms();
        let mut messages = Vec::new();
        if self.lost.contains(&Topic::Fleet) {
            *said = Said::default();
        }
        for topic in &self.lost {
            messages.extend(message(*topic, &json!({ "snapshot": topic.name(), "at": at })));
        }
        if !self.nodes.is_empty() && !self.lost.contains(&Topic::Fleet) {
            let (mut rows, mut beats, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            for (name, node) in self.nodes {
                match node {
                    Some(node) if said.is_only_a_beat(&node) => beats.push(Beat::of(&node)),
                    Some(node) => rows.push(Row::of(&node)),
                    None => {
                        said.0.remove(&name);
                        gone.push(name.to_string());
                    }
                }
            }
            let counts = Counts::of(&fleet.all());
            messages.extend(message(Topic::Fleet, &Changed { rows, beats, gone, counts, at }));
        }
        if self.has_alerts {
            messages.extend(message(Topic::Alerts, &json!({ "alerts": true, "at": at })));
        }
        if !self.events.is_empty() {
            let events: Vec<&EventRow> = self.events.iter().map(AsRef::as_ref).collect();
            messages.extend(message(Topic::Events, &json!({ "events": events, "at": at })));
        }
        messages
    }
}

fn message(topic: Topic, body: &impl Serialize) -> Option<Message> {
    let text = serde_json::to_string(body).ok()?;
    Some(Message { topic, text: text.into() })
}

#[derive(Serialize)]
struct Changed {
    rows: Vec<Row>,
    beats: Vec<Beat>,
    gone: Vec<String>,
    counts: Counts,
    at: u64,
}

/// A node of which only the clocks are new: its name, and the last beat, message, sequence number, heartbeat and
/// block.
#[derive(Serialize)]
struct Beat(String, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

impl Beat {
    fn of(node: &Node) -> Self {
        let Row { name, own, nats, nats_seq, chain, chain_block, .. } = Row::of(node);
        Self(name, own, nats, nats_seq, chain, chain_block)
    }
}

/// What was told of each node, without its clocks, as a hash.
#[derive(Debug, Default)]
struct Said(HashMap<Arc<str>, u64>);

impl Said {
    /// Whether all but the clocks was told already. Remembers it as told.
    fn is_only_a_beat(&mut self, node: &Node) -> bool {
        let mut row = Row::of(node);
        (row.own, row.nats, row.nats_seq, row.chain, row.chain_block) = <_>::default();
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&row).unwrap_or_default().hash(&mut hasher);
        let hash = hasher.finish();
        self.0.insert(node.name.as_str().into(), hash) == Some(hash)
    }
}
