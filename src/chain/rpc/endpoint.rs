//! One endpoint: JSON-RPC over HTTP, one call per request, or one batch of calls.
//!
//! Must hold: every call ends in bounded time. No answer takes more memory than [`BODY_BYTES_MAX`].
//! The URL may contain a key, so it leaves this file only in redacted form, even if the endpoint
//! repeats a part of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Error;
use super::answer::{Answer, ErrorObject, words};
use super::batch::{self, Call};
use super::health::{EndpointFault, Kind};
use crate::http::{self, Client, ClientError, StatusCode, Url};
use crate::seldom::Seldom;
use crate::{proxy, report};

/// The limit of an answer's size. The largest regular answer is a block with its transaction hashes:
/// a few hundred kilobytes on a busy chain.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Shorter pieces of a URL are not keys, and would match parts of ordinary words.
const KEY_CHARS_MIN: usize = 4;

/// The most lines about an endpoint's state in the log in [`STATES_SPAN`].
const STATES_MAX: u32 = 10;
const STATES_SPAN: Duration = Duration::from_mins(10);

/// An endpoint, and the HTTP client that it shares with the others.
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    /// The redacted URL.
    pub(super) shown: String,
    /// Lines that it is left alone: a flapping one would fill the log with them.
    lines: Seldom,
    /// Whether the last line about its state says that it is left alone.
    is_told_away: AtomicBool,
    next_id: AtomicU64,
}

/// What came back over HTTP.
struct Said {
    status: StatusCode,
    /// The pause that it asked for.
    asked_for: Option<Duration>,
    text: Vec<u8>,
}

/// Why an endpoint gave no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// It refused the call with a JSON-RPC error.
    Refused(ErrorObject),
    /// It gave no answer, or none that can be used.
    Fault(EndpointFault),
}

impl CallError {
    /// The fault of an answer that can't be used.
    pub(super) fn nonsense(said: String) -> Self {
        fault(Kind::Nonsense, said, true)
    }

    /// Whether another request may fare better: it was refused, or its answer can't be used.
    pub(super) fn is_of_request(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Fault(EndpointFault { kind: Kind::Nonsense, .. }))
    }

    /// Turns a refusal into a fault of the endpoint, for methods that every endpoint must serve.
    pub(super) fn of_method(self, method: &str) -> Self {
        match self {
            Self::Refused(refusal) => {
                Self::nonsense(format!("{method} was refused: {}", words(&refusal.message)))
            }
            fault @ Self::Fault(_) => fault,
        }
    }

    /// The same with the pause that the endpoint asked for.
    fn after(self, asked_for: Option<Duration>) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(EndpointFault { retry_after: asked_for, ..fault }),
            refused @ Self::Refused(_) => refused,
        }
    }

    /// Marks the call as not executed, for trouble in the checks that precede it.
    pub(super) fn of_vetting(self) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(EndpointFault { perhaps_done: false, ..fault }),
            refused @ Self::Refused(_) => refused,
        }
    }
}

impl Endpoint {
    /// Makes no connection yet. Fails unless `url` is an `http` or `https` URL.
    pub(super) fn new(url: &str, client: Client) -> Result<Self, Error> {
        let url = http::url(url).map_err(|_| Error::BadUrl)?;
        let shown = http::shown(&url);
        let lines = Seldom::within(STATES_MAX, STATES_SPAN);
        let (is_told_away, next_id) = (AtomicBool::new(false), AtomicU64::new(1));
        Ok(Self { client, url, shown, lines, is_told_away, next_id })
    }

    /// What to append to the line that it is left alone; `None` if that line is left out.
    pub(super) fn left_alone(&self) -> Option<String> {
        let more = self.lines.line()?;
        self.is_told_away.store(true, Ordering::Relaxed);
        Some(more)
    }

    /// Whether to tell that it is back: always when the last line says that it is left alone, however many
    /// lines there were.
    pub(super) fn is_back_news(&self) -> bool {
        self.is_told_away.swap(false, Ordering::Relaxed)
    }

    /// Calls `method` and returns its result unparsed.
    pub(super) async fn call(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let said = self.post(&body).await?;
        let read = self.read((method, params), said.status, &said.text);
        read.map_err(|trouble| trouble.after(said.asked_for))
    }

    /// Makes all calls in one request. The result is an array of their answers, in the order of the calls.
    pub(super) async fn batch(&self, calls: &[Call]) -> Result<Value, CallError> {
        let count = u64::try_from(calls.len()).unwrap_or(u64::MAX);
        let first_id = self.next_id.fetch_add(count, Ordering::Relaxed);
        let said = self.post(&batch::body(calls, first_id)).await?;
        let read = || {
            let answers = batch::answers(&said.text, calls.len());
            let Some(answers) = answers.filter(|_| said.status.is_success()) else {
                // It answered the batch as a whole, which is no answer to its calls.
                self.read((batch::METHOD, &Value::Null), said.status, &said.text)?;
                return Err(CallError::nonsense("one answer to a batch of calls".to_owned()));
            };
            let clean = |refusal: &mut ErrorObject| {
                refusal.message = self.without_keys(&refusal.message);
            };
            batch::in_order(answers, first_id, calls.len(), clean).map_err(CallError::Fault)
        };
        read().map_err(|trouble| trouble.after(said.asked_for))
    }

    async fn post(&self, body: &Value) -> Result<Said, CallError> {
        let request = self.client.post(self.url.clone()).json(body);
        let mut response = request.send().await.map_err(|err| self.broken(err))?;
        let (status, asked_for) = (response.status(), http::retry_after(response.headers()));
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|err| self.broken(err))? {
            if text.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(CallError::nonsense(format!("more than {BODY_BYTES_MAX} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(Said { status, asked_for, text })
    }

    /// What came of a method with these parameters.
    fn read(
        &self,
        (method, params): (&str, &Value),
        status: StatusCode,
        text: &[u8],
    ) -> Result<Value, CallError> {
        let answer: Option<Answer> = serde_json::from_slice(text).ok();
        if let Some(Answer { error: Some(mut refusal), .. }) = answer {
            refusal.message = self.without_keys(&refusal.message);
            refusal.by.clone_from(&self.shown);
            if refusal.is_throttling(method, params) || status == StatusCode::TOO_MANY_REQUESTS {
                return Err(fault(Kind::Throttled, words(&refusal.message), false));
            }
            if is_not_now(status) {
                let said = format!("HTTP {status}, {}", words(&refusal.message));
                return Err(fault(Kind::Away, said, status.is_server_error()));
            }
            return Err(CallError::Refused(refusal));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(fault(Kind::Throttled, format!("HTTP {status}"), false));
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Err(CallError::Refused(ErrorObject {
                code: status.as_u16().into(),
                message: format!("HTTP {status}"),
                data: Value::Null,
                by: self.shown.clone(),
            }));
        }
        if !status.is_success() {
            let said = format!("HTTP {status}{}", self.through());
            return Err(fault(Kind::Away, said, status.is_server_error()));
        }
        // A proxy or gateway may have answered with a page of its own.
        let result = answer.and_then(|answer| answer.result);
        result.ok_or_else(|| CallError::nonsense("not JSON-RPC; is this the right URL?".to_owned()))
    }

    fn broken(&self, err: ClientError) -> CallError {
        // Without a connection the call can't have been executed.
        let perhaps_done = !err.is_connect();
        // reqwest's error texts contain the whole URL.
        let said = self.without_keys(&report::causes(&err.without_url()));
        fault(Kind::Away, words(&said) + &self.through(), perhaps_done)
    }

    /// The proxy in use, as the end of a sentence.
    fn through(&self) -> String {
        proxy::in_words(self.url.scheme(), self.url.host_str().unwrap_or_default())
    }

    /// The text with those pieces of the URL masked that may be keys.
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

/// Whether a gateway or proxy, not the endpoint itself, sent this status. Some servers send JSON-RPC
/// errors with 500 and with the other 4xx.
fn is_not_now(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401..=403 | 407 | 408 | 502..=599)
}

fn fault(kind: Kind, said: String, perhaps_done: bool) -> CallError {
    CallError::Fault(EndpointFault { perhaps_done, ..EndpointFault::new(kind, said) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_repeats_its_key_does_not_give_it_away() {
        let url = "https://user01234:pass01234@rpc.example/v2/AbCd?token=secret99";
        let endpoint = Endpoint::new(url, client()).unwrap();
        let body = r#"{"error":{"code":-32600,"message":"no such key AbCd secret99 v2"}}"#;
        let Err(CallError::Refused(refusal)) =
            endpoint.read(("eth_call", &Value::Null), StatusCode::OK, body.as_bytes())
        else {
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
            let asked = ("eth_getLogs", &Value::Null);
            let told = match endpoint.read(asked, status, body.as_bytes()).unwrap_err() {
                CallError::Fault(fault) => Some(fault.kind),
                CallError::Refused(_) => None,
            };
            assert_eq!(told, kind, "{status} {body}");
        }
    }

    #[test]
    fn the_last_line_about_an_endpoint_that_is_back_says_so() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", client()).unwrap();
        assert!(!endpoint.is_back_news(), "nobody was told that it was away");
        for _ in 0..STATES_MAX {
            assert!(endpoint.left_alone().is_some() && endpoint.is_back_news());
        }
        assert!(endpoint.left_alone().is_none() && !endpoint.is_back_news());
    }

    fn client() -> Client {
        rustls::crypto::ring::default_provider().install_default().ok();
        Client::new()
    }
}
