//! Shared by both HTTP clients: the client itself, deadlines, and the meaning of statuses.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};

use super::{Config, Error};
use crate::report::BoxError;
use crate::secret::redact_url;
use crate::{proxy, report};

/// Upper limit for the wait that a service asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Maximum characters kept of a service's explanation.
const WORDS_MAX: usize = 300;

/// Makes ring the TLS implementation of this process. The program calls it first; calling it again
/// changes nothing.
pub fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// A client that follows no redirect by itself and applies `config`'s timeouts.
pub(super) fn client(config: &Config) -> Result<Client, Error> {
    build(builder(config))
}

/// Like [`client`], with `names` as its resolver.
pub(super) fn client_with(config: &Config, names: Arc<dyn Resolve>) -> Result<Client, Error> {
    build(builder(config).dns_resolver(names))
}

fn builder(config: &Config) -> reqwest::ClientBuilder {
    install_crypto();
    Client::builder()
        .user_agent(concat!("lamda-node/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .proxy(by_proxy())
        .http2_adaptive_window(true)
}

/// Picks the proxy for each request anew: this host has none, wherever a redirect leads.
fn by_proxy() -> reqwest::Proxy {
    reqwest::Proxy::custom(|url| proxy::of(url.scheme(), url.host_str()?))
}

fn build(builder: reqwest::ClientBuilder) -> Result<Client, Error> {
    builder
        .build()
        .map_err(|err| Error::Setting { setting: "the HTTP client".into(), source: boxed(err) })
}

/// Parses a base URL and makes its path one that others can be joined to.
pub(super) fn base_url(text: &str) -> Result<Url, Error> {
    let refuse = |source: BoxError| Error::Setting { setting: redact_url(text), source };
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/')));
    let url = url.map_err(|err| refuse(err.into()))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        _ => Err(refuse("it is not an http or https URL".into())),
    }
}

/// Whether this is an `http` or `https` URL with a host.
pub fn is_http_url(text: &str) -> bool {
    base_url(text).is_ok()
}

/// The service's URL for messages, redacted.
pub(super) fn shown(url: &Url) -> String {
    redact_url(url.as_str()).trim_end_matches('/').to_owned()
}

/// The error without its URL, which may hold a key, but with the proxy's, which may be to blame.
pub(super) fn boxed(err: reqwest::Error) -> BoxError {
    let through = err.url().map(through).unwrap_or_default();
    let err = err.without_url();
    if through.is_empty() { Box::new(err) } else { (report::causes(&err) + &through).into() }
}

/// The proxy used for a URL, as the end of a sentence.
fn through(url: &Url) -> String {
    proxy::in_words(url.scheme(), url.host_str().unwrap_or_default())
}

/// Waits at most `idle` for one answer or one piece of it.
pub(super) async fn within<T>(
    idle: Duration,
    answer: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, BoxError> {
    match tokio::time::timeout(idle, answer).await {
        Ok(answer) => answer.map_err(boxed),
        Err(_) => Err(format!("nothing came for {} s", idle.as_secs_f32()).into()),
    }
}

/// The error of a non-success status that means the same for every service.
pub(super) fn refusal(response: &Response) -> Option<Error> {
    let service = shown(&origin(response.url()));
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Some(Error::Refused { service, words: None })
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Some(Error::RateLimited { service, retry_after: retry_after(response) })
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            let source = Some(format!("it answers {status}{}", through(response.url())).into());
            Some(Error::Unavailable { what: format!("{service} can't answer now"), source })
        }
        _ => None,
    }
}

/// An answer for people, on one line: its status and the text of its body.
pub(super) async fn words(mut response: Response, idle: Duration) -> String {
    let mut body = Vec::new();
    let until = tokio::time::Instant::now() + idle;
    while let Ok(Ok(Some(piece))) = tokio::time::timeout_at(until, response.chunk()).await {
        body.extend_from_slice(&piece);
        if body.len() > 4 * WORDS_MAX {
            break;
        }
    }
    let said = said(&String::from_utf8_lossy(&body));
    if said.is_empty() {
        response.status().to_string()
    } else {
        format!("{}: {said}", response.status())
    }
}

/// The text of a body: the strings of JSON, the text of a page. No control characters, at most
/// [`WORDS_MAX`] characters.
fn said(body: &str) -> String {
    let text = match serde_json::from_str::<serde_json::Value>(body) {
        Ok(json) => {
            let mut strings = Vec::new();
            gather(&json, &mut strings);
            strings.join(": ")
        }
        Err(_) => without_tags(body),
    };
    let text = text.replace(|c: char| c.is_control(), " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS_MAX).collect()
}

/// Collects the strings of a JSON value, those that name the error first.
fn gather(json: &serde_json::Value, strings: &mut Vec<String>) {
    use serde_json::Value;
    match json {
        Value::String(text) => strings.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, strings)),
        Value::Object(items) => {
            // The error goes before the details, whatever their order in the body.
            let is_first = |name: &str| matches!(name, "error" | "reason" | "code");
            let (first, rest): (Vec<_>, Vec<_>) =
                items.iter().partition(|(name, _)| is_first(name));
            first.into_iter().chain(rest).for_each(|(_, item)| gather(item, strings));
        }
        _ => {}
    }
}

fn without_tags(page: &str) -> String {
    let mut is_inside = false;
    let keep = |c: char| {
        match c {
            '<' => is_inside = true,
            '>' if is_inside => {
                is_inside = false;
                return Some(' ');
            }
            _ => {}
        }
        (!is_inside).then_some(c)
    };
    page.chars().filter_map(keep).collect()
}

/// The `Retry-After` header. Seconds only: a date would need this host's clock to be right.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Scheme, host and port of a URL.
pub(super) fn origin(url: &Url) -> Url {
    let mut origin = url.clone();
    origin.set_path("");
    origin.set_query(None);
    origin.set_fragment(None);
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_words_are_one_plain_line_however_they_come() {
        let scopes = r#"{"error":{"details":"This key does not have the \"pin\" scope","reason":"NO_SCOPES_FOUND"}}"#;
        assert_eq!(said(scopes), r#"NO_SCOPES_FOUND: This key does not have the "pin" scope"#);
        assert_eq!(said(r#"{"error":"File too\nlarge","n":1}"#), "File too large");
        assert_eq!(said("<html><h1>413</h1>\r\n<p>too large</p>"), "413 too large");
        assert_eq!(said("plain\u{1b}[2Jtext"), "plain [2Jtext");
        assert_eq!(said(&"x".repeat(5000)).len(), WORDS_MAX);
        assert_eq!(said(""), "");
    }
}
