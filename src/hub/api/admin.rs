//! The original's calls for its owner: rename, delete, prune, and whether a node's rank is told.
//!
//! Invariant: nothing is said and nothing done without the owner's token, which comes first.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::Refusal;
use super::{Shared, body};
use crate::clock::Clock as _;
use crate::fleet::beat;
use crate::hub::store::nodes::Renamed;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::StatusCode;
use crate::web::routing::post;
use crate::web::{Json, Peer, Router};

/// The most days of [`prune`]: a hundred years.
const DAYS_MAX: u64 = 36_500;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/admin/rename", post(rename))
        .route("/api/admin/delete", post(delete))
        .route("/api/admin/prune", post(prune))
        .route("/api/nodes/gswarm/alert", post(gswarm_alert))
}

type Answer = Result<Json<Value>, Refusal>;

/// The body of a request that the owner sent.
async fn admins(shared: &Shared, peer: &Peer, request: Request) -> Result<Vec<u8>, Refusal> {
    let (head, body) = request.into_parts();
    shared.only_admin(&head.headers, peer)?;
    body::bytes(&head.headers, body).await
}

/// The body of such a request that is about one node, and the node's name.
async fn of_node(
    shared: &Shared,
    peer: &Peer,
    request: Request,
) -> Result<(Map<String, Value>, String), Refusal> {
    let body = body::object(&admins(shared, peer, request).await?)?;
    let name = body::text(&body, "node_id")?;
    if name.is_empty() {
        return Err(Refusal::bad("node_id required"));
    }
    Ok((body, name))
}

async fn rename(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Answer {
    let body = body::object(&admins(&shared, &peer, request).await?)?;
    let (old, new) = (body::text(&body, "old_id")?, body::text(&body, "new_id")?);
    if old.is_empty() || new.is_empty() {
        return Err(Refusal::bad("old_id/new_id required"));
    }
    let new = beat::name(&new)?;
    if old == new {
        return Ok(Json(json!({"ok": true, "renamed": false})));
    }
    let (tokens, fleet) = (shared.tokens.clone(), shared.fleet.clone());
    let (from, to) = (old.clone(), new.clone());
    let then = move |done: &Renamed| {
        if *done == Renamed::Done {
            tokens.move_node(&from, Some(&to));
            fleet.rename(&from, &to);
        }
    };
    match shared.store.rename(old.clone(), new.clone(), then).await? {
        Renamed::NoSuch => Err(no_such()),
        Renamed::Taken => {
            Err(Refusal::Plain(StatusCode::CONFLICT, "new_id already exists".to_owned()))
        }
        Renamed::Done => {
            Ok(Json(json!({"ok": true, "renamed": true, "old_id": old, "new_id": new})))
        }
    }
}

async fn delete(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Answer {
    let (_, name) = of_node(&shared, &peer, request).await?;
    let (tokens, fleet, gone) = (shared.tokens.clone(), shared.fleet.clone(), name.clone());
    let then = move |_: &bool| {
        tokens.move_node(&gone, None);
        fleet.remove(&gone);
    };
    shared.store.remove(name.clone(), then).await?;
    Ok(Json(json!({"ok": true, "deleted": name})))
}

async fn prune(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Answer {
    let days = days(body::json(&admins(&shared, &peer, request).await?)?)?;
    let set = shared.settings.prune.map(|span| span.as_secs() / 86_400);
    let Some(days) = days.or(set).filter(|days| *days > 0) else {
        return Ok(Json(json!({"ok": true, "deleted": 0, "skipped": true})));
    };
    let gone = forget(&shared, Duration::from_secs(days.min(DAYS_MAX) * 86_400)).await?;
    Ok(Json(json!({"ok": true, "deleted": gone, "cutoff_days": days})))
}

/// Forgets the nodes that were silent for so long, and returns how many.
pub(in crate::hub) async fn forget(shared: &Shared, silent: Duration) -> Result<usize, Refusal> {
    let now = shared.clock.now();
    let before = crate::clock::Timestamp::from_unix_ms(
        now.unix_ms().saturating_sub(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
    );
    let (tokens, fleet) = (shared.tokens.clone(), shared.fleet.clone());
    let then = move |names: &Vec<String>| {
        for name in names {
            tokens.move_node(name, None);
            fleet.remove(name);
        }
    };
    Ok(shared.store.prune(before, then).await?.len())
}

/// The days of `{"days": 7}`, or of `7` alone, as the original reads it; `None`: as it is set.
fn days(body: Value) -> Result<Option<u64>, Refusal> {
    let written = match body {
        Value::Object(mut map) => map.remove("days").unwrap_or(Value::Null),
        other => other,
    };
    let number = match &written {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let what = "Input should be a valid integer";
    let number = number.ok_or_else(|| Refusal::wrong("int_type", &["days"], what, written))?;
    Ok(Some(u64::try_from(number).unwrap_or(0)))
}

async fn gswarm_alert(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Answer {
    let (body, name) = of_node(&shared, &peer, request).await?;
    let enabled = match body.get("enabled") {
        Some(Value::String(text)) => {
            !["0", "false", "no", "off"].contains(&text.trim().to_ascii_lowercase().as_str())
        }
        Some(Value::Bool(enabled)) => *enabled,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        _ => false,
    };
    let (fleet, told) = (shared.fleet.clone(), name.clone());
    let then = move |set: &Option<Map<String, Value>>| {
        fleet.update_if_known(&told, |node| node.gswarm.clone_from(set));
    };
    shared.store.set_gswarm_alert(name.clone(), enabled, then).await?.ok_or_else(no_such)?;
    Ok(Json(json!({"ok": true, "node_id": name, "enabled": enabled})))
}

fn no_such() -> Refusal {
    Refusal::Plain(StatusCode::NOT_FOUND, "node not found".to_owned())
}
