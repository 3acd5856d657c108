//! What the pages ask about nodes, their events and their jobs.
//!
//! Must hold: every question is bounded; names and texts go out as they came, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::pages::{Asked, Pages, Refused, answer};
use crate::hub::fleet::view::{self, Query, Row, Written};
use crate::hub::fleet::{Node, Scored};
use crate::hub::store::view::{EventQuery, EventRow, JobRow, Past, Told};
use crate::web::Router;
use crate::web::extract::State;
use crate::web::http::HeaderMap;
use crate::web::response::Response;
use crate::web::routing::get;

/// The longest name or id that is looked up, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;

pub(super) fn routes() -> Router<Pages> {
    Router::new()
        .route("/api/fleet", get(fleet))
        .route("/api/fleet/node", get(node))
        .route("/api/events", get(events))
        .route("/api/jobs", get(jobs))
        .route("/api/job", get(job))
        .route("/api/receipts", get(receipts))
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    page: view::Page,
    at: u64,
}

async fn fleet(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(written): Asked<Written>,
) -> Result<Response, Refused> {
    let is_all = state.some()?;
    let query = Query::try_from(written).map_err(|err| Refused::Wrong(err.to_string()))?;
    let query = if is_all { query } else { query.in_public() };
    let mut page = view::page(&state.fleet, &query);
    if !is_all {
        page.tags.clear();
        let public = |row: &Row| Some(Row::in_public(&*state.fleet.get(&row.name)?));
        page.rows = page.rows.iter().filter_map(public).collect();
    }
    Ok(answer(&asked, &Listed { page, at: state.now.get().unix_ms() }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Serialize)]
struct Whole<'a> {
    row: Row,
    presence: Option<&'a Value>,
    gswarm: Option<&'a Map<String, Value>>,
    scored: Option<&'a Scored>,
    #[serde(flatten)]
    past: Past,
    at: u64,
}

async fn node(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(Named { name }): Asked<Named>,
) -> Result<Response, Refused> {
    state.all()?;
    let node = find(&state, &name)?;
    let now = state.now.get();
    let past = state.eyes.past(node.name.clone(), node.first, now).await?;
    let whole = Whole {
        row: Row::of(&node),
        presence: node.presence.as_deref(),
        gswarm: node.gswarm.as_ref(),
        scored: node.scored.as_ref(),
        past,
        at: now.unix_ms(),
    };
    Ok(answer(&asked, &whole))
}

/// The node of this name, or of this address.
pub(super) fn find(state: &Pages, name: &str) -> Result<Arc<Node>, Refused> {
    const UNKNOWN: Refused = Refused::Unknown("no node of this name is known");
    if name.len() > NAME_BYTES_MAX {
        return Err(UNKNOWN);
    }
    if let Some(node) = state.fleet.get(name) {
        return Ok(node);
    }
    let Ok(address) = name.parse() else { return Err(UNKNOWN) };
    let mut all = state.fleet.all().into_iter();
    all.find(|node| node.address == Some(address)).ok_or(UNKNOWN)
}

/// What the tables of events and jobs call a node: its address if it has one.
pub(super) fn key_of(node: &Node) -> String {
    match node.address {
        Some(address) => address.lower_hex(),
        None => node.name.clone(),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AskedEvents {
    before: Option<i64>,
    /// Levels, separated by commas.
    level: String,
    node: String,
}

#[derive(Serialize)]
struct ToldEvents {
    rows: Vec<EventRow>,
    next: Option<i64>,
    /// What the nodes call themselves.
    names: BTreeMap<String, String>,
    at: u64,
}

async fn events(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(query): Asked<AskedEvents>,
) -> Result<Response, Refused> {
    state.all()?;
    let levels: Vec<String> =
        query.level.split(',').filter(|it| !it.is_empty()).take(8).map(str::to_owned).collect();
    let node = match &*query.node {
        "" => None,
        name => Some(key_of(&*find(&state, name)?)),
    };
    let query = EventQuery { before: query.before, levels, node };
    let events = state.eyes.events(query).await?;
    let mut names = BTreeMap::new();
    let shown: std::collections::BTreeSet<&str> =
        events.rows.iter().map(|row| &*row.node).collect();
    for node in state.fleet.all() {
        let key = key_of(&node);
        if shown.contains(&*key) {
            names.insert(key, node.name.clone());
        }
    }
    let at = state.now.get().unix_ms();
    Ok(answer(&asked, &ToldEvents { next: events.next, names, at, rows: events.rows }))
}

#[derive(Debug, Deserialize)]
struct AskedJobs {
    node: String,
}

#[derive(Serialize)]
struct ToldJobs {
    rows: Vec<JobRow>,
    at: u64,
}

async fn jobs(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(AskedJobs { node }): Asked<AskedJobs>,
) -> Result<Response, Refused> {
    state.all()?;
    let rows = state.eyes.jobs(key_of(&*find(&state, &node)?)).await?;
    Ok(answer(&asked, &ToldJobs { rows, at: state.now.get().unix_ms() }))
}

#[derive(Debug, Deserialize)]
struct AskedJob {
    node: String,
    job: String,
}

#[derive(Serialize)]
struct WholeJob {
    #[serde(flatten)]
    told: Told,
    node: String,
    address: String,
    at: u64,
}

const NO_JOB: Refused = Refused::Unknown("the hub has heard of no such job of this node");

/// The node of a job that is asked for, if everything may be seen and the job can be one.
fn of_job(state: &Pages, asked: &AskedJob) -> Result<Arc<Node>, Refused> {
    state.all()?;
    if asked.job.len() > NAME_BYTES_MAX {
        return Err(NO_JOB);
    }
    find(state, &asked.node)
}

async fn job(
    state: State<Pages>,
    head: HeaderMap,
    Asked(asked): Asked<AskedJob>,
) -> Result<Response, Refused> {
    let node = of_job(&state, &asked)?;
    let address = key_of(&node);
    let told = state.eyes.job(address.clone(), asked.job).await?.ok_or(NO_JOB)?;
    let at = state.now.get().unix_ms();
    Ok(answer(&head, &WholeJob { told, node: node.name.clone(), address, at }))
}

#[derive(Serialize)]
struct ToldReceipts {
    rows: Vec<Value>,
    at: u64,
}

/// The receipts of a node around one of its jobs: a root on the chain covers several.
async fn receipts(
    state: State<Pages>,
    head: HeaderMap,
    Asked(asked): Asked<AskedJob>,
) -> Result<Response, Refused> {
    let node = key_of(&*of_job(&state, &asked)?);
    let rows = state.eyes.receipts(node, asked.job).await?.ok_or(NO_JOB)?;
    Ok(answer(&head, &ToldReceipts { rows, at: state.now.get().unix_ms() }))
}
