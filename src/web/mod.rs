//! The HTTP server that every service of this program shares.
//!
//! Invariant: after the shutdown signal no new request is taken, and the last answer ends within the grace
//! period. The server library's types are named through this module only.

mod bounded;
mod named;

use std::future::{Future, IntoFuture as _};
use std::io;
use std::time::Duration;

pub use bounded::{Bounds, Peer, serve_within, serve_within_until};
pub use named::{names_this_machine, only_by_own_name};

pub use axum::{Json, Router, body, extract, http, response, routing};

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// Has this app answer a request.
pub async fn answer(app: Router, request: extract::Request) -> response::Response {
    use tower::ServiceExt as _;
    match app.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Serves `app` on `listener` until `shutdown`; transfers under way then have `grace` to end.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let signal = async move {
        shutdown.await;
        stopping.send(()).ok();
    };
    // Answers are small and waited for: never delay one to fill a packet.
    let listener = listener.tap_io(|connection| {
        connection.set_nodelay(true).ok();
    });
    let serve = axum::serve(listener, app).with_graceful_shutdown(signal);
    until_graced(serve.into_future(), stopped, grace).await
}

/// Waits for the end of a server; `grace` after it was told to stop, no longer.
async fn until_graced(
    serve: impl Future<Output = io::Result<()>>,
    stopped: tokio::sync::oneshot::Receiver<()>,
    grace: Duration,
) -> io::Result<()> {
    tokio::select! {
        ended = serve => ended,
        () = async {
            stopped.await.ok();
            tokio::time::sleep(grace).await;
        } => Ok(()),
    }
}
