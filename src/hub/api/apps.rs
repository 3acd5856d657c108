//! The applications, as SOLLOL's dashboard takes and lists them: to the letter, and with a proof of who speaks.

use serde_json::{Value, json};

use super::Shared;
use super::asked::Id;
use super::foreign::{self, Foreign};
use crate::hub::apps::Told;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::{get, post};
use crate::web::{Json, Peer, Router};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/applications", get(list))
        .route("/api/applications/register", post(register))
        .route("/api/applications/heartbeat", post(heartbeat))
        .route("/api/applications/unregister", post(unregister))
        .route("/api/applications/{id}/unregister", post(unregister_named))
}

async fn list(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    head: HeaderMap,
) -> Result<Response, Foreign> {
    foreign::sees_all(&shared, &head, &peer).await?;
    let told = Json(shared.apps.list(&shared.clock));
    Ok(([(header::CACHE_CONTROL, "no-store")], told).into_response())
}

/// Takes what an application says, and returns its id.
async fn take(shared: &Shared, peer: &Peer, request: Request) -> Result<String, Foreign> {
    let (head, body) = request.into_parts();
    foreign::may_speak(shared, &head.headers, peer)?;
    let body = foreign::object(&head.headers, body).await?;
    let told = Told::of(&body).map_err(|err| Foreign::bad(err.to_string()))?;
    let id = told.id.clone();
    let full = |err: crate::hub::apps::Full| {
        Foreign::Said(StatusCode::SERVICE_UNAVAILABLE, err.to_string())
    };
    shared.apps.take(told, &shared.clock).map_err(full)?;
    Ok(id)
}

async fn register(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Foreign> {
    let id = take(&shared, &peer, request).await?;
    Ok(Json(json!({"status": "registered", "app_id": id})))
}

async fn heartbeat(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Foreign> {
    take(&shared, &peer, request).await?;
    Ok(Json(json!({"status": "ok"})))
}

async fn unregister(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Foreign> {
    let (head, body) = request.into_parts();
    foreign::may_speak(&shared, &head.headers, &peer)?;
    let body = foreign::object(&head.headers, body).await?;
    let id = body.get("app_id").and_then(Value::as_str).unwrap_or_default();
    forget(&shared, id)
}

/// As the dashboard's own client calls it.
async fn unregister_named(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Id(id): Id,
    head: HeaderMap,
) -> Result<Json<Value>, Foreign> {
    foreign::may_speak(&shared, &head, &peer)?;
    forget(&shared, &id)
}

fn forget(shared: &Shared, id: &str) -> Result<Json<Value>, Foreign> {
    if shared.apps.forget(id, &shared.clock) {
        return Ok(Json(json!({"status": "unregistered"})));
    }
    Err(Foreign::unknown("Unknown app_id"))
}
