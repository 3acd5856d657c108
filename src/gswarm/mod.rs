//! The originals' services, spoken to unchanged: the side car's ingest and metrics API, and in [`beat`] the monitor's
//! heartbeats.
//!
//! One call a method, without a loop and without a queue: the caller keeps what was not taken, and tries again.
//!
//! Must hold: a call ends within the configured time; no error and no `Debug` form has a token or a URL; an answer
//! is read up to a bound; a redirect is never followed. A refusal says whether the same batch can ever be taken.

pub mod beat;
mod wire;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::http::{self, Client, InvalidUrl, StatusCode, Url, header};
use crate::report::{BoxError, causes, one_line};
use crate::secret::Secret;

pub use wire::{Blockchain, ContractEvent, Cpu, Gpu, Hardware, IngestEvent, Metrics, Ram};

/// Most events of one post.
pub const EVENTS_MAX: usize = 1_000;

/// Largest body of one post, in bytes: what API gateways take is a little less than ten times this.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// How long a call may take.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The longest that the service's words are waited for after its status came.
const WORDS_MAX: Duration = Duration::from_secs(2);

/// What stands where a secret stood.
const SECRET: &str = "[secret]";

/// The shortest beginning of a secret that is taken out where a text was cut, in bytes.
const PART_BYTES_MIN: usize = 4;

/// The longest reason of a refusal, in characters.
const REASON_CHARS_MAX: usize = 300;

/// One endpoint: a URL, which may hold a key, and who calls.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    bearer: Secret,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&http::shown(&self.url))
    }
}

/// Why there can be no such endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The token would end the head of a request.
    #[error("the token has a space or a letter that can't stand in a head of a request")]
    Bearer,
}

impl Endpoint {
    /// The endpoint at `base` and `path` as the original puts them together: one after the other.
    pub fn new(base: &str, path: &str, bearer: Secret) -> Result<Self, InvalidEndpoint> {
        let is_plain = bearer.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || bearer.expose().is_empty() {
            return Err(InvalidEndpoint::Bearer);
        }
        let url = match path.trim_start_matches('/') {
            "" => http::url(base)?,
            path => http::url(&format!("{}/{path}", base.trim_end_matches('/')))?,
        };
        Ok(Self { url, bearer })
    }

    /// The endpoint for people: only its host.
    pub fn shown(&self) -> String {
        http::shown(&self.url)
    }
}

/// What the original's service is sent, and by whom.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The node's name.
    pub node_id: String,
    /// Where events of logs go, if anywhere.
    pub ingest: Option<Endpoint>,
    /// Where samples of the machine go, if anywhere.
    pub hardware: Option<Endpoint>,
    /// Which samples those are.
    pub sampled: Sampled,
    /// Where figures of the chain go, if anywhere.
    pub blockchain: Option<Endpoint>,
    /// The longest that one call takes; within a second and a minute.
    pub timeout: Duration,
}

/// Which samples of the machine are sent, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// The processor.
    pub cpu: bool,
    /// The memory.
    pub ram: bool,
    /// The GPUs.
    pub gpu: bool,
    /// Between two sends.
    pub every: Duration,
}

impl Default for Sampled {
    fn default() -> Self {
        Self { cpu: true, ram: true, gpu: true, every: Duration::from_mins(1) }
    }
}

/// The service took what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its status, in words.
    pub answer: String,
}

/// The service did not take what it was sent, or it isn't known whether it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why, in words.
    pub reason: String,
    /// How long the service asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether it will never take this, so that trying again is of no use.
    pub is_final: bool,
    /// Whether it may have arrived all the same: events have no key by which the service could know a repetition.
    pub may_have_arrived: bool,
}

impl Refused {
    fn now(reason: &str) -> Self {
        Self {
            reason: one_line(reason, REASON_CHARS_MAX),
            retry_after: None,
            is_final: false,
            may_have_arrived: false,
        }
    }

    fn for_ever(reason: &str) -> Self {
        Self { is_final: true, ..Self::now(reason) }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    client: Client,
    config: Config,
}

impl Service {
    /// The service of this configuration. Nothing is called.
    pub fn new(config: Config) -> Result<Self, BoxError> {
        let timeout = config.timeout.clamp(TIMEOUT.0, TIMEOUT.1);
        let client = http::client().timeout(timeout).build().map_err(http::boxed)?;
        Ok(Self { client, config })
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How many of the first events one post can hold; at least one, if there is any.
    pub fn fitting(events: &[IngestEvent]) -> usize {
        let mut bytes = 2;
        let fits = |event: &&IngestEvent| {
            bytes += serde_json::to_vec(event).map_or(0, |text| text.len()) + 1;
            bytes <= BODY_BYTES_MAX
        };
        events.iter().take(EVENTS_MAX).take_while(fits).count().max(events.len().min(1))
    }

    /// Posts events. Not repeatable without doubling them, unless the refusal says that they did not arrive.
    pub async fn ingest(&self, events: &[IngestEvent]) -> Result<Accepted, Refused> {
        if events.len() > EVENTS_MAX {
            return Err(Refused::for_ever("one post has at most 1000 events"));
        }
        self.post(self.config.ingest.as_ref(), &events).await
    }

    /// Posts samples or figures, of the time `at`.
    pub async fn metrics(&self, at: Timestamp, metrics: &Metrics) -> Result<Accepted, Refused> {
        let endpoint = match metrics {
            Metrics::Hardware(_) => &self.config.hardware,
            Metrics::Blockchain(_) => &self.config.blockchain,
        };
        let node_id = &self.config.node_id;
        let body = wire::Envelope { node_id, timestamp: at, metrics };
        self.post(endpoint.as_ref(), &body).await
    }

    async fn post(
        &self,
        endpoint: Option<&Endpoint>,
        body: &(impl Serialize + Sync),
    ) -> Result<Accepted, Refused> {
        let endpoint = endpoint.ok_or_else(|| Refused::for_ever("no endpoint is set for it"))?;
        post(&self.client, endpoint, body).await
    }
}

/// Posts a body as JSON.
async fn post(
    client: &Client,
    endpoint: &Endpoint,
    body: &(impl Serialize + Sync),
) -> Result<Accepted, Refused> {
    let body = serde_json::to_vec(body)
        .map_err(|err| Refused::for_ever(&format!("it can't be written as JSON: {err}")))?;
    if body.len() > BODY_BYTES_MAX {
        return Err(Refused::for_ever("it has more than a MiB as JSON"));
    }
    let request = client
        .post(endpoint.url.clone())
        .bearer_auth(endpoint.bearer.expose())
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    let response = request.send().await.map_err(unanswered)?;
    let status = response.status();
    if status.is_success() {
        return Ok(Accepted { answer: status.to_string() });
    }
    let retry_after = http::retry_after(response.headers());
    let said = http::explanation(response, WORDS_MAX).await;
    let said = without(&said, endpoint.bearer.expose());
    let about = advice(status);
    Err(Refused {
        retry_after,
        is_final: is_final(status),
        // A gateway gave up waiting for who may be at work on it.
        may_have_arrived: status == StatusCode::GATEWAY_TIMEOUT,
        ..Refused::now(&format!("{said}{about}"))
    })
}

/// What a service said, without the secret: it may quote what it was sent, and the text may have been cut within it.
fn without(said: &str, secret: &str) -> String {
    let mut said = said.replace(secret, SECRET);
    let parts = (PART_BYTES_MIN..secret.len()).rev().filter_map(|end| secret.get(..end));
    if let Some(part) = parts.into_iter().find(|part| said.ends_with(part)) {
        said.truncate(said.len() - part.len());
        said.push_str(SECRET);
    }
    said
}

/// A request that got no answer.
fn unanswered(err: http::ClientError) -> Refused {
    // Without a connection nothing can have arrived.
    let may_have_arrived = !err.is_connect() && !err.is_builder();
    let reason = if err.is_timeout() && may_have_arrived {
        "no answer in time".to_owned()
    } else {
        causes(http::boxed(err).as_ref())
    };
    Refused { may_have_arrived, ..Refused::now(&reason) }
}

/// Whether the batch itself is what is wrong. A token or an address that is wrong can be mended by the owner.
const fn is_final(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 415 | 422)
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => " (the token is wrong, or has expired)",
        404 | 405 => " (look at the endpoint's path)",
        300..=399 => " (it wants to be called elsewhere, which is not followed)",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
