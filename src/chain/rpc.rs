//! JSON-RPC over HTTP, one call at a time.
//!
//! What must hold: every call ends in time, no answer takes more memory than [`BODY_BYTES_MAX`],
//! and the endpoint's URL, which may carry a key, leaves this file redacted only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Error;
use crate::secret::redact_url;

/// The largest answer that is asked for is a block with the hashes of its transactions: some
/// hundred kilobytes on a busy chain.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a text of the endpoint's may take of an error message.
const WORDS_MAX: usize = 300;

/// One endpoint.
pub(super) struct Rpc {
    client: reqwest::Client,
    url: Url,
    /// The URL as it may be shown.
    pub(super) shown: String,
    next_id: AtomicU64,
}

/// The endpoint understood the call and said no: JSON-RPC's error object.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) code: i64,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Value,
}

/// Why a call gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    Other(Error),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Refusal>,
}

impl Rpc {
    /// Opens nothing yet. Fails on what is no `http` or `https` URL.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        // reqwest panics without a provider; a second install is refused and changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let url: Url = url.parse().map_err(|_| Error::BadUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::BadUrl);
        }
        let shown = redact_url(url.as_str()).trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| unreachable(&shown, source))?;
        Ok(Self { client, url, shown, next_id: AtomicU64::new(1) })
    }

    /// Calls `method` and reads its result.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let (status, text) = self.post(&body).await.map_err(Failure::Other)?;
        let Ok(answer) = serde_json::from_slice::<Answer>(&text) else {
            return Err(Failure::Other(self.no_json_rpc(status)));
        };
        match answer {
            Answer { error: Some(refusal), .. } if refusal.is_throttling(status) => {
                Err(Failure::Other(self.away(&words(&refusal.message))))
            }
            Answer { error: Some(refusal), .. } => Err(Failure::Refused(refusal)),
            Answer { result, .. } if status.is_success() => {
                serde_json::from_value(result.unwrap_or_default()).map_err(|_| {
                    let reason = format!("its result of {method} has another form");
                    Failure::Other(Error::Unexpected { reason })
                })
            }
            Answer { .. } => Err(Failure::Other(self.no_json_rpc(status))),
        }
    }

    /// [`Rpc::call`] where a refusal is no answer that the caller could use.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        self.call(method, params).await.map_err(|failure| failure.unexpected(method))
    }

    async fn post(&self, body: &Value) -> Result<(reqwest::StatusCode, Vec<u8>), Error> {
        let broken = |source| unreachable(&self.shown, source);
        let request = self.client.post(self.url.clone()).json(body);
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if text.len() + chunk.len() > BODY_BYTES_MAX {
                let reason = format!("more than {BODY_BYTES_MAX} bytes");
                return Err(Error::Unexpected { reason });
            }
            text.extend_from_slice(&chunk);
        }
        Ok((status, text))
    }

    /// A page of a proxy or of a gateway stands where JSON-RPC should.
    fn no_json_rpc(&self, status: reqwest::StatusCode) -> Error {
        if status.is_success() {
            return Error::Unexpected { reason: "not JSON-RPC; is this the right URL?".into() };
        }
        self.away(&format!("HTTP {status}"))
    }

    fn away(&self, said: &str) -> Error {
        Error::Unreachable { url: self.shown.clone(), source: said.into() }
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rpc({})", self.shown)
    }
}

impl Refusal {
    /// Public endpoints say "slow down" in these ways: it is no answer to the call.
    fn is_throttling(&self, status: reqwest::StatusCode) -> bool {
        status == reqwest::StatusCode::TOO_MANY_REQUESTS || matches!(self.code, -32005 | 429)
    }

    /// Whether the message has one of these words, in any case.
    pub(super) fn says(&self, any_of: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        any_of.iter().any(|phrase| message.contains(phrase))
    }
}

impl Failure {
    /// The error of a call that should not have been refused.
    pub(super) fn unexpected(self, method: &str) -> Error {
        match self {
            Self::Other(error) => error,
            Self::Refused(refusal) => Error::Unexpected {
                reason: format!("{method} was refused: {}", words(&refusal.message)),
            },
        }
    }
}

/// A text from outside as it may stand in an error: one line, bounded, nothing that moves a
/// terminal.
pub(super) fn words(text: &str) -> String {
    let text = text.trim();
    let mut shown: String =
        text.chars().take(WORDS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(WORDS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn unreachable(shown: &str, source: reqwest::Error) -> Error {
    // reqwest's texts repeat the whole URL.
    Error::Unreachable { url: shown.to_owned(), source: Box::new(source.without_url()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_words_are_bounded_and_harmless() {
        assert_eq!(words(" two\nlines\u{1b}[2J "), "two lines [2J");
        assert_eq!(words(&"ä".repeat(1000)).chars().count(), WORDS_MAX + 1);
    }

    #[test]
    fn only_http_urls_are_taken_and_their_keys_stay_hidden() {
        for url in ["", "127.0.0.1:8545", "ws://127.0.0.1:8545", "file:///etc/passwd"] {
            let refused = Rpc::new(url, Duration::from_secs(1));
            assert!(matches!(refused, Err(Error::BadUrl)), "{url}");
        }
        let rpc = Rpc::new("https://u:p@rpc.example/v2/AbCdEf0123456789AbCdEf?k=1", Duration::MAX);
        assert_eq!(format!("{:?}", rpc.unwrap()), "Rpc(https://rpc.example/v2/***)");
    }
}
