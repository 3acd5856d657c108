//! Silences: who knows of a trouble doesn't want to be told of it for a while.
//!
//! Invariant: a silence ends by itself, and only an admin may begin or end one.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Refusal;
use super::{Shared, body, people};
use crate::clock::Clock as _;
use crate::fleet::alerts::Silence;
use crate::hub::store::Error;
use crate::web::extract::rejection::PathRejection;
use crate::web::extract::{ConnectInfo, Path, Request, State};
use crate::web::routing::{delete, post};
use crate::web::{Json, Peer, Router};

/// The longest silence: 30 days.
const LASTS_MAX_S: u64 = 30 * 86_400;

/// The longest text of a silence, in bytes.
const TEXT_BYTES_MAX: usize = 200;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/api/silences", post(begin)).route("/api/silences/{id}", delete(end))
}

/// A silence as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Only this rule; `*` stands for any text.
    rule: Option<String>,
    /// Only nodes whose name matches; `*` stands for any text.
    nodes: Option<String>,
    /// How long, in seconds.
    lasts_s: u64,
    #[serde(default)]
    why: String,
}

async fn begin(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (head, body) = request.into_parts();
    people::only_admin(&shared, &head.headers, &peer).await?;
    let bytes = body::bytes(&head.headers, body).await?;
    let asked: Asked =
        serde_json::from_slice(&bytes).map_err(|err| Refusal::bad(err.to_string()))?;
    let texts = [asked.rule.as_deref(), asked.nodes.as_deref(), Some(&asked.why)];
    if texts.iter().flatten().any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(Refusal::bad(format!("a text has at most {TEXT_BYTES_MAX} bytes")));
    }
    if asked.rule.as_deref() == Some("") || asked.nodes.as_deref() == Some("") {
        return Err(Refusal::bad("an empty rule or nodes matches nothing: leave it out"));
    }
    if !(1..=LASTS_MAX_S).contains(&asked.lasts_s) {
        return Err(Refusal::bad(format!("lasts_s is from 1 to {LASTS_MAX_S}")));
    }
    let by = people::person(&shared, &head.headers).await?.map(|person| person.name);
    let now = shared.clock.now();
    let silence = Silence {
        id: 0,
        rule: asked.rule,
        nodes: asked.nodes,
        until: now.plus(Duration::from_secs(asked.lasts_s)),
        by: by.unwrap_or_default(),
        why: crate::report::one_line(&asked.why, TEXT_BYTES_MAX),
    };
    let all =
        shared.store.book().silence(silence, now, obey(&shared)).await.map_err(Error::from)?;
    Ok(Json(json!({ "silences": all })))
}

async fn end(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    path: Result<Path<u64>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    people::only_admin(&shared, request.headers(), &peer).await?;
    let Path(id) = path.map_err(|err| Refusal::bad(err.body_text()))?;
    let all = shared
        .store
        .book()
        .end_silence(id, shared.clock.now(), obey(&shared))
        .await
        .map_err(Error::from)?;
    Ok(Json(json!({ "silences": all })))
}

/// Has the rules obey the silences from now on.
fn obey(shared: &Shared) -> impl FnOnce(&Vec<Silence>) + Send + 'static + use<> {
    let (silences, live) = (Arc::clone(&shared.silences), shared.live.clone());
    let poke = Arc::clone(&shared.poke);
    move |all| {
        silences.send_replace(all.clone());
        live.alerts();
        poke.notify_one();
    }
}
