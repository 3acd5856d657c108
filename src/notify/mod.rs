//! Channels over which people are told: one module each. The only place that knows their forms.
//!
//! [`telegram`], [`webhook`], [`mail`] and [`ntfy`] each send a [`Telling`]; `form` has what their texts share, `calls` their calls over HTTP.
//!
//! [`Switch`] is told that we are there. [`book`] is what was decided and waits to be told, [`outbox`] sends it,
//! in turns with another hub if there is a [`partner`].
//!
//! Must hold: a send ends within [`SEND_MAX`]; what a stranger wrote is escaped for the channel and bounded; no
//! error names a token, a password or a URL that holds one; a redirect is never followed. Whether a refusal lasts
//! is said by [`Blame`], so that nothing is given up that the channel might still take.

pub mod book;
mod calls;
mod form;
pub mod mail;
pub mod ntfy;
pub mod outbox;
pub mod partner;
mod switch;
pub mod telegram;
pub mod webhook;

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::fleet::notice::Notice;
use crate::report::{BoxError, one_line};
use crate::supervise::Failure;

pub use book::Book;
pub use mail::Mail;
pub use ntfy::Ntfy;
pub use outbox::Outbox;
pub use partner::Partner;
pub use switch::Switch;
pub use telegram::Telegram;
pub use webhook::Webhook;

/// The longest that one send takes, its second try in a plainer form included.
pub const SEND_MAX: Duration = Duration::from_secs(10);

/// The longest reason of a refusal, in characters.
const REASON_CHARS_MAX: usize = 300;

/// The names of all channels, as rules and the outbox write them.
pub const NAMES: [&str; 4] = [telegram::NAME, webhook::NAME, mail::NAME, ntfy::NAME];

/// The number of a notice in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub i64);

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A notice that was not told in its time, and is told within a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// What it said.
    pub notice: Notice,
    /// Whether it may have arrived already.
    pub may_be_repeat: bool,
}

/// What is sent in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// The number of the notice: the same at each try.
    pub id: NoticeId,
    /// The newest state.
    pub notice: Notice,
    /// What was to be told before it, the oldest first.
    pub earlier: Vec<Earlier>,
    /// How many more there were before those.
    pub left_out: usize,
    /// Whether an earlier try of this may have arrived.
    pub may_be_repeat: bool,
}

impl Telling {
    /// One notice alone, at its first try.
    pub const fn of(id: NoticeId, notice: Notice) -> Self {
        Self { id, notice, earlier: Vec::new(), left_out: 0, may_be_repeat: false }
    }

    /// What a channel can know a repetition by. With the time, since a new database counts from 1 again.
    pub fn key(&self) -> String {
        format!("{}-{}", self.id, self.notice.decided.unix_ms())
    }
}

/// The channel took the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What it said, in words.
    pub answer: String,
}

/// Whom a refusal is about, and so what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The channel takes nothing now: all wait.
    Channel,
    /// It may be this notice alone: others are tried meanwhile.
    Notice,
    /// The channel will never take this notice.
    NoticeForEver,
}

/// The channel did not take the message, or it isn't known whether it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why, in words.
    pub reason: String,
    /// How long the channel asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whom it is about.
    pub blame: Blame,
    /// Whether the message may have arrived all the same.
    pub may_have_arrived: bool,
}

impl Refused {
    /// A refusal that has nothing to do with the notice.
    pub fn by_channel(reason: &str) -> Self {
        Self {
            reason: one_line(reason, REASON_CHARS_MAX),
            retry_after: None,
            blame: Blame::Channel,
            may_have_arrived: false,
        }
    }

    /// Whether the channel will never take this notice.
    pub const fn is_final(&self) -> bool {
        matches!(self.blame, Blame::NoticeForEver)
    }
}

/// The most that a channel is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The least time between two messages.
    pub apart: Duration,
    /// The most messages in a minute.
    pub a_minute: usize,
}

/// How to reach each channel that is set.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// A Telegram chat.
    pub telegram: Option<telegram::Config>,
    /// A receiver of Alertmanager's webhooks.
    pub webhook: Option<webhook::Config>,
    /// A mail server.
    pub mail: Option<mail::Config>,
    /// A topic of ntfy.
    pub ntfy: Option<ntfy::Config>,
}

/// A way to tell people.
#[derive(Debug, Clone)]
pub enum Channel {
    /// A Telegram chat.
    Telegram(Telegram),
    /// A receiver of Alertmanager's webhooks.
    Webhook(Webhook),
    /// A mail server.
    Mail(Mail),
    /// A topic of ntfy.
    Ntfy(Ntfy),
}

impl Channel {
    /// Asks each channel whether it takes what the owner set, and says so in the log. One service.
    pub async fn check_all(channels: Vec<Self>) -> Result<(), Failure> {
        if channels.is_empty() {
            tracing::info!(
                "no TELEGRAM_BOT_TOKEN, ALERT_WEBHOOK_URL, SMTP_URL or NTFY_URL: nobody is told of trouble"
            );
        }
        for channel in channels {
            let name = channel.name();
            match channel.check().await {
                Ok(answer) => tracing::info!(channel = name, "{name}: {answer}"),
                Err(refused) => tracing::warn!(channel = name, "{name}: {}", refused.reason),
            }
        }
        Ok(())
    }

    /// The channels that are set. Nothing is called.
    pub fn all(config: &Config) -> Result<Vec<Self>, BoxError> {
        let mut all = Vec::with_capacity(NAMES.len());
        if let Some(config) = &config.telegram {
            all.push(Self::Telegram(Telegram::new(config)?));
        }
        if let Some(config) = &config.webhook {
            all.push(Self::Webhook(Webhook::new(config)?));
        }
        if let Some(config) = &config.mail {
            all.push(Self::Mail(Mail::new(config)?));
        }
        if let Some(config) = &config.ntfy {
            all.push(Self::Ntfy(Ntfy::new(config)?));
        }
        Ok(all)
    }

    /// The channel's name, as rules and the outbox write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Telegram(_) => telegram::NAME,
            Self::Webhook(_) => webhook::NAME,
            Self::Mail(_) => mail::NAME,
            Self::Ntfy(_) => ntfy::NAME,
        }
    }

    /// The most that it is sent.
    pub const fn pace(&self) -> Pace {
        match self {
            Self::Telegram(_) => telegram::PACE,
            Self::Webhook(_) => webhook::PACE,
            Self::Mail(_) => mail::PACE,
            Self::Ntfy(_) => ntfy::PACE,
        }
    }

    /// Sends a message. Repeatable: a channel that can tell repetitions apart gets the same key each time.
    pub async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let send = async {
            match self {
                Self::Telegram(channel) => channel.send(telling).await,
                Self::Webhook(channel) => channel.send(telling).await,
                Self::Mail(channel) => Box::pin(channel.send(telling)).await,
                Self::Ntfy(channel) => channel.send(telling).await,
            }
        };
        tokio::time::timeout(SEND_MAX, send).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Asks the channel whether it is there and lets this hub in, without telling anybody anything. The answer is
    /// a clause for people.
    pub async fn check(&self) -> Result<String, Refused> {
        let check = async {
            match self {
                Self::Telegram(channel) => channel.check().await,
                Self::Webhook(_) => Ok("it is known to work once it took a notice".to_owned()),
                Self::Mail(channel) => Box::pin(channel.check()).await,
                Self::Ntfy(channel) => channel.check().await,
            }
        };
        tokio::time::timeout(SEND_MAX, check).await.unwrap_or_else(|_| Err(no_answer()))
    }
}

/// Nothing came in time.
fn no_answer() -> Refused {
    let reason = format!("no answer within {} s", SEND_MAX.as_secs());
    Refused { may_have_arrived: true, ..Refused::by_channel(&reason) }
}

/// `2026-11-27 03:12:45`, in UTC.
fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    let part = |from, to| text.get(from..to).unwrap_or_default();
    format!("{} {}", part(0, 10), part(11, 19))
}

#[cfg(test)]
mod tests;
