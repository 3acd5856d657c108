//! The HTTP client that every adapter shares: TLS, proxy, redirects, URLs, and how its errors read.
//!
//! Invariants: a client follows no redirect by itself; a URL, which may hold a key, leaves this module
//! redacted only; no wait is without a limit. The client library's types are named through this module only.

mod answer;

use std::future::Future;
use std::time::Duration;

pub use reqwest::{
    Body, Client, ClientBuilder, Error as ClientError, RequestBuilder, Response, StatusCode, Url,
    dns, header,
};

use crate::report::BoxError;
use crate::secret::redact_url;
use crate::{proxy, report};

pub use answer::{explanation, retry_after};

/// Makes ring the TLS implementation of this process. The program calls it first; calling it again
/// changes nothing.
pub fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// A client that follows no redirect by itself; the caller adds its timeouts.
pub fn client() -> ClientBuilder {
    // The library panics without a TLS implementation.
    install_crypto();
    Client::builder()
        .user_agent(concat!("lamda-node/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .proxy(by_proxy())
        .http2_adaptive_window(true)
}

/// Picks the proxy for each request anew: this host has none, wherever a redirect leads.
fn by_proxy() -> reqwest::Proxy {
    reqwest::Proxy::custom(|url| proxy::of(url.scheme(), url.host_str()?))
}

/// A text that is not an `http` or `https` URL with a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not an http or https URL")]
pub struct InvalidUrl;

/// Parses an `http` or `https` URL.
pub fn url(text: &str) -> Result<Url, InvalidUrl> {
    let url = Url::parse(text).map_err(|_| InvalidUrl)?;
    let fits = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    fits.then_some(url).ok_or(InvalidUrl)
}

/// Parses a base URL and makes its path one that others can be joined to.
pub fn base_url(text: &str) -> Result<Url, InvalidUrl> {
    url(&format!("{}/", text.trim_end_matches('/')))
}

/// Whether this is an `http` or `https` URL with a host.
pub fn is_http_url(text: &str) -> bool {
    base_url(text).is_ok()
}

/// A URL for messages, redacted.
pub fn shown(url: &Url) -> String {
    redact_url(url.as_str()).trim_end_matches('/').to_owned()
}

/// Scheme, host and port of a URL.
pub fn origin(url: &Url) -> Url {
    let mut origin = url.clone();
    origin.set_path("");
    origin.set_query(None);
    origin.set_fragment(None);
    origin
}

/// The proxy used for a URL, as the end of a sentence; empty where there is none.
pub fn through(url: &Url) -> String {
    proxy::in_words(url.scheme(), url.host_str().unwrap_or_default())
}

/// The error without its URL, which may hold a key, but with the proxy's, which may be to blame.
pub fn boxed(err: ClientError) -> BoxError {
    let through = err.url().map(through).unwrap_or_default();
    let err = err.without_url();
    if through.is_empty() { Box::new(err) } else { (report::causes(&err) + &through).into() }
}

/// Waits at most `idle` for one answer or one piece of it.
pub async fn within<T>(
    idle: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, BoxError> {
    match tokio::time::timeout(idle, answer).await {
        Ok(answer) => answer.map_err(boxed),
        Err(_) => Err(format!("nothing came for {} s", idle.as_secs_f32()).into()),
    }
}
