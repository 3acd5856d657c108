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

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use self::objects::Objects;
use super::Error;

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
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let signal = async move {
        shutdown.await;
        stopping.send(()).ok();
    };
    let listener = listener.tap_io(|connection| {
        connection.set_nodelay(true).ok();
    });
    let serve = axum::serve(listener, app).with_graceful_shutdown(signal);
    tokio::select! {
        ended = serve => ended.map_err(Error::from),
        () = async {
            stopped.await.ok();
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    }
}

async fn test_authentication(headers: HeaderMap) -> Result<Response, Refusal> {
    authorize(&headers)?;
    let message = "Congratulations! You are communicating with the Pinata API!";
    Ok(axum::Json(serde_json::json!({ "message": message })).into_response())
}

/// Checks the token only: the object stays, because another one may refer to it.
async fn unpin(headers: HeaderMap) -> Result<&'static str, Refusal> {
    authorize(&headers)?;
    Ok("OK")
}

/// Accepts any bearer token, but requires one, so that a client that forgets its key notices.
fn authorize(headers: &HeaderMap) -> Result<(), Refusal> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match token.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if !token.trim().is_empty() => Ok(()),
        _ => Err(Refusal::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", "no bearer token")),
    }
}

/// A non-success answer in Pinata's format.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    details: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, details: impl Into<String>) -> Self {
        Self { status, reason, details: details.into() }
    }
}

impl From<Error> for Refusal {
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

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = serde_json::json!({ "reason": self.reason, "details": self.details });
        (self.status, axum::Json(serde_json::json!({ "error": error }))).into_response()
    }
}
