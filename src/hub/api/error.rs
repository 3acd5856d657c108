//! Refusals, in the words and forms of the original's framework, which its users' scripts know.
//!
//! Invariant: a refusal says nothing of secrets, and no more of the store's state than that it failed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::beat::Invalid;
use crate::hub::store;
use crate::report;
use crate::seldom::Seldom;
use crate::web::Json;
use crate::web::http::{HeaderValue, StatusCode, header};
use crate::web::response::{IntoResponse, Response};

/// Log lines that failures of the store cause, at most, a minute.
static FAILED: Seldom = Seldom::new(3);

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal {
    /// The token is missing or wrong: 401.
    Unauthorized,
    /// Too many wrong tokens came from there: 429.
    TooMany(Duration),
    /// A sentence with its status.
    Plain(StatusCode, String),
    /// A part of the body is missing or wrong: 422, with the framework's list.
    Unprocessable(Value),
    /// The store failed: 500.
    Store(store::Error),
}

impl Refusal {
    /// 400 with this sentence.
    pub fn bad(what: impl Into<String>) -> Self {
        Self::Plain(StatusCode::BAD_REQUEST, what.into())
    }

    /// 422: this key of the body is missing.
    pub fn missing(key: &str, input: Value) -> Self {
        Self::wrong("missing", &[key], "Field required", input)
    }

    /// 422: what this part of the body holds is wrong; `kind` is the framework's word for it.
    pub fn wrong(kind: &str, place: &[&str], what: &str, input: Value) -> Self {
        let place: Vec<&str> = std::iter::once("body").chain(place.iter().copied()).collect();
        let mut told = json!({"type": kind, "loc": place, "msg": what});
        if let Value::Object(told) = &mut told {
            told.insert("input".to_owned(), input);
        }
        Self::Unprocessable(told)
    }
}

impl From<store::Error> for Refusal {
    fn from(err: store::Error) -> Self {
        Self::Store(err)
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let what = invalid.to_string();
        match invalid {
            Invalid::Status(input) => Self::wrong("literal_error", &["status"], &what, input),
            _ => Self::bad(what),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let told = |status: StatusCode, what: &str| {
            (status, Json(json!({"detail": what}))).into_response()
        };
        match self {
            Self::Unauthorized => told(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::TooMany(wait) => {
                let mut answer = told(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
                let wait = HeaderValue::from(wait.as_secs().max(1));
                answer.headers_mut().insert(header::RETRY_AFTER, wait);
                answer
            }
            Self::Plain(status, what) => told(status, &what),
            Self::Unprocessable(what) => {
                let body = Json(json!({"detail": [what]}));
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
            Self::Store(err) => {
                let (status, what) = failed(&err);
                told(status, what)
            }
        }
    }
}

/// Logs that the store failed; what is told of it.
pub(super) fn failed(err: &store::Error) -> (StatusCode, &'static str) {
    if let Some(more) = FAILED.line() {
        tracing::error!("the hub's store failed: {}{more}", report::causes(err));
    }
    if matches!(err, store::Error::Sql(crate::sql::Error::Full)) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the hub's disk is full");
    }
    (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// What is at no route.
pub(super) async fn not_found() -> Refusal {
    Refusal::Plain(StatusCode::NOT_FOUND, "Not Found".to_owned())
}

/// A route that is asked in another way.
pub(super) async fn not_allowed() -> Refusal {
    Refusal::Plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned())
}
