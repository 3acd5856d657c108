//! The live views of SOLLOL's dashboard, each a WebSocket.
//!
//! Must hold: only who may see everything watches, and no page of another site; there are at most
//! [`crate::hub::views::SOCKETS_MAX`] sockets; each ends when its client is silent or too slow, after [`STAY`], and
//! when the hub does, with a code that says why.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Shared;
use super::asked::Asked as Query;
use super::foreign::{self, Foreign};
use crate::fleet::seed_view::sockets::View;
use crate::hub::views::Message;
use crate::ids::Address;
use crate::web::extract::ws::rejection::WebSocketUpgradeRejection;
use crate::web::extract::ws::{self, CloseFrame, Utf8Bytes, WebSocket, WebSocketUpgrade};
use crate::web::extract::{ConnectInfo, State};
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Peer, Router};

/// How long a socket may last: then its client opens another.
const STAY: Duration = Duration::from_hours(1);

/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(20);

/// A client that says nothing for so long, not even that it is there, is gone.
const SILENT: Duration = Duration::from_mins(1);

/// How long a client may take to take a message.
const WRITE: Duration = Duration::from_secs(10);

/// The longest message of a client, in bytes; none of them means anything.
const RECEIVED_BYTES_MAX: usize = 4 * 1024;

/// The longest name of a node that is asked for, in bytes.
const NODE_BYTES_MAX: usize = 256;

/// What is read before it is written goes on elsewhere, in time: RFC 6455's "going away".
const AWAY: u16 = 1001;

/// The IANA's "try again later".
const LATER: u16 = 1013;

pub(super) fn routes() -> Router<Shared> {
    View::ALL.into_iter().fold(Router::new(), |router, view| {
        let open = async move |state, asked, peer, head, upgrade| {
            open(view, state, asked, (peer, head), upgrade).await
        };
        router.route(view.path(), get(open))
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// Only what is about this node, by its address or its name.
    node: String,
}

async fn open(
    view: View,
    State(shared): State<Shared>,
    asked: Result<Query<Asked>, Foreign>,
    (ConnectInfo(peer), head): (ConnectInfo<Peer>, HeaderMap),
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if let Err(refusal) = foreign::sees_all(&shared, &head, &peer).await {
        return refusal.into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let asked = match asked {
        Ok(Query(asked)) if asked.node.len() <= NODE_BYTES_MAX => asked,
        Ok(_) => return Foreign::bad("no node has such a name").into_response(),
        Err(refused) => return refused.into_response(),
    };
    let retry = [(header::RETRY_AFTER, "30")];
    let place = shared.views.place().filter(|_| !shared.live.end.is_cancelled());
    let Some(place) = place else {
        return (StatusCode::SERVICE_UNAVAILABLE, retry).into_response();
    };
    peer.may_stay(STAY + WRITE + SILENT);
    let upgrade = upgrade.max_message_size(RECEIVED_BYTES_MAX).max_frame_size(RECEIVED_BYTES_MAX);
    upgrade.on_upgrade(async move |socket| {
        Reader::of(view, &asked.node, shared, place).serve(socket).await;
    })
}

/// One client.
#[derive(Debug)]
struct Reader {
    view: View,
    /// Only what is about this node.
    node: Option<String>,
    shared: Shared,
    told: broadcast::Receiver<Message>,
    _place: OwnedSemaphorePermit,
}

/// Why a socket ends.
enum End {
    /// Its client is told why.
    Said(u16, &'static str),
    /// Its client is gone.
    Gone,
}

impl Reader {
    fn of(view: View, node: &str, shared: Shared, place: OwnedSemaphorePermit) -> Self {
        let node = match node.parse::<Address>() {
            Ok(address) => Some(address.lower_hex()),
            Err(_) if node.is_empty() => None,
            // What is told is about addresses, where a node has one.
            Err(_) => Some(match shared.fleet.get(node).and_then(|node| node.address) {
                Some(address) => address.lower_hex(),
                None => node.to_owned(),
            }),
        };
        // Before the picture, so that nothing is missed between the two.
        let told = shared.views.watch();
        Self { view, node, shared, told, _place: place }
    }

    async fn serve(mut self, mut socket: WebSocket) {
        let ended = self.show(&mut socket).await;
        if let End::Said(code, reason) = ended {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let close = async {
                socket.send(ws::Message::Close(Some(frame))).await.ok()?;
                // The client's own close, or what it sent before; bounded by the time.
                while let Some(Ok(_)) = socket.recv().await {}
                Some(())
            };
            timeout(Duration::from_secs(2), close).await.ok();
        }
    }

    async fn show(&mut self, socket: &mut WebSocket) -> End {
        let Shared { views, fleet, apps, clock, .. } = &self.shared;
        for message in views.picture(self.view, fleet, apps, clock) {
            if self.is_for_it(&message) && !send(socket, message.text).await {
                return End::Gone;
            }
        }
        let until = Instant::now() + STAY;
        let mut heard = Instant::now();
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shared.live.end.cancelled() => return End::Said(AWAY, "the hub ends"),
                () = sleep_until(until) => return End::Said(AWAY, "it is time for a new socket"),
                message = self.told.recv() => match message {
                    Ok(message) => {
                        if self.is_for_it(&message) && !send(socket, message.text).await {
                            return End::Gone;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        return End::Said(LATER, "too slow: messages were lost");
                    }
                    Err(RecvError::Closed) => return End::Gone,
                },
                // Whatever a client says, it is there.
                said = socket.recv() => match said {
                    Some(Ok(ws::Message::Close(_)) | Err(_)) | None => return End::Gone,
                    Some(Ok(_)) => heard = Instant::now(),
                },
                _ = pings.tick() => {
                    if heard.elapsed() > SILENT || !ping(socket).await {
                        return End::Gone;
                    }
                }
            }
        }
    }

    fn is_for_it(&self, message: &Message) -> bool {
        let is_about = |about: &str| self.node.as_deref().is_none_or(|node| node == about);
        message.view == self.view && message.about.as_deref().is_none_or(is_about)
    }
}

/// Whether the client took it in time.
async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> bool {
    matches!(timeout(WRITE, socket.send(ws::Message::Text(text))).await, Ok(Ok(())))
}

async fn ping(socket: &mut WebSocket) -> bool {
    let ping = ws::Message::Ping(crate::web::body::Bytes::new());
    matches!(timeout(WRITE, socket.send(ping)).await, Ok(Ok(())))
}
