//! By which name a server is asked.
//!
//! Must hold: a page of another site whose name leads to this machine (DNS rebinding) asks by its own name, so it gets
//! no answer from a server that is for this machine alone.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;

/// Whether a request names this machine: `localhost`, or an address of the loopback.
pub fn names_this_machine(head: &HeaderMap) -> bool {
    let host = head.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// An app that answers `refuse` to whoever asks by another name than this machine's. Who names none is no browser.
pub fn only_by_own_name(app: Router, refuse: fn() -> Response) -> Router {
    app.layer(middleware::from_fn(move |request, next| named(refuse, request, next)))
}

async fn named(refuse: fn() -> Response, request: Request, next: Next) -> Response {
    let head = request.headers();
    if head.contains_key(header::HOST) && !names_this_machine(head) {
        return refuse();
    }
    next.run(request).await
}
