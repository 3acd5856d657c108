//! The clients of gateways and the pinning service, and what a refusing status of them means.

use std::sync::Arc;
use std::time::Duration;

use super::{Config, Error};
use crate::http::dns::Resolve;
use crate::http::{self, Client, ClientBuilder, Response, StatusCode, Url};
use crate::secret::redact_url;

/// Upper limit for the wait that a service asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A client that applies `config`'s timeouts.
pub(super) fn client(config: &Config) -> Result<Client, Error> {
    build(http::client().connect_timeout(config.connect_timeout))
}

/// Like [`client`], with `names` as its resolver.
pub(super) fn client_with(config: &Config, names: Arc<dyn Resolve>) -> Result<Client, Error> {
    build(http::client().connect_timeout(config.connect_timeout).dns_resolver(names))
}

fn build(builder: ClientBuilder) -> Result<Client, Error> {
    let failed =
        |err| Error::Setting { setting: "the HTTP client".into(), source: http::boxed(err) };
    builder.build().map_err(failed)
}

/// Parses a base URL and makes its path one that others can be joined to.
pub(super) fn base_url(text: &str) -> Result<Url, Error> {
    let refuse =
        |err: http::InvalidUrl| Error::Setting { setting: redact_url(text), source: err.into() };
    http::base_url(text).map_err(refuse)
}

/// The error of a non-success status that means the same for every service.
pub(super) fn refusal(response: &Response) -> Option<Error> {
    let service = http::shown(&http::origin(response.url()));
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Some(Error::Refused { service, words: None })
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Some(Error::RateLimited { service, retry_after: asked_wait(response) })
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            let source =
                Some(format!("it answers {status}{}", http::through(response.url())).into());
            Some(Error::Unavailable { what: format!("{service} can't answer now"), source })
        }
        _ => None,
    }
}

fn asked_wait(response: &Response) -> Option<Duration> {
    http::retry_after(response.headers()).map(|wait| wait.min(RETRY_AFTER_MAX))
}
