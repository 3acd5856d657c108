//! What the sidecar answers over HTTP: `/health`, `/ready`, `/metrics`, and its verdicts with their evidence.
//!
//! `usage` answers what the programs use.
//!
//! Invariants: only reads; nothing is answered that was not scrubbed before it was written down; a client that
//! dawdles holds up nobody.

mod usage;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::probe::Programs;
use super::program::Program;
use super::store::{Error, Store};
use super::used::Board;
use super::watcher::Verdicts;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::fleet::rule::Trouble;
use crate::telemetry::{CONTENT_TYPE, Family, Page};
use crate::watch::verdict::Answer;
use crate::web;
use crate::web::extract::rejection::{PathRejection, QueryRejection};
use crate::web::extract::{FromRequestParts, Path, Query, State};
use crate::web::http::request::Parts;
use crate::web::http::{StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Bounds, Json, Router};

/// What the sidecar grants its clients.
pub const BOUNDS: Bounds =
    Bounds { connections: 256, lifetime: Duration::from_secs(30), request_bytes: 1024 * 1024 };

/// How long the store may take to answer.
const READY: Duration = Duration::from_secs(2);

/// Rows of an answer if nobody says how many.
const ROWS: u32 = 100;

/// Most rows of one answer.
const ROWS_MAX: u32 = 1_000;

/// Most verdicts of one answer: each has all its evidence.
const VERDICTS_MAX: u32 = 200;

/// What all handlers share. Clones share it too.
#[derive(Debug, Clone)]
pub struct Shared {
    store: Store,
    programs: Programs,
    verdicts: Verdicts,
    board: Board,
    clock: SystemClock,
    began: Timestamp,
}

impl Shared {
    /// What is shared from now on.
    pub fn new(
        store: Store,
        programs: Programs,
        (verdicts, board): (Verdicts, Board),
        clock: SystemClock,
    ) -> Self {
        Self { store, programs, verdicts, board, clock, began: clock.now() }
    }

    /// How many rows of a program are asked for; `None` if nobody watches it.
    fn limit(&self, name: &str, part: &Part, most: u32) -> Option<u32> {
        self.program(name)?;
        Some(part.limit.unwrap_or(ROWS).min(most))
    }

    fn program(&self, name: &str) -> Option<&Arc<Program>> {
        self.programs.iter().find(|it| it.name() == name)
    }
}

/// Everything that the sidecar answers; to this machine alone, it answers who asks by this machine's name.
pub fn router(shared: Shared, is_only_here: bool) -> Router {
    let app = Router::new()
        .route("/health", get(health))
        .route("/api/v1/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/programs", get(programs))
        .route("/api/programs/{name}", get(program))
        .route("/api/programs/{name}/verdicts", get(verdicts))
        .route("/api/programs/{name}/observations", get(observations))
        .route("/api/programs/{name}/usage", get(usage::of_program))
        .route("/api/machine/usage", get(usage::of_machine))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is no such page"))
        .with_state(shared);
    let refuse = || refuse(StatusCode::MISDIRECTED_REQUEST, "ask by the name of this machine");
    if is_only_here { web::only_by_own_name(app, refuse) } else { app }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}

/// The sidecar itself, and what each program's verdict is. 200 while the sidecar works, whatever it watches.
async fn health(State(shared): State<Shared>) -> Response {
    if !is_ready(&shared).await {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the store doesn't answer");
    }
    let programs: Vec<Value> = shared.programs.iter().map(|it| summary(&shared, it)).collect();
    let is_well = programs.iter().all(|it| it["troubles"].as_array().is_some_and(Vec::is_empty));
    let uptime = shared.clock.now().since(shared.began).as_secs();
    let node_id = shared.programs.first().map(|it| it.name());
    Json(json!({
        "status": if is_well { "ok" } else { "degraded" },
        "node_id": node_id,
        "uptime_seconds": uptime,
        "version": env!("CARGO_PKG_VERSION"),
        "programs": programs,
    }))
    .into_response()
}

async fn is_ready(shared: &Shared) -> bool {
    matches!(tokio::time::timeout(READY, shared.store.answers()).await, Ok(Ok(())))
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    let is_judged = shared.programs.iter().all(|it| shared.verdicts.of(it.name()).is_some());
    match (is_ready(&shared).await, is_judged) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the store doesn't answer\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "nothing was judged yet\n"),
    }
}

fn summary(shared: &Shared, program: &Program) -> Value {
    let known = program.look();
    let verdict = shared.verdicts.of(program.name());
    let answer = |of: fn(&crate::watch::verdict::Verdict) -> Answer| verdict.as_deref().map(of);
    json!({
        "name": program.name(),
        "profile": program.watching.profile.profile,
        "says": verdict.as_ref().map_or("nothing was judged yet", |it| &it.says),
        "troubles": verdict.as_ref().map(|it| it.troubles.clone()).unwrap_or_default(),
        "alive": answer(|it| it.alive.answer),
        "training": answer(|it| it.training.answer),
        "published": answer(|it| it.published.answer),
        "earning": answer(|it| it.earning.answer),
        "swarm": answer(|it| it.swarm.answer),
        "peer": super::probe::chain::peer(program),
        "round": known.state.round.map(|(round, _)| round),
        "sources": sources(&known.state),
        "usage": usage::short(&shared.board, program.name(), shared.clock.now()),
    })
}

/// How each source is, as far as something is known of it.
fn sources(state: &crate::watch::state::Watched) -> Value {
    let logs = state.logs.iter().map(|(name, log)| {
        let value = json!({
            "last": log.last, "lines": log.lines, "gaps": log.gaps, "lost_bytes": log.lost,
        });
        (format!("log {name}"), value)
    });
    let mut all: serde_json::Map<String, Value> = logs.collect();
    for (source, (since, why)) in &state.troubles {
        let entry = all.entry(source.clone()).or_insert_with(|| json!({}));
        entry["trouble"] = json!(why);
        entry["trouble_since"] = json!(since);
    }
    for (name, (is_open, since)) in &state.ports {
        let entry = all.entry(format!("port {name}")).or_insert_with(|| json!({}));
        entry["open"] = json!(is_open);
        entry["since"] = json!(since);
    }
    Value::Object(all)
}

async fn programs(State(shared): State<Shared>) -> Json<Vec<Value>> {
    Json(shared.programs.iter().map(|it| summary(&shared, it)).collect())
}

/// One program: its verdict with all evidence, and what is known of it.
async fn program(State(shared): State<Shared>, Named(name): Named) -> Response {
    let Some(program) = shared.program(&name) else { return unknown() };
    let known = program.look();
    let mut all = summary(&shared, program);
    all["verdict"] = json!(shared.verdicts.of(&name).map(|it| (*it).clone()));
    all["state"] = json!(known.state);
    all["observations"] = json!(known.last);
    Json(all).into_response()
}

fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no program of this name is watched")
}

/// The query.
#[derive(Debug)]
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Asked<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let query = Query::<T>::from_request_parts(parts, shared).await;
        let wrong = |err: QueryRejection| refuse(StatusCode::BAD_REQUEST, &err.body_text());
        query.map(|Query(asked)| Self(asked)).map_err(wrong)
    }
}

/// The name in the path.
#[derive(Debug)]
struct Named(String);

impl FromRequestParts<Shared> for Named {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        let wrong = |err: PathRejection| refuse(StatusCode::BAD_REQUEST, &err.body_text());
        path.map(|Path(name)| Self(name)).map_err(wrong)
    }
}

/// A part of a list.
#[derive(Debug, Deserialize)]
struct Part {
    /// At most so many.
    limit: Option<u32>,
    /// Only those with smaller numbers.
    before: Option<i64>,
}

async fn verdicts(
    State(shared): State<Shared>,
    Named(name): Named,
    Asked(part): Asked<Part>,
) -> Response {
    let Some(limit) = shared.limit(&name, &part, VERDICTS_MAX) else { return unknown() };
    answer(shared.store.verdicts(&name, limit).await.map(|all| {
        let each = all.into_iter().map(|it| {
            let verdict: Value = serde_json::from_str(&it.body).unwrap_or_default();
            json!({"at": it.at, "after": it.after, "verdict": verdict})
        });
        each.collect()
    }))
}

async fn observations(
    State(shared): State<Shared>,
    Named(name): Named,
    Asked(part): Asked<Part>,
) -> Response {
    let Some(limit) = shared.limit(&name, &part, ROWS_MAX) else { return unknown() };
    let before = part.before.unwrap_or(i64::MAX);
    answer(shared.store.observations(&name, before, limit).await.map(|all| {
        let each = all.into_iter().map(|(id, body)| {
            let mut observation: Value = serde_json::from_str(&body).unwrap_or_default();
            observation["id"] = json!(id);
            observation
        });
        each.collect()
    }))
}

fn answer(rows: Result<Vec<Value>, Error>) -> Response {
    match rows {
        Ok(rows) => Json(rows).into_response(),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the store failed"),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match page(&shared).into_text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^52")]
fn page(shared: &Shared) -> Page {
    let mut page = Page::default();
    page.put_of(Family::SidecarBuild, &[env!("CARGO_PKG_VERSION")], 1.0);
    for program in shared.programs.iter() {
        let (name, known) = (program.name(), program.look());
        if let Some(verdict) = shared.verdicts.of(name) {
            for trouble in Trouble::ALL {
                let holds = f64::from(u8::from(verdict.troubles.contains(&trouble)));
                page.put_of(Family::SidecarTrouble, &[name, trouble.as_str()], holds);
            }
        }
        for (log, state) in &known.state.logs {
            page.put_of(Family::SidecarLines, &[name, log], state.lines as f64);
            page.put_of(Family::SidecarLost, &[name, log], state.lost as f64);
            page.put_of(Family::SidecarGaps, &[name, log], state.gaps as f64);
        }
        let chain = known.state.chain.as_ref();
        let rewards = chain.and_then(|it| it.last.rewards.as_ref()?.parse::<f64>().ok());
        page.put_of(Family::SidecarRewards, &[name], rewards);
        let paid = chain.and_then(|it| it.paid).map(|(at, _)| at.unix_ms() as f64 / 1_000.0);
        page.put_of(Family::SidecarPaid, &[name], paid);
        let round = known.state.round.map(|(round, _)| round as f64);
        page.put_of(Family::SidecarRound, &[name], round);
        usage::put_program(&mut page, name, &shared.board, shared.clock.now());
    }
    usage::put_machine(&mut page, &shared.board, shared.clock.now());
    page
}
