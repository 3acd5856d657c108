//! The event stream of a tab.
//!
//! Must hold: who is too slow is told to take a new picture; there are at most [`super::live::STREAMS_MAX`] streams,
//! and all end when the hub does; what a job writes is told to those alone who may read it, and only while it runs.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::fleet::{find, key_of};
use super::live::{Message, Topic};
use super::pages::{self, FRESH, Pages, Refused};
use crate::hub::logs::{self, Followed, Whose};
use crate::web::extract::{ConnectInfo, Extension, State};
use crate::web::http::{StatusCode, header};
use crate::web::response::sse::{Event, KeepAlive, Sse};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Peer, Router};

pub use super::live::Live;

/// A stream that says nothing for so long says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a stream may last: then the page asks for a new one.
const STAY: Duration = Duration::from_mins(10);

/// How soon a page that lost its stream asks for a new one.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/api/stream", get(open))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// Topics, separated by commas.
    topics: String,
    /// The node and the job whose log is to come too; empty for none.
    log_node: String,
    log_job: String,
}

async fn open(
    state: State<Pages>,
    pages::Asked(Asked { topics, log_node, log_job }): pages::Asked<Asked>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    person: Option<Extension<pages::Reader>>,
) -> Result<Response, Refused> {
    state.all()?;
    let topic = |name: &str| Topic::ALL.into_iter().find(|topic| topic.name() == name);
    let topics: Option<BTreeSet<Topic>> = topics.split(',').map(topic).collect();
    let Some(topics) = topics else {
        return Err(Refused::Wrong("topics are of fleet, alerts, events".to_owned()));
    };
    let log = if log_job.is_empty() {
        None
    } else {
        let reader = match (&person, &peer) {
            (Some(Extension(pages::Reader(name))), _) => format!("person {name}"),
            (None, Some(Extension(ConnectInfo(peer)))) => peer.address.ip().to_string(),
            (None, None) => String::new(),
        };
        Some(log(&state, (&log_node, &log_job), &reader).await?)
    };
    let live = &state.live;
    if live.end.is_cancelled() {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let Ok(place) = Arc::clone(&live.places).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "30")];
        return Ok((StatusCode::SERVICE_UNAVAILABLE, retry).into_response());
    };
    if let Some(Extension(ConnectInfo(peer))) = peer {
        peer.may_stay(STAY);
    }
    let hello = json!({
        "hello": env!("CARGO_PKG_VERSION"),
        "at": state.now.get().unix_ms(),
    });
    let (log, of_log) = match log {
        None => (None, None),
        Some(Ok(log)) => {
            let state = logs::state(log.is_heard).to_string();
            (Some(log), Some(state))
        }
        Some(Err(why)) => (None, Some(logs::refused(&why))),
    };
    let reader = Reader {
        messages: live.messages.subscribe(),
        first: of_log.into_iter().chain([hello.to_string()]).collect(),
        end: live.end.clone(),
        topics,
        log,
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

/// The log that is asked for, or why it is not shown: the rest of the stream comes without it.
async fn log(
    state: &Pages,
    (node, job): (&str, &str),
    reader: &str,
) -> Result<Result<Followed, String>, Refused> {
    const NONE: Refused = Refused::Unknown("this node has no account, so it sends no logs");
    let node = find(state, node)?;
    let address = node.address.ok_or(NONE)?;
    let wrong = |_| Refused::Wrong("log_job is no id of a job".to_owned());
    let whose = Whose { node: address, job: job.parse().map_err(wrong)? };
    let refused = |why: &str| Ok(Err(why.to_owned()));
    if !state.site.shows_logs {
        return refused("what jobs write is shown to people who are logged in");
    }
    match state.eyes.is_over(key_of(&node), job.to_owned()).await? {
        None => refused("the hub has heard of no such job of this node"),
        Some(true) => refused("the job is over"),
        Some(false) => Ok(state.live.logs.follow(whose, reader).map_err(|why| why.to_string())),
    }
}

/// One tab.
#[derive(Debug)]
struct Reader {
    messages: broadcast::Receiver<Message>,
    /// What is said before anything else, the last one first.
    first: Vec<String>,
    topics: BTreeSet<Topic>,
    log: Option<Followed>,
    end: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next message; `None` once the hub ends.
    async fn next(&mut self) -> Option<String> {
        if let Some(first) = self.first.pop() {
            return Some(first);
        }
        loop {
            let message = tokio::select! {
                () = self.end.cancelled() => return None,
                message = self.messages.recv() => message,
                lines = next_of(&mut self.log) => match lines {
                    Ok(lines) => return Some(lines.to_string()),
                    Err(RecvError::Lagged(_)) => return Some(logs::LOST.to_owned()),
                    Err(RecvError::Closed) => {
                        self.log = None;
                        continue;
                    }
                },
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

/// What comes next of a log; never, without one.
async fn next_of(log: &mut Option<Followed>) -> Result<Arc<str>, RecvError> {
    match log {
        Some(log) => log.lines.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::time::Instant;

    use super::super::live::{GATHER, MESSAGES_MAX, STREAMS_MAX};
    use super::super::pages::{Now, Show};
    use super::*;
    use crate::bus::Recorded;
    use crate::clock::Timestamp;
    use crate::hub::fleet::{Fleet, Node};
    use crate::hub::store::Store;
    use crate::hub::store::view::Eyes;
    use crate::ids::Address;

    fn reader(live: &Live, topics: &[Topic]) -> Reader {
        Reader {
            messages: live.messages.subscribe(),
            first: Vec::new(),
            log: None,
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
        let pages = pages::tests::pages(Fleet::new([]), Show::Full);
        let ask = async |topics: &str| {
            let asked = Asked { topics: topics.to_owned(), ..Asked::default() };
            let answer = open(State(pages.clone()), pages::Asked(asked), None, None).await;
            answer.map(|answer| answer.status())
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

    #[tokio::test]
    async fn a_log_is_of_a_job_that_runs_and_for_who_may_read_logs() {
        let mut node = Node::new("a".to_owned(), at(1));
        node.address = Some(Address::new([7; 20]));
        let status = |seq: u64, job: &str, word: &str| Recorded {
            agent: Address::new([7; 20]),
            job: job.parse().unwrap(),
            seq,
            at: at(1),
            body: json!({ "status": word }).to_string().into(),
        };
        let store = Store::in_memory().unwrap();
        let told = vec![status(1, "runs", "processing"), status(2, "ended", "completed")];
        store.keep_statuses(told).await.unwrap();
        let mut pages = pages::tests::pages(Fleet::new([node]), Show::Full);
        pages.eyes = Eyes::of(store);
        let why = async |pages: &Pages, job: &str| {
            log(pages, ("a", job), "ann").await.unwrap().map_or_else(|why| why, |_| String::new())
        };
        assert!(why(&pages, "runs").await.contains("people who are logged in"));
        Arc::make_mut(&mut pages.site).shows_logs = true;
        assert_eq!(why(&pages, "runs").await, "");
        assert_eq!(why(&pages, "ended").await, "the job is over");
        for n in 0..40 {
            assert!(why(&pages, &format!("made-up-{n}")).await.contains("no such job"));
        }
        assert_eq!(pages.live.logs.unheard().len(), 1, "the log of a job that runs");
        assert!(matches!(log(&pages, ("a", "no id"), "ann").await, Err(Refused::Wrong(_))));
    }
}
