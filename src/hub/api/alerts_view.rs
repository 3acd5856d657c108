//! What the pages ask about alerts.

use serde::Serialize;

use super::pages::{Pages, Refused, answer};
use crate::clock::Timestamp;
use crate::hub::pair::{Pair, Sender};
use crate::hub::store::alerts_view::Alerts;
use crate::notify::partner::Turn;
use crate::web::Router;
use crate::web::extract::State;
use crate::web::http::HeaderMap;
use crate::web::response::Response;
use crate::web::routing::get;

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/api/alerts", get(alerts))
}

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    alerts: Alerts,
    at: u64,
    /// Of a hub that shares its alerts with another one: who sends over which channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pair: Option<Shares>,
}

#[derive(Serialize)]
struct Shares {
    hub: String,
    channels: Vec<Shared>,
}

#[derive(Serialize)]
struct Shared {
    channel: &'static str,
    /// `this`, `other`, or `each` while neither can ask the other.
    sends: &'static str,
    hub: Option<String>,
    since: Option<u64>,
}

fn shares(pair: &Pair) -> Shares {
    let sends = |it: Sender| Shared {
        channel: it.channel,
        sends: match it.turn {
            Turn::Mine => "this",
            Turn::Theirs => "other",
            Turn::Alone => "each",
        },
        hub: it.hub.map(|hub| hub.to_string()),
        since: it.since.map(Timestamp::unix_ms),
    };
    Shares {
        hub: pair.name().to_string(),
        channels: pair.senders().into_iter().map(sends).collect(),
    }
}

async fn alerts(state: State<Pages>, asked: HeaderMap) -> Result<Response, Refused> {
    state.all()?;
    let now = state.now.get();
    let alerts = state.eyes.alerts(now).await?;
    let pair = state.pair.as_ref().map(shares);
    Ok(answer(&asked, &Told { alerts, at: now.unix_ms(), pair }))
}
