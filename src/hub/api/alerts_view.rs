//! What the pages ask about alerts.

use serde::Serialize;

use super::pages::{Pages, Refused, answer};
use crate::hub::store::alerts_view::Alerts;
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
}

async fn alerts(state: State<Pages>, asked: HeaderMap) -> Result<Response, Refused> {
    state.all()?;
    let now = state.now.get();
    let alerts = state.eyes.alerts(now).await?;
    Ok(answer(&asked, &Told { alerts, at: now.unix_ms() }))
}
