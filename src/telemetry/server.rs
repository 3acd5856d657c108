//! The server: `GET /metrics`, and 404 for everything else.
//!
//! Invariant: a connection is bounded in time and bytes, whatever is asked over it; one of HTTP/1 has one request.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::page::{CONTENT_TYPE, Page};
use crate::web::http::{StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{self, Bounds, Router};

/// A node is asked by one Prometheus, or two, every few seconds. Prometheus itself gives up after 10 s and sends some
/// 300 bytes.
const BOUNDS: Bounds =
    Bounds { connections: 16, lifetime: Duration::from_secs(10), request_bytes: 16 * 1024 };

/// How long the values may take; every part of them has a shorter limit of its own.
const VALUES: Duration = Duration::from_secs(5);

/// Answers requests at this address with what `page` gives at each, as long as the future is polled; ends only with an
/// error.
pub async fn serve<F, P>(at: SocketAddr, page: F) -> io::Result<()>
where
    F: Fn() -> P + Clone + Send + Sync + 'static,
    P: Future<Output = Page> + Send + 'static,
{
    let taken =
        |err: io::Error| io::Error::new(err.kind(), format!("{at} can't be listened on: {err}"));
    let listener = TcpListener::bind(at).await.map_err(taken)?;
    tracing::info!("metrics are at http://{}/metrics", listener.local_addr()?);
    let metrics = get(async move || answer(page()).await).fallback(nothing);
    let app = Router::new().route("/metrics", metrics).fallback(nothing);
    web::serve_within(listener, app, BOUNDS).await
}

async fn answer(page: impl Future<Output = Page>) -> Response {
    let text = timeout(VALUES, page).await.ok().and_then(|page| page.into_text().ok());
    let close = [(header::CONNECTION, "close")];
    match text {
        Some(text) => (close, [(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, close).into_response(),
    }
}

async fn nothing() -> Response {
    let close = [(header::CONNECTION, "close")];
    (StatusCode::NOT_FOUND, close, "there is /metrics here, and nothing else\n").into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::telemetry::Family;

    async fn bound(bounds: Bounds) -> (SocketAddr, impl Future<Output = io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = async || {
            let mut page = Page::default();
            page.put(Family::Slots, 2.0);
            page
        };
        let app = Router::new().route("/metrics", get(async move || answer(page()).await));
        (address, web::serve_within(listener, app.fallback(nothing), bounds))
    }

    /// What the server says to these bytes until it hangs up.
    async fn told(address: SocketAddr, bytes: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.ok();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.ok();
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_and_its_connection_closed() {
        let (address, serve) = bound(BOUNDS).await;
        let ask = async {
            let said = told(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
            assert!(said.contains("content-type: text/plain; version=0.0.4"), "{said}");
            assert!(said.contains("connection: close") && said.ends_with("lamda_slots 2.0\n"));
            let said = told(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(said.starts_with("HTTP/1.1 404"), "{said}");
        };
        tokio::select! { _ = serve => panic!("it ended"), () = ask => {} }
    }

    #[tokio::test]
    async fn clients_that_dawdle_or_flood_are_cut_off_and_others_served() {
        let lifetime = Duration::from_millis(300);
        let bounds = Bounds { connections: 2, lifetime, request_bytes: 4096 };
        let (address, serve) = bound(bounds).await;
        let ask = async {
            // Both places are taken by clients that never finish their head.
            let slow = "GET /metrics HTTP/1.1\r\nx: ";
            let (one, two, good) = tokio::join!(
                told(address, slow),
                told(address, slow),
                told(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"),
            );
            assert_eq!((&*one, &*two), ("", ""));
            assert!(good.starts_with("HTTP/1.1 200"), "{good}");
            let flood = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000));
            assert_eq!(told(address, &flood).await, "");
        };
        tokio::select! { _ = serve => panic!("it ended"), () = ask => {} }
    }
}
