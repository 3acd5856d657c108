//! The event stream of a tab: what changed, gathered and written once for all who watch.
//!
//! Must hold: a change is told at once, or [`GATHER`] after the last message; who is too slow is told to take a
//! new picture; there are at most [`STREAMS_MAX`] streams, and all end when the hub does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pages::{FRESH, Now, Pages, Refused};
use crate::hub::fleet::view::{Counts, Row};
use crate::hub::fleet::{Change, Fleet, Node};
use crate::hub::store::view::EventRow;
use crate::web::extract::{ConnectInfo, Extension, Query, State};
use crate::web::http::{StatusCode, header};
use crate::web::response::sse::{Event, KeepAlive, Sse};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Peer, Router};

/// How long changes are gathered into one message.
pub const GATHER: Duration = Duration::from_millis(200);

/// The most streams at a time.
pub const STREAMS_MAX: usize = 1_000;

/// How many messages a reader may be behind.
const MESSAGES_MAX: usize = 64;

/// A stream that says nothing for so long says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a stream may last: then the page asks for a new one.
const STAY: Duration = Duration::from_hours(24);

/// How soon a page that lost its stream asks for a new one.
const RETRY: Duration = Duration::from_secs(1);

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    /// Nodes.
    Fleet,
    /// Incidents, and what was told of them.
    Alerts,
    /// Events of nodes.
    Events,
}

impl Topic {
    const ALL: [Self; 3] = [Self::Fleet, Self::Alerts, Self::Events];

    const fn name(self) -> &'static str {
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
struct Message {
    topic: Topic,
    text: Arc<str>,
}

/// Tells all who watch. Clones share it.
#[derive(Debug, Clone)]
pub struct Live {
    messages: broadcast::Sender<Message>,
    news: broadcast::Sender<News>,
    places: Arc<Semaphore>,
    end: CancellationToken,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            messages: broadcast::channel(MESSAGES_MAX).0,
            news: broadcast::channel(MESSAGES_MAX).0,
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
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

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/api/stream", get(open))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// Topics, separated by commas.
    topics: String,
}

async fn open(
    state: State<Pages>,
    Query(Asked { topics }): Query<Asked>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
) -> Result<Response, Refused> {
    state.all()?;
    if let Some(Extension(ConnectInfo(peer))) = peer {
        peer.may_stay(STAY);
    }
    let topic = |name: &str| Topic::ALL.into_iter().find(|topic| topic.name() == name);
    let topics: Option<BTreeSet<Topic>> = topics.split(',').map(topic).collect();
    let Some(topics) = topics else {
        return Err(Refused::Wrong("topics are of fleet, alerts, events".to_owned()));
    };
    let live = &state.live;
    if live.end.is_cancelled() {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let Ok(place) = Arc::clone(&live.places).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "30")];
        return Ok((StatusCode::SERVICE_UNAVAILABLE, retry).into_response());
    };
    let hello = json!({
        "hello": env!("CARGO_PKG_VERSION"),
        "at": state.now.get().unix_ms(),
    });
    let reader = Reader {
        messages: live.messages.subscribe(),
        hello: Some(hello.to_string()),
        end: live.end.clone(),
        topics,
        _place: place,
    };
    let events = stream::unfold(reader, async |mut reader| {
        let text = reader.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(text)), reader))
    });
    let retry = stream::iter([Ok(Event::default().retry(RETRY))]);
    // An event of its own: a page can't see comments, and is to know how old its picture may be.
    let tick =
        KeepAlive::new().interval(KEEP_ALIVE).event(Event::default().event("tick").data("."));
    let sse = Sse::new(stream::StreamExt::chain(retry, events)).keep_alive(tick);
    Ok((FRESH, sse).into_response())
}

/// One tab.
#[derive(Debug)]
struct Reader {
    messages: broadcast::Receiver<Message>,
    hello: Option<String>,
    topics: BTreeSet<Topic>,
    end: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next message; `None` once the hub ends.
    async fn next(&mut self) -> Option<String> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        loop {
            let message = tokio::select! {
                () = self.end.cancelled() => return None,
                message = self.messages.recv() => message,
            };
            match message {
                Ok(message) if self.topics.contains(&message.topic) => {
                    return Some(message.text.to_string());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some(r#"{"snapshot":"all"}"#.to_owned()),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::pages::Show;
    use super::*;
    use crate::clock::Timestamp;

    fn reader(live: &Live, topics: &[Topic]) -> Reader {
        Reader {
            messages: live.messages.subscribe(),
            hello: None,
            topics: topics.iter().copied().collect(),
            end: live.end.clone(),
            _place: Arc::clone(&live.places).try_acquire_owned().unwrap(),
        }
    }

    async fn next(reader: &mut Reader) -> Value {
        let text = tokio::time::timeout(Duration::from_secs(30), reader.next()).await;
        serde_json::from_str(&text.expect("it is told").expect("it goes on")).unwrap()
    }

    fn now() -> Now {
        Now::new(|| Timestamp::from_unix_ms(77))
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_message_and_a_beat_alone_is_short() {
        let (live, fleet) = (Live::default(), Fleet::new([]));
        let mut reader = reader(&live, &[Topic::Fleet]);
        let look = async {
            tokio::task::yield_now().await;
            for n in 0..50 {
                fleet.update(&format!("n{n}"), at(n), |_| ());
                fleet.update(&format!("n{n}"), at(n), |it| it.ip = "<b>".to_owned());
            }
            let burst = next(&mut reader).await;
            assert_eq!((burst["rows"].as_array().unwrap().len(), &burst["at"]), (50, &77.into()));
            assert_eq!(
                (&burst["rows"][0]["ip"], &burst["counts"]["up"]),
                (&"<b>".into(), &50.into())
            );
            fleet.update("n7", at(9), |it| it.heard.own = Some(at(9)));
            fleet.remove("n8");
            let beat = next(&mut reader).await;
            assert_eq!(beat["beats"], json!([["n7", 9, null, null, null, null]]));
            assert_eq!((&beat["rows"], &beat["gone"]), (&json!([]), &json!(["n8"])));
            fleet.update("n8", at(9), |_| ());
            assert_eq!(next(&mut reader).await["rows"][0]["name"], "n8");
        };
        let now = now();
        tokio::select! { () = live.tell(&fleet, &now) => panic!("it ended"), () = look => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_change_is_told_at_once_and_the_next_one_after_the_gathering() {
        let (live, fleet) = (Live::default(), Fleet::new([]));
        let mut reader = reader(&live, &[Topic::Fleet]);
        let look = async {
            tokio::task::yield_now().await;
            tokio::time::advance(GATHER * 2).await;
            let begun = Instant::now();
            fleet.update("a", at(1), |_| ());
            next(&mut reader).await;
            assert!(begun.elapsed() < Duration::from_millis(2), "{:?}", begun.elapsed());
            fleet.update("b", at(1), |_| ());
            next(&mut reader).await;
            let gone = begun.elapsed();
            assert!(gone >= GATHER && gone < GATHER * 2, "{gone:?}");
        };
        let now = now();
        tokio::select! { () = live.tell(&fleet, &now) => panic!("it ended"), () = look => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_takes_a_new_picture_and_others_miss_nothing() {
        let (live, fleet) = (Live::default(), Fleet::new([]));
        let (mut slow, mut quick) = (reader(&live, &[Topic::Fleet]), reader(&live, &Topic::ALL));
        let look = async {
            tokio::task::yield_now().await;
            for n in 0..MESSAGES_MAX + 2 {
                fleet.update("a", at(1), |it| it.meta = n.to_string());
                assert_eq!(next(&mut quick).await["rows"][0]["meta"], n.to_string());
            }
            assert_eq!(next(&mut slow).await["snapshot"], "all");
            live.alerts();
            assert_eq!(next(&mut quick).await["alerts"], true);
            live.end();
            assert_eq!(quick.next().await, None, "the hub ends");
        };
        let now = now();
        tokio::join!(live.tell(&fleet, &now), look);
        drop((slow, quick));
        assert_eq!(live.streams(), 0);
    }

    #[tokio::test]
    async fn a_stream_too_many_is_refused_and_none_begins_once_the_hub_ends() {
        let pages = super::super::pages::tests::pages(Fleet::new([]), Show::Full);
        let ask = async |topics: &str| {
            let asked = Asked { topics: topics.to_owned() };
            open(State(pages.clone()), Query(asked), None).await.map(|answer| answer.status())
        };
        assert_eq!(ask("fleet,events").await.unwrap(), StatusCode::OK);
        assert_eq!(pages.live.streams(), 0, "the answer was dropped, and its place is free");
        assert!(matches!(ask("fleet,secrets").await, Err(Refused::Wrong(_))));
        let all = u32::try_from(STREAMS_MAX).unwrap();
        let taken = pages.live.places.try_acquire_many(all).unwrap();
        assert_eq!(ask("fleet").await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        drop(taken);
        assert_eq!(ask("fleet").await.unwrap(), StatusCode::OK);
        pages.live.end();
        assert_eq!(ask("fleet").await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
