//! What the pages' part of the server needs, and who may see what.
//!
//! Must hold: who may see names and standings only gets nothing else from any route of the pages.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::stream::Live;
use super::{alerts_view, fleet, stream};
use crate::clock::Timestamp;
use crate::fleet::clocks::Patience;
use crate::hub::fleet::Fleet;
use crate::hub::page;
use crate::hub::store::Error;
use crate::hub::store::view::Eyes;
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse, Response};
use crate::web::routing::get;
use crate::web::{Json, Router};

/// An answer of this many bytes is compressed for who takes that.
const COMPRESSED_FROM: usize = 16 * 1024;

/// What people see who are not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Everything that can be read.
    Full,
    /// Names and standings.
    Status,
    /// Nothing.
    Off,
}

/// What a page says of the hub itself.
#[derive(Debug, Clone)]
pub struct Site {
    /// The owner's title.
    pub title: String,
    /// What people see who are not logged in.
    pub show: Show,
    /// How long each clock may be silent.
    pub patience: Patience,
}

/// Tells the time.
#[derive(Clone)]
pub struct Now(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Now {
    /// Asks this for the time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn get(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// What the pages' part of the server needs. Clones share it.
#[derive(Debug, Clone)]
pub struct Pages {
    pub(super) fleet: Fleet,
    pub(super) eyes: Eyes,
    pub(super) site: Arc<Site>,
    pub(super) live: Live,
    pub(super) now: Now,
}

impl Pages {
    /// The pages of this fleet. Who watches them gets changes as long as somebody runs [`Live::tell`] of `live`.
    pub fn new(fleet: Fleet, eyes: Eyes, site: Site, live: Live, now: Now) -> Self {
        Self { fleet, eyes, site: Arc::new(site), live, now }
    }

    /// All routes of the pages: the page itself, what it is made of, and what it asks.
    pub fn routes(self) -> Router {
        let title = self.site.title.clone();
        Router::new()
            .route("/api/site", get(site))
            .merge(fleet::routes())
            .merge(alerts_view::routes())
            .merge(stream::routes())
            .with_state(self)
            .merge(page::routes(&title))
    }

    /// `Err` unless everything may be seen.
    pub(super) fn all(&self) -> Result<(), Refused> {
        match self.site.show {
            Show::Full => Ok(()),
            Show::Status | Show::Off => Err(Refused::LogIn),
        }
    }

    /// `Err` if nothing may be seen; otherwise whether everything may be.
    pub(super) fn some(&self) -> Result<bool, Refused> {
        match self.site.show {
            Show::Full => Ok(true),
            Show::Status => Ok(false),
            Show::Off => Err(Refused::LogIn),
        }
    }
}

/// Why a question of the page has no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is for people who are logged in.
    LogIn,
    /// The question is wrong.
    Wrong(String),
    /// There is no such thing.
    Unknown(&'static str),
    /// The database failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::LogIn => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
            Self::Wrong(why) => (StatusCode::BAD_REQUEST, why),
            Self::Unknown(what) => (StatusCode::NOT_FOUND, what.to_owned()),
            Self::Failed(err) => {
                tracing::warn!("a page can't be answered: {}", crate::report::causes(&err));
                (StatusCode::SERVICE_UNAVAILABLE, "the hub's database failed".to_owned())
            }
        };
        (status, [FRESH], Json(json!({ "detail": detail }))).into_response()
    }
}

/// No answer is kept: each is of its moment.
pub(super) const FRESH: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// This as JSON, compressed if it is large and the client takes that.
pub(super) fn answer(asked: &HeaderMap, body: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let kind = (header::CONTENT_TYPE, "application/json");
    if text.len() < COMPRESSED_FROM || !page::takes_gzip(asked) {
        return ([kind, FRESH], text).into_response();
    }
    let coding = (header::CONTENT_ENCODING, "gzip");
    ([kind, FRESH, coding], page::gzip(&text, page::Effort::Quick)).into_response()
}

async fn site(state: crate::web::extract::State<Pages>) -> Json<Value> {
    let Site { title, show, patience } = &*state.site;
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Json(json!({
        "title": title,
        "version": env!("CARGO_PKG_VERSION"),
        "public": show,
        "now": state.now.get().unix_ms(),
        "patience": {"own": ms(patience.own), "nats": ms(patience.nats), "chain": ms(patience.chain)},
    }))
}
