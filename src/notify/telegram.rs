//! Telegram's bots, by the method `sendMessage`.
//!
//! Must hold: a wrong token or chat keeps the notices, since its owner can mend it. A 400 is only laid on the
//! notice if its plainest form is taken, so that no form of ours loses an alert: that form is then what is sent.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{body_of, client, unanswered};
use super::form::{Limit, Markup, Message, title};
use super::{Accepted, Pace, Refused, Telling};
use crate::fleet::notice::Severity;
use crate::http::{self, Client, InvalidUrl, StatusCode, Url};
use crate::report::{BoxError, one_line};
use crate::secret::Secret;

/// The channel's name.
pub const NAME: &str = "telegram";

/// Where bots call.
pub const API: &str = "https://api.telegram.org";

/// What Telegram allows in one chat: a message a second, and in a group 20 a minute.
pub const PACE: Pace = Pace { apart: Duration::from_secs(1), a_minute: 20 };

/// The longest text; its markup doesn't count.
const TEXT_MAX: Limit = Limit::Units(4096);

/// The longest title in the plainest form, in characters.
const PLAIN_CHARS_MAX: usize = 200;

/// A bot, and the chat that it writes to.
#[derive(Debug, Clone)]
pub struct Config {
    api: Url,
    token: Secret,
    chat: String,
}

impl Config {
    /// The bot with this token, at this API ([`API`] unless somebody runs his own). The chat is its number, or
    /// `@name` of a channel.
    pub fn new(api: &str, token: Secret, chat: &str) -> Result<Self, InvalidUrl> {
        Ok(Self { api: http::base_url(api)?, token, chat: chat.to_owned() })
    }

    /// Whether this can be a token: a number, a colon, and 20 characters or more of `A-Za-z0-9_-`.
    pub fn is_token(text: &str) -> bool {
        let is_of = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        text.split_once(':').is_some_and(|(bot, key)| {
            !bot.is_empty()
                && bot.bytes().all(|byte| byte.is_ascii_digit())
                && (20..=100).contains(&key.len())
                && key.chars().all(is_of)
        })
    }

    /// Whether this can be a chat: a number, or `@` and a name.
    pub fn is_chat(text: &str) -> bool {
        let is_name = |name: &str| {
            (4..=64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        text.parse::<i64>().is_ok() || text.strip_prefix('@').is_some_and(is_name)
    }
}

/// A chat.
#[derive(Debug, Clone)]
pub struct Telegram {
    client: Client,
    config: Config,
}

/// What Telegram answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    result: Value,
    description: String,
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    retry_after: Option<u64>,
    /// A group that became a larger one has another number.
    migrate_to_chat_id: Option<i64>,
}

impl Telegram {
    /// The chat of this configuration. Nothing is called.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        Ok(Self { client: client()?, config: config.clone() })
    }

    pub(super) async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let text = Message::of(telling).text(Markup::Html, TEXT_MAX);
        let is_quiet = telling.notice.severity == Severity::Info;
        let mut message = json!({
            "chat_id": self.config.chat,
            "text": text,
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": true},
            "disable_notification": is_quiet,
        });
        let sent = match self.call("sendMessage", &message).await {
            Err((_, Some(StatusCode::BAD_REQUEST))) => {
                // Either Telegram does not like our form, or the chat is wrong: one more message tells.
                message["text"] = json!(one_line(&title(&telling.notice), PLAIN_CHARS_MAX));
                message["parse_mode"].take();
                self.call("sendMessage", &without_nulls(message)).await
            }
            sent => sent,
        };
        let sent = sent.map_err(|(refused, _)| refused)?;
        Ok(Accepted { answer: format!("message {}", sent["message_id"]) })
    }

    /// Asks who the bot is and whether it knows the chat.
    pub(super) async fn check(&self) -> Result<String, Refused> {
        let of = |(mut refused, _): (Refused, _)| {
            refused.may_have_arrived = false;
            refused
        };
        let bot = self.call("getMe", &json!({})).await.map_err(of)?;
        let chat = json!({"chat_id": self.config.chat});
        let chat = self.call("getChat", &chat).await.map_err(of)?;
        let text = |value: &Value| one_line(value.as_str().unwrap_or("?"), PLAIN_CHARS_MAX);
        let name = ["title", "username", "first_name"].map(|key| &chat[key]);
        let name = name.into_iter().find(|name| name.is_string()).unwrap_or(&Value::Null);
        Ok(format!("the bot @{} may write to the chat {}", text(&bot["username"]), text(name)))
    }

    /// Calls a method; an error has the status that Telegram answered with.
    async fn call(
        &self,
        method: &str,
        body: &Value,
    ) -> Result<Value, (Refused, Option<StatusCode>)> {
        let path = format!("bot{}/{method}", self.config.token.expose());
        // The cause is left out: it would quote the token.
        let url = self
            .config
            .api
            .join(&format!("./{path}"))
            .map_err(|_| (Refused::by_channel("TELEGRAM_BOT_TOKEN can't be a token"), None))?;
        let request = self.client.post(url).json(body).send();
        let response = request.await.map_err(|err| (unanswered(err), None))?;
        let status = response.status();
        let retry_after = http::retry_after(response.headers());
        let body = body_of(response).await.map_err(|refused| (refused, Some(status)))?;
        let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && answer.ok {
            return Ok(answer.result);
        }
        Err((self.refusal(status, &answer, retry_after), Some(status)))
    }

    fn refusal(&self, status: StatusCode, answer: &Answer, wait: Option<Duration>) -> Refused {
        let said = match answer.description.as_str() {
            "" => status.to_string(),
            // An API of the owner's own may quote the path that it was called by.
            said => said.replace(self.config.token.expose(), "[secret]"),
        };
        let about = match status.as_u16() {
            401 | 404 => " (TELEGRAM_BOT_TOKEN is not the token of a bot)",
            400 | 403 => " (look at TELEGRAM_CHAT_ID, and whether the bot may write there)",
            _ => "",
        };
        let moved = answer.parameters.migrate_to_chat_id;
        let moved = moved.map_or_else(String::new, |id| format!("; its number is now {id}"));
        let asked = answer.parameters.retry_after.map(Duration::from_secs);
        Refused {
            retry_after: asked.max(wait),
            // A success that isn't one, or a gateway that gave up waiting.
            may_have_arrived: status.is_success() || status.as_u16() == 504,
            ..Refused::by_channel(&format!("{said}{about}{moved}"))
        }
    }
}

/// The object without the keys that are null.
fn without_nulls(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    object
}
