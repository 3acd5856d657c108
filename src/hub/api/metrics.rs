//! `GET /metrics`: what the hub tells Prometheus of itself. Who may see the nodes may see it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::Refusal;
use super::{Shared, auth, people};
use crate::fleet::clocks::Standing;
use crate::hub::pair::Pair;
use crate::hub::settings::Public;
use crate::notify::partner::Turn;
use crate::telemetry::{CONTENT_TYPE, Family, Page};
use crate::web::extract::{ConnectInfo, State};
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Peer, Router};

/// How long the store may take to count.
const COUNT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    head: HeaderMap,
) -> Result<Response, Refusal> {
    if people::sight(&shared, &head).await? == Public::Off {
        return Err(if auth::has_token(&head) {
            shared.refuse(&peer)
        } else {
            Refusal::Unauthorized
        });
    }
    let text = page(&shared).await.into_text();
    Ok(match text {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^52")]
async fn page(shared: &Shared) -> Page {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.put_of(Family::HubBuild, &[version], 1.0);
    page.put(Family::HubStarted, shared.began.unix_ms() as f64 / 1_000.0);
    let all = shared.fleet.all();
    for standing in Standing::ALL {
        let count = all.iter().filter(|node| node.standing == standing).count();
        page.put_of(Family::HubNodes, &[standing.as_str()], count as f64);
    }
    for sender in shared.pair.iter().flat_map(Pair::senders) {
        let sends = f64::from(u8::from(sender.turn != Turn::Theirs));
        page.put_of(Family::HubPair, &[sender.channel], sends);
    }
    page.put(Family::HubSockets, shared.views.sockets() as f64);
    page.put(Family::HubApplications, shared.apps.names(&shared.clock).len() as f64);
    let counted = &shared.counted;
    page.put(Family::HubBeats, counted.beats.load(Ordering::Relaxed) as f64);
    for (reason, counter) in
        [("unauthorized", &counted.unauthorized), ("invalid", &counted.invalid)]
    {
        page.put_of(Family::HubRefused, &[reason], counter.load(Ordering::Relaxed) as f64);
    }
    // What can't be counted in time is absent.
    if let Ok(Ok(waiting)) = tokio::time::timeout(COUNT, shared.store.notices_waiting()).await {
        for (channel, count) in waiting {
            page.put_of(Family::HubNotices, &[&channel], f64::from(count));
        }
    }
    page
}
