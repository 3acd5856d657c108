//! Nodes and jobs as the third original system's manager lists them, and what they told of what they use.
//!
//! Must hold: only who may see everything is answered; an answer has at most [`LIMIT_MAX`](super::asked::LIMIT_MAX) entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::asked::{Asked, Id, Part, Sees};
use super::foreign::Foreign;
use crate::clock::{Clock as _, Timestamp};
use crate::fleet::clocks::Standing;
use crate::hub::fleet::Node;
use crate::hub::store::proplets::{Span, Teller};
use crate::usage::heard::node_id;
use crate::web::extract::State;
use crate::web::http::header;
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Json, Router};

/// Another system's node that says nothing for so long is not alive: three of its own intervals.
const FOREIGN: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/proplets", get(list))
        .route("/proplets/", get(list))
        .route("/proplets/{id}", get(one))
        .route("/proplets/{id}/metrics", get(metrics))
        .route("/proplets/{id}/alive-history", get(alive_history))
        .route("/tasks/{id}/metrics", get(task_metrics))
}

/// Which nodes are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Which {
    /// `active` or `inactive`.
    status: String,
}

/// A part of a list, under this key.
pub(super) fn page(key: &str, rows: &[Value], total: u64, span: Span) -> Response {
    let Span { offset, limit } = span;
    told(&json!({"offset": offset, "limit": limit, "total": total, key: rows}))
}

/// An answer that nobody keeps.
pub(super) fn told(what: &Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(what)).into_response()
}

async fn list(
    State(shared): State<Shared>,
    _: Sees,
    Part(span): Part,
    Asked(which): Asked<Which>,
) -> Result<Response, Foreign> {
    let is_wanted = match &*which.status {
        "" => None,
        "active" => Some(true),
        "inactive" => Some(false),
        _ => return Err(Foreign::bad("invalid proplet status")),
    };
    let all = all(&shared).await?.into_values();
    let wanted: Vec<Proplet> =
        all.filter(|it| is_wanted.is_none_or(|alive| alive == it.is_alive)).collect();
    let total = wanted.len() as u64;
    let skip = usize::try_from(span.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(span.limit).unwrap_or(usize::MAX);
    let shown: Vec<Proplet> = wanted.into_iter().skip(skip).take(take).collect();
    let rows = show(&shared, shown).await?;
    Ok(page("proplets", &rows, total, span))
}

async fn one(State(shared): State<Shared>, _: Sees, Id(id): Id) -> Result<Response, Foreign> {
    let proplet = find(&shared, &id).await?;
    let rows = show(&shared, vec![proplet]).await?;
    Ok(told(rows.first().unwrap_or(&Value::Null)))
}

async fn metrics(
    State(shared): State<Shared>,
    _: Sees,
    Id(id): Id,
    Part(span): Part,
) -> Result<Response, Foreign> {
    let proplet = find(&shared, &id).await?;
    let (rows, total) = shared.eyes.told(Teller::Node, proplet.key, span).await?;
    Ok(page("metrics", &rows, total, span))
}

async fn alive_history(
    State(shared): State<Shared>,
    _: Sees,
    Id(id): Id,
    Part(span): Part,
) -> Result<Response, Foreign> {
    let proplet = find(&shared, &id).await?;
    let (at, total) = shared.eyes.alive_at(proplet.name, proplet.key, span).await?;
    let time = |ms: u64| json!(Timestamp::from_unix_ms(ms));
    let rows: Vec<Value> = at.into_iter().map(time).collect();
    Ok(page("history", &rows, total, span))
}

async fn task_metrics(
    State(shared): State<Shared>,
    _: Sees,
    Id(id): Id,
    Part(span): Part,
) -> Result<Response, Foreign> {
    let (rows, total) = shared.eyes.told(Teller::Job, id.clone(), span).await?;
    if total == 0 && shared.eyes.task(id).await?.is_none() {
        return Err(Foreign::unknown("no such task is known"));
    }
    Ok(page("metrics", &rows, total, span))
}

/// A node: of the hub's fleet, or one that was only heard in the third original system's messages.
#[derive(Debug)]
pub(super) struct Proplet {
    /// Under which id it is kept: its address in lower case, or what it calls itself.
    key: String,
    name: String,
    is_alive: bool,
    last: Option<Timestamp>,
    pub(super) node: Option<Arc<Node>>,
}

impl Proplet {
    /// `told`: when each was heard last, by its id.
    fn of_fleet(node: Arc<Node>, told: &BTreeMap<&str, u64>) -> Self {
        let key = node.address.map_or_else(|| node.name.clone(), |it| it.lower_hex());
        let told = told.get(key.as_str()).copied().map(Timestamp::from_unix_ms);
        let heard = node.heard.own.max(node.heard.nats);
        Self {
            key,
            name: node.name.clone(),
            is_alive: node.standing == Standing::Up,
            last: heard.max(told),
            node: Some(node),
        }
    }

    fn foreign(key: String, last: u64, now: Timestamp) -> Self {
        let last = Timestamp::from_unix_ms(last);
        let is_alive = now.since(last) <= FOREIGN;
        Self { name: key.clone(), key, is_alive, last: Some(last), node: None }
    }
}

/// All nodes, by their ids.
async fn all(shared: &Shared) -> Result<BTreeMap<String, Proplet>, Foreign> {
    let told = shared.eyes.tellers().await?;
    let now = shared.clock.now();
    let fleet = shared.fleet.all();
    let times: BTreeMap<&str, u64> = told.iter().map(|(id, last)| (&**id, *last)).collect();
    let mut all = BTreeMap::new();
    for node in fleet {
        let proplet = Proplet::of_fleet(node, &times);
        all.insert(proplet.key.clone(), proplet);
    }
    let known: BTreeSet<String> = all.keys().cloned().collect();
    for (id, last) in told.into_iter().filter(|(id, _)| !known.contains(id)) {
        all.insert(id.clone(), Proplet::foreign(id, last, now));
    }
    Ok(all)
}

/// The node of this id or name.
pub(super) async fn find(shared: &Shared, id: &str) -> Result<Proplet, Foreign> {
    const UNKNOWN: &str = "no such proplet is known";
    let key = node_id(id).ok_or_else(|| Foreign::unknown(UNKNOWN))?;
    if let Some(node) = shared.fleet.get(id) {
        return Ok(Proplet::of_fleet(node, &BTreeMap::new()));
    }
    all(shared).await?.remove(&key).ok_or_else(|| Foreign::unknown(UNKNOWN))
}

/// Nodes as the manager shows them.
async fn show(shared: &Shared, proplets: Vec<Proplet>) -> Result<Vec<Value>, Foreign> {
    let keys = proplets.iter().map(|it| it.key.clone()).collect();
    let counts = shared.eyes.running(keys).await?;
    let shown = proplets.iter().zip(counts).map(|(proplet, tasks)| {
        let address = proplet.node.as_ref().and_then(|node| node.address);
        let id = address.map_or_else(|| proplet.key.clone(), |address| address.to_string());
        json!({
            "id": id,
            "name": proplet.name,
            "task_count": tasks,
            "alive": proplet.is_alive,
            "last_alive_at": proplet.last,
            "alive_at": proplet.last.into_iter().collect::<Vec<_>>(),
            "metadata": proplet.node.as_deref().map_or_else(|| json!({}), metadata),
        })
    });
    Ok(shown.collect())
}

/// What is known of a node, under the manager's keys; and its cards.
fn metadata(node: &Node) -> Value {
    let presence = node.presence.as_deref();
    let part = |key: &str| presence.and_then(|it| it.get(key)).cloned();
    let memory = part("memory_mib").and_then(|it| it.as_u64());
    let all = [
        ("description", Some(json!(node.meta)).filter(|_| !node.meta.is_empty())),
        ("tags", Some(json!(node.tags)).filter(|_| !node.tags.is_empty())),
        ("ip", Some(json!(node.ip)).filter(|_| !node.ip.is_empty())),
        ("environment", node.address.map(|_| json!("docker"))),
        ("total_memory_bytes", memory.map(|mib| json!(mib.saturating_mul(1024 * 1024)))),
        ("proplet_version", part("version")),
        ("pools", part("pools")),
        ("gpus", part("gpus")),
        ("free_slots", part("free_slots")),
    ];
    let known = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(known.collect())
}
