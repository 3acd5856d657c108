//! Who saw what: watchers post what they say of a node, signed by their own keys; the pages show it.
//!
//! Invariants: nothing is kept whose signature is not the watcher's over exactly these bytes, or that is old; what is
//! shown as verified was checked when it was read, by [`CHECKS_MAX`] threads at most.

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::error::Refusal;
use super::pages::{Asked, Pages, Refused, answer};
use super::{Shared, auth, body, fleet};
use crate::chain::key::recover;
use crate::clock::{Clock as _, Timestamp};
use crate::fleet::seen::{BODY_BYTES_MAX, LATE_AFTER, SIGNATURE_HEAD, Said, disagreements};
use crate::hub::store::seen::{Change, Seen, Taken};
use crate::ids::Signature;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::{HeaderMap, StatusCode};
use crate::web::response::Response;
use crate::web::routing::{get, post};
use crate::web::{Json, Peer, Router};

/// So many pages have signatures checked at once: whoever may see the page can ask for it.
const CHECKS_MAX: usize = 2;

static CHECKS: Semaphore = Semaphore::const_new(CHECKS_MAX);

/// Where watchers post.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/api/observations", post(take))
}

/// What the pages ask.
pub(super) fn shown() -> Router<Pages> {
    Router::new().route("/api/fleet/seen", get(show))
}

async fn take(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (head, body) = request.into_parts();
    if !auth::has_token(&head.headers) {
        return Err(shared.refuse(&peer));
    }
    let bytes = body::bytes_within(&head.headers, body, BODY_BYTES_MAX).await?;
    let said = Said::parse(&bytes);
    let node = said.as_ref().ok().map(|said| said.program.as_str());
    if !shared.tokens.may_beat(&head.headers, node) {
        return Err(shared.refuse(&peer));
    }
    let said = said.map_err(|err| Refusal::bad(err.to_string()))?;
    let signature = signature(&head.headers)?;
    if !is_signed(&said, &bytes, signature) {
        return Err(Refusal::bad("the signature is not the watcher's over this body"));
    }
    let now = shared.clock.now();
    said.is_timely(now).map_err(|err| Refusal::bad(err.to_string()))?;
    let refused = |status, what: &str| Err(Refusal::Plain(status, what.to_owned()));
    if shared.fleet.get(&said.program).is_none() {
        return refused(StatusCode::NOT_FOUND, "no node of this name has beaten yet");
    }
    let Ok(text) = String::from_utf8(bytes) else { return Err(Refusal::bad("it is not UTF-8")) };
    match shared.store.saw(said, text, signature, now).await? {
        Taken::Kept => Ok(Json(json!({"ok": true}))),
        Taken::Stale => refused(
            StatusCode::CONFLICT,
            "this watcher said something of this node at the same time or later",
        ),
        Taken::Crowded => refused(StatusCode::CONFLICT, "the node has too many watchers"),
        Taken::NoNode => refused(StatusCode::NOT_FOUND, "no node of this name has beaten yet"),
    }
}

fn signature(head: &HeaderMap) -> Result<Signature, Refusal> {
    let text = head.get(SIGNATURE_HEAD).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let what = |err| Refusal::bad(format!("the head {SIGNATURE_HEAD} is {err}"));
    text.parse().map_err(what)
}

fn is_signed(said: &Said, bytes: &[u8], signature: Signature) -> bool {
    recover(&said.digest(bytes).0, &signature.0) == Ok(said.watcher)
}

/// A watcher's newest word, as the page has it.
#[derive(Debug, Serialize)]
struct Shown {
    /// When the hub heard it.
    heard: u64,
    /// When the watcher signed it, and since when it says so.
    at: u64,
    since: u64,
    is_verified: bool,
    /// Whether the watcher has been silent for too long to be compared.
    is_late: bool,
    signature: String,
    said: Said,
}

#[derive(Debug, Serialize)]
struct ShownChange {
    watcher: String,
    at: u64,
    gist: Value,
    says: String,
}

#[derive(Debug, Serialize)]
struct Whole {
    rows: Vec<Shown>,
    /// The questions to which some say yes and others no, of those who are not late.
    disagree: Vec<&'static str>,
    changes: Vec<ShownChange>,
    at: u64,
}

async fn show(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(fleet::Named { name }): Asked<fleet::Named>,
) -> Result<Response, Refused> {
    state.all()?;
    let node = fleet::find(&state, &name)?;
    let now = state.now.get();
    let (seen, changes) = state.eyes.seen(node.name.clone()).await?;
    let rows = checked(seen, now).await;
    let counted: Vec<&Said> =
        rows.iter().filter(|it| it.is_verified && !it.is_late).map(|it| &it.said).collect();
    let disagree = disagreements(&counted);
    let changes = changes.into_iter().map(change).collect();
    Ok(answer(&asked, &Whole { disagree, rows, changes, at: now.unix_ms() }))
}

/// Each word with whether its signature is the watcher's, which takes a thread for some time.
async fn checked(seen: Vec<Seen>, now: Timestamp) -> Vec<Shown> {
    // Never closed.
    let Ok(place) = CHECKS.acquire().await else { return Vec::new() };
    let check = move || {
        // Held to the end of the work, also if nobody waits for it any more.
        let _place = place;
        seen.into_iter().filter_map(|it| shown_of(it, now)).collect()
    };
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn shown_of(Seen { heard, body, signature }: Seen, now: Timestamp) -> Option<Shown> {
    let said = Said::parse(body.as_bytes()).ok()?;
    let checked = signature.parse().map(|it| is_signed(&said, body.as_bytes(), it));
    Some(Shown {
        heard: heard.unix_ms(),
        at: said.at.unix_ms(),
        since: said.since.unix_ms(),
        is_verified: checked == Ok(true),
        is_late: now.since(heard) > LATE_AFTER,
        signature,
        said,
    })
}

fn change(Change { watcher, at, gist, says }: Change) -> ShownChange {
    let gist = serde_json::from_str(&gist).unwrap_or_default();
    ShownChange { watcher, at: at.unix_ms(), gist, says }
}
