//! One endpoint: JSON-RPC over HTTP, one call at a time.
//!
//! What must hold: every call ends in time, no answer takes more memory than [`BODY_BYTES_MAX`],
//! and the URL, which may carry a key, leaves this file redacted only, also where the endpoint
//! repeats a piece of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Error;
use super::answer::{Answer, Refusal, words};
use super::health::{Fault, Kind};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::secret::redact_url;
use crate::{proxy, report};

/// The largest answer that is asked for is a block with the hashes of its transactions: some
/// hundred kilobytes on a busy chain.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A shorter piece of a URL is no key, and would be found in many a word.
const KEY_CHARS_MIN: usize = 8;

/// An endpoint, and the client that it shares with the others.
pub(super) struct Endpoint {
    client: reqwest::Client,
    url: Url,
    /// The URL as it may be shown.
    pub(super) shown: String,
    next_id: AtomicU64,
}

/// Why an endpoint gave no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It answered, and the answer is no.
    Refused(Refusal),
    /// It did not answer the call.
    Fault(Fault),
}

impl Trouble {
    /// It answered, but not in a way that this program could read.
    pub(super) fn nonsense(said: String) -> Self {
        fault(Kind::Nonsense, said, true)
    }

    /// The same where the method may not be refused: a refusal is the endpoint's fault.
    pub(super) fn of_method(self, method: &str) -> Self {
        match self {
            Self::Refused(refusal) => {
                Self::nonsense(format!("{method} was refused: {}", words(&refusal.message)))
            }
            fault @ Self::Fault(_) => fault,
        }
    }

    /// The same before the question itself was put.
    pub(super) fn of_vetting(self) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(Fault { perhaps_done: false, ..fault }),
            refused @ Self::Refused(_) => refused,
        }
    }
}

impl Endpoint {
    /// Opens nothing yet. Fails on what is no `http` or `https` URL.
    pub(super) fn new(url: &str, client: reqwest::Client) -> Result<Self, Error> {
        let url: Url = url.parse().map_err(|_| Error::BadUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::BadUrl);
        }
        let shown = redact_url(url.as_str()).trim_end_matches('/').to_owned();
        Ok(Self { client, url, shown, next_id: AtomicU64::new(1) })
    }

    /// Calls `method`, and gives its result as it came.
    pub(super) async fn call(&self, method: &str, params: &Value) -> Result<Value, Trouble> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = self.client.post(self.url.clone()).json(&body);
        let mut response = request.send().await.map_err(|err| self.broken(err))?;
        let (status, asked_for) = (response.status(), rest_asked_for(response.headers()));
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|err| self.broken(err))? {
            if text.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Trouble::nonsense(format!("more than {BODY_BYTES_MAX} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        self.read(status, &text).map_err(|trouble| match trouble {
            Trouble::Fault(fault) => Trouble::Fault(Fault { retry_after: asked_for, ..fault }),
            refused @ Trouble::Refused(_) => refused,
        })
    }

    fn read(&self, status: StatusCode, text: &[u8]) -> Result<Value, Trouble> {
        let answer: Option<Answer> = serde_json::from_slice(text).ok();
        if let Some(Answer { error: Some(mut refusal), .. }) = answer {
            refusal.message = self.without_keys(&refusal.message);
            refusal.by.clone_from(&self.shown);
            if refusal.is_throttling() || status == StatusCode::TOO_MANY_REQUESTS {
                return Err(fault(Kind::Throttled, words(&refusal.message), false));
            }
            if is_not_now(status) {
                let said = format!("HTTP {status}, {}", words(&refusal.message));
                return Err(fault(Kind::Away, said, status.is_server_error()));
            }
            return Err(Trouble::Refused(refusal));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(fault(Kind::Throttled, format!("HTTP {status}"), false));
        }
        if !status.is_success() {
            let said = format!("HTTP {status}{}", self.through());
            return Err(fault(Kind::Away, said, status.is_server_error()));
        }
        // A page of a proxy or of a gateway may stand where JSON-RPC should.
        let result = answer.and_then(|answer| answer.result);
        result.ok_or_else(|| Trouble::nonsense("not JSON-RPC; is this the right URL?".to_owned()))
    }

    fn broken(&self, err: reqwest::Error) -> Trouble {
        // Without a connection the call can't have been executed.
        let perhaps_done = !err.is_connect();
        // reqwest's texts repeat the whole URL.
        let said = self.without_keys(&report::causes(&err.without_url()));
        fault(Kind::Away, words(&said) + &self.through(), perhaps_done)
    }

    /// The proxy, as the end of a sentence.
    fn through(&self) -> String {
        proxy::in_words(self.url.scheme(), self.url.host_str().unwrap_or_default())
    }

    /// The text without the pieces of the URL that may be keys.
    fn without_keys(&self, text: &str) -> String {
        let pairs = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let path = self.url.path_segments().into_iter().flatten().map(str::to_owned);
        let user = [self.url.username(), self.url.password().unwrap_or_default()];
        let pieces = pairs.chain(path).chain(user.map(str::to_owned));
        let keys = pieces.filter(|piece| piece.chars().count() >= KEY_CHARS_MIN);
        keys.fold(text.to_owned(), |text, key| text.replace(&key, "***"))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Statuses by which what stands before an endpoint speaks, and not the endpoint itself. The rest
/// of 4xx and 500 go with JSON-RPC's own errors in some programs.
fn is_not_now(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401..=403 | 407 | 408 | 502..=599)
}

fn fault(kind: Kind, said: String, perhaps_done: bool) -> Trouble {
    Trouble::Fault(Fault { perhaps_done, ..Fault::new(kind, said) })
}

fn rest_asked_for(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemClock.now())
}

/// `Retry-After`: seconds, or a date as HTTP writes it.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(value, &Rfc2822).ok()?.unix_timestamp();
    let at = Timestamp::from_unix_ms(u64::try_from(at).ok()?.saturating_mul(1000));
    Some(at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = "2026-11-22T10:00:00.000Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 22 Nov 2026 10:01:30 GMT", Some(90)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn an_endpoint_that_repeats_its_key_does_not_give_it_away() {
        let url = "https://user01234:pass01234@rpc.example/v2/AbCdEf01?token=secret99";
        let endpoint = Endpoint::new(url, client()).unwrap();
        let body = r#"{"error":{"code":-32600,"message":"no such key AbCdEf01 secret99 v2"}}"#;
        let Err(Trouble::Refused(refusal)) = endpoint.read(StatusCode::OK, body.as_bytes()) else {
            panic!("it is refused");
        };
        assert_eq!(refusal.message, "no such key *** *** v2");
        assert_eq!(endpoint.without_keys("user01234 pass01234"), "*** ***");
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_gateways_word_is_none() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", client()).unwrap();
        let reverted = r#"{"error":{"code":3,"message":"execution reverted"}}"#;
        let slow = r#"{"error":{"code":-32005,"message":"slow down"}}"#;
        for (status, body, kind) in [
            (200, reverted, None),
            (400, reverted, None),
            (500, reverted, None),
            (200, slow, Some(Kind::Throttled)),
            (429, reverted, Some(Kind::Throttled)),
            (429, "", Some(Kind::Throttled)),
            (403, reverted, Some(Kind::Away)),
            (503, reverted, Some(Kind::Away)),
            (500, "<html>", Some(Kind::Away)),
            (301, "", Some(Kind::Away)),
            (404, r#"{"result":"0x1"}"#, Some(Kind::Away)),
            (200, "<html>", Some(Kind::Nonsense)),
            (200, r#"{"result":"0x1""#, Some(Kind::Nonsense)),
            (200, "[]", Some(Kind::Nonsense)),
            (200, r#"{"jsonrpc":"2.0","id":1}"#, Some(Kind::Nonsense)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let told = match endpoint.read(status, body.as_bytes()).unwrap_err() {
                Trouble::Fault(fault) => Some(fault.kind),
                Trouble::Refused(_) => None,
            };
            assert_eq!(told, kind, "{status} {body}");
        }
    }

    fn client() -> reqwest::Client {
        rustls::crypto::ring::default_provider().install_default().ok();
        reqwest::Client::new()
    }
}
