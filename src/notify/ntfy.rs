//! ntfy, by its JSON form, which takes titles in any script.
//!
//! Must hold: a notice has the same sequence id at each try, by which the apps show a repetition as the same
//! message (ntfy 2.16 and later).

use std::time::Duration;

use serde_json::{Value, json};

use super::calls::{Target, client, post, unanswered};
use super::form::{Limit, Markup, Message, title};
use super::{Accepted, Pace, Refused, Telling};
use crate::fleet::notice::{Notice, NoticeKind, Severity};
use crate::http::{self, Client, InvalidUrl, Url};
use crate::report::BoxError;
use crate::secret::Secret;

/// The channel's name.
pub const NAME: &str = "ntfy";

/// The public server refills one message in five seconds, after sixty at once.
pub const PACE: Pace = Pace { apart: Duration::from_secs(1), a_minute: 12 };

/// A longer message becomes an attachment, which apps don't show.
const TEXT_MAX: Limit = Limit::Bytes(4_000);

/// A topic.
#[derive(Debug, Clone)]
pub struct Config {
    url: Secret,
}

impl Config {
    /// The topic of a URL such as `https://ntfy.sh/topic`, which is as good as a password, and may hold one.
    pub fn new(url: Secret) -> Result<Self, InvalidUrl> {
        place(&url)?;
        Ok(Self { url })
    }
}

/// The server of a topic's URL, and the topic.
fn place(url: &Secret) -> Result<(Url, String), InvalidUrl> {
    let mut server = http::url(url.expose())?;
    let path = server.path().trim_matches('/').to_owned();
    let (folder, topic) = path.rsplit_once('/').unwrap_or(("", &path));
    let is_of = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if topic.is_empty() || topic.len() > 64 || !topic.bytes().all(is_of) {
        return Err(InvalidUrl);
    }
    server.set_path(folder);
    server.set_fragment(None);
    Ok((server, topic.to_owned()))
}

/// A topic.
#[derive(Debug, Clone)]
pub struct Ntfy {
    client: Client,
    server: Target,
    topic: Secret,
}

impl Ntfy {
    /// The topic of this configuration. Nothing is called.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let (server, topic) = place(&config.url)?;
        Ok(Self { client: client()?, server: Target(server), topic: Secret::new(topic) })
    }

    pub(super) async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let message = body(telling, self.topic.expose());
        // Servers before 2.16 know neither; what stands before them may know the second.
        let request = self.client.post(self.server.0.clone()).json(&message);
        post(request.header("idempotency-key", telling.key())).await
    }

    /// Asks for the server's health.
    pub(super) async fn check(&self) -> Result<String, Refused> {
        let mut url = http::origin(&self.server.0);
        url.set_path(&format!("{}/v1/health", self.server.0.path().trim_end_matches('/')));
        let answer = self.client.get(url).send().await.map_err(unanswered)?;
        match answer.status() {
            status if status.is_success() => Ok("the server is well".to_owned()),
            status => Err(Refused::by_channel(&status.to_string())),
        }
    }
}

pub(super) fn body(telling: &Telling, topic: &str) -> Value {
    let notice = &telling.notice;
    json!({
        "topic": topic,
        "title": title(notice),
        "message": Message::of(telling).without_title().text(Markup::Plain, TEXT_MAX),
        "priority": priority(notice),
        "tags": [notice.kind.as_str(), notice.severity.as_str()],
        "sequence_id": telling.key(),
    })
}

/// 5 breaks through "do not disturb", 2 makes no sound.
const fn priority(notice: &Notice) -> u8 {
    match (notice.kind, notice.severity) {
        (NoticeKind::Resolved | NoticeKind::Test, _) => 3,
        (NoticeKind::Digest, _) | (_, Severity::Info) => 2,
        (_, Severity::Warning) => 4,
        (_, Severity::Critical) => 5,
    }
}
