//! A small IPFS store: Pinata's pinning call and a trustless gateway over one folder.
//!
//! `lamda-node store` runs it as a separate process, for the demo, the tests and machines without
//! network access; to the agent it is one more gateway and one more pinning service. Invariants: it
//! answers at once, even if it has nothing; a crash loses no confirmed pin and leaves none half
//! written; it never fills the disk. It trusts everyone who can reach it: any bearer token is
//! accepted.

mod objects;
mod read;
mod stream;
mod upload;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use self::objects::Objects;
use super::Error;
use crate::web;
use crate::web::Router;
use crate::web::extract::DefaultBodyLimit;
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse, Response};
use crate::web::routing::{delete, get, post};

/// How long transfers under way may continue after the shutdown signal.
const GRACE: Duration = Duration::from_secs(10);

/// Serves the objects under `dir` on `listener` until `shutdown`. Creates the folder if it is
/// missing; only one process at a time may serve it.
pub async fn serve(
    dir: &Path,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let objects = Arc::new(Objects::open(dir)?);
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/data/testAuthentication", get(test_authentication))
        .route("/pinning/pinFileToIPFS", post(upload::pin).layer(DefaultBodyLimit::disable()))
        .route("/pinning/unpin/{cid}", delete(unpin))
        .route("/ipfs/{cid}", get(read::object))
        .route("/ipfs/{cid}/", get(read::object))
        .route("/ipfs/{cid}/{*path}", get(read::object_below))
        .with_state(objects);
    web::serve(listener, app, shutdown, GRACE).await.map_err(Error::from)
}

async fn test_authentication(headers: HeaderMap) -> Result<Response, HttpProblem> {
    authorize(&headers)?;
    let message = "Congratulations! You are communicating with the Pinata API!";
    Ok(web::Json(serde_json::json!({ "message": message })).into_response())
}

/// Checks the token only: the object stays, because another one may refer to it.
async fn unpin(headers: HeaderMap) -> Result<&'static str, HttpProblem> {
    authorize(&headers)?;
    Ok("OK")
}

/// Accepts any bearer token, but requires one, so that a client that forgets its key notices.
fn authorize(headers: &HeaderMap) -> Result<(), HttpProblem> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match token.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if !token.trim().is_empty() => Ok(()),
        _ => Err(HttpProblem::new(
            StatusCode::UNAUTHORIZED,
            "INVALID_CREDENTIALS",
            "no bearer token",
        )),
    }
}

/// A non-success answer in Pinata's format.
#[derive(Debug)]
struct HttpProblem {
    status: StatusCode,
    reason: &'static str,
    details: String,
}

impl HttpProblem {
    fn new(status: StatusCode, reason: &'static str, details: impl Into<String>) -> Self {
        Self { status, reason, details: details.into() }
    }
}

impl From<Error> for HttpProblem {
    fn from(err: Error) -> Self {
        let (status, reason) = match &err {
            Error::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "NO_SPACE"),
            Error::Unsupported { .. } => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            _ => {
                tracing::error!(error = &err as &dyn std::error::Error, "the store failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL")
            }
        };
        Self::new(status, reason, err.to_string())
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let error = serde_json::json!({ "reason": self.reason, "details": self.details });
        (self.status, web::Json(serde_json::json!({ "error": error }))).into_response()
    }
}
