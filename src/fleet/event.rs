//! One event: something that a node decided or noticed, told when it happened.
//!
//! Must hold: a message has at most [`MESSAGE_BYTES_MAX`], the details together at most [`DETAILS_BYTES_MAX`];
//! what does not fit is cut off or counted, never an error for who tells it. What is read from others is held
//! to the same limits.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::ids::{Address, JobId};
use crate::report;

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 500;

/// The most that all details take as JSON, in bytes.
pub const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// The largest event that is read, in bytes: one with all its parts at their limits, however they are escaped.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;

/// The longest [`Token`], in bytes.
pub const TOKEN_BYTES_MAX: usize = 32;

/// The key that counts the details that did not fit.
const LEFT_OUT: &str = "left_out";

/// Room for [`LEFT_OUT`] and its number.
const LEFT_OUT_BYTES: usize = 32;

/// One token of a NATS subject: 1 to 32 of `a-z0-9_-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Cow<'static, str>);

/// The text is not one token of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a component or type of an event is 1 to {TOKEN_BYTES_MAX} of a-z0-9_-")]
pub struct InvalidToken;

impl Token {
    /// The token that this is.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token of a [`Kind`], which is checked where kinds are made.
    const fn of_kind(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// Whether this is one token, as in [`Token`].
const fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && bytes.len() <= TOKEN_BYTES_MAX
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if is_token(text) { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(InvalidToken) }
    }
}

crate::text::serde_as_text!(Token);

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Only of use to who looks for a fault.
    Debug,
    /// Goes as it should.
    Info,
    /// Somebody may have to look.
    Warning,
    /// Something failed.
    Error,
    /// The node can't go on.
    Critical,
}

impl Level {
    /// All levels, the least first.
    pub const ALL: [Self; 5] =
        [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The level as it stands in an event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// The key `severity`: the level for readers that know no `debug`.
    pub const fn severity(self) -> &'static str {
        match self {
            Self::Debug => "info",
            other => other.as_str(),
        }
    }
}

/// The text names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the levels are debug, info, warning, error and critical")]
pub struct InvalidLevel;

impl FromStr for Level {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(InvalidLevel)
    }
}

/// What an event says, apart from its facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The part of the node that tells it.
    pub component: &'static str,
    /// What happened.
    pub event_type: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What it means, as one sentence.
    pub says: &'static str,
}

impl Kind {
    pub(super) const fn new(
        component: &'static str,
        event_type: &'static str,
        level: Level,
        says: &'static str,
    ) -> Self {
        assert!(is_token(component) && is_token(event_type), "each is one token of a subject");
        Self { component, event_type, level, says }
    }
}

/// Ties the events of one job together, whichever nodes tell them: 16 bytes, as W3C Trace Context has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl TraceId {
    /// The id of a job that brings none of its own: the first half of the SHA-256 of its id.
    pub fn of_job(job: &JobId) -> Self {
        let hash = Sha256::digest(job.as_str().as_bytes());
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The text is no trace id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is 32 digits of hex")]
pub struct InvalidTraceId;

impl FromStr for TraceId {
    type Err = InvalidTraceId;

    fn from_str(text: &str) -> Result<Self, InvalidTraceId> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidTraceId)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidTraceId)?))
    }
}

crate::text::serde_as_text!(TraceId);

/// An event. See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened.
    pub timestamp: Timestamp,
    /// The part of the node that tells it.
    pub component: Token,
    /// What happened, as a program reads it.
    pub event_type: Token,
    /// How much it matters.
    pub level: Level,
    /// The node that tells it.
    pub node: Address,
    /// The job that it is about, if any.
    pub job_id: Option<JobId>,
    /// Ties it to the other events of its job.
    pub trace_id: Option<TraceId>,
    message: String,
    details: Map<String, Value>,
    details_bytes: usize,
}

/// The form on the wire.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    timestamp: Timestamp,
    component: Cow<'a, Token>,
    event_type: Cow<'a, Token>,
    level: Level,
    #[serde(default)]
    severity: Cow<'a, str>,
    message: Cow<'a, str>,
    #[serde(default)]
    details: Cow<'a, Map<String, Value>>,
    node: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_id: Option<Cow<'a, JobId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<TraceId>,
}

/// Why what came from outside is no event.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It has more bytes than any event.
    #[error("it has more than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not the JSON of an event.
    #[error("it is not the JSON of an event: {0}")]
    Form(#[from] serde_json::Error),
    /// A part of it is above its limit.
    #[error("its {0} is above the limit")]
    Part(&'static str),
}

impl Event {
    /// An event of this kind, about no job. A message is cut to its limit, and becomes one line.
    pub fn new(kind: Kind, node: Address, at: Timestamp, message: &str) -> Self {
        Self {
            timestamp: at,
            component: Token::of_kind(kind.component),
            event_type: Token::of_kind(kind.event_type),
            level: kind.level,
            node,
            job_id: None,
            trace_id: None,
            message: cut(report::one_line(message, MESSAGE_BYTES_MAX)),
            details: Map::new(),
            details_bytes: 0,
        }
    }

    /// The same event, about this job.
    #[must_use]
    pub fn about(mut self, job: &JobId) -> Self {
        self.trace_id = Some(TraceId::of_job(job));
        self.job_id = Some(job.clone());
        self
    }

    /// The same event with one more detail. One that does not fit any more is left out, and counted under
    /// `left_out`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let bytes = key.len() + value.to_string().len() + "\"\":,".len();
        if self.details_bytes + bytes + LEFT_OUT_BYTES > DETAILS_BYTES_MAX {
            let before = self.details.get(LEFT_OUT).and_then(Value::as_u64).unwrap_or_default();
            self.details.insert(LEFT_OUT.to_owned(), (before + 1).into());
        } else {
            self.details_bytes += bytes;
            self.details.insert(key.to_owned(), value);
        }
        self
    }

    /// One line for a person, at most [`MESSAGE_BYTES_MAX`].
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whatever else a program may want to know, at most [`DETAILS_BYTES_MAX`] as JSON.
    pub fn details(&self) -> &Map<String, Value> {
        &self.details
    }

    /// The event as it is sent.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            timestamp: self.timestamp,
            component: Cow::Borrowed(&self.component),
            event_type: Cow::Borrowed(&self.event_type),
            level: self.level,
            severity: self.level.severity().into(),
            message: self.message.as_str().into(),
            details: Cow::Borrowed(&self.details),
            node: self.node,
            job_id: self.job_id.as_ref().map(Cow::Borrowed),
            trace_id: self.trace_id,
        };
        // Texts and numbers always have a form in JSON.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads what anybody may have sent. Unknown keys are ignored.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        if body.len() > EVENT_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        let wire: Wire<'_> = serde_json::from_slice(body)?;
        if wire.message.len() > MESSAGE_BYTES_MAX {
            return Err(Invalid::Part("message"));
        }
        let details_bytes = serde_json::to_string(&wire.details)?.len();
        if details_bytes > DETAILS_BYTES_MAX {
            return Err(Invalid::Part("details"));
        }
        Ok(Self {
            timestamp: wire.timestamp,
            component: wire.component.into_owned(),
            event_type: wire.event_type.into_owned(),
            level: wire.level,
            node: wire.node,
            job_id: wire.job_id.map(Cow::into_owned),
            trace_id: wire.trace_id,
            message: wire.message.into_owned(),
            details: wire.details.into_owned(),
            details_bytes,
        })
    }
}

/// Cuts a text to the limit of a message, between two characters.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::kinds;

    fn event(message: &str) -> Event {
        let at = Timestamp::from_unix_ms(1_704_067_200_123);
        Event::new(kinds::JOB_FAILED, Address::new([7; 20]), at, message)
    }

    #[test]
    fn an_event_has_its_keys_and_is_read_back() {
        let told = event("it failed").about(&"job-1".parse().unwrap()).with("exit_code", 3);
        let json: Value = serde_json::from_str(&told.to_json()).unwrap();
        assert_eq!(json["timestamp"], "2024-01-01T00:00:00.123Z");
        assert_eq!((&json["component"], &json["event_type"]), (&"job".into(), &"failed".into()));
        assert_eq!((&json["level"], &json["severity"]), (&"error".into(), &"error".into()));
        assert_eq!((&json["job_id"], &json["details"]["exit_code"]), (&"job-1".into(), &3.into()));
        assert_eq!(json["trace_id"].as_str().unwrap().len(), 32);
        let read = Event::parse(told.to_json().as_bytes()).unwrap();
        assert_eq!(read.to_json(), told.to_json());
    }

    #[test]
    fn details_that_do_not_fit_are_counted() {
        let long = "x".repeat(3000);
        let told = event("m").with("a", long.clone()).with("b", long.clone()).with("c", long);
        assert!(told.details().contains_key("a") && !told.details().contains_key("b"));
        assert_eq!(told.details()["left_out"], 2);
    }

    #[test]
    fn what_is_above_a_limit_is_not_read() {
        let json = |key: &str, value: Value| {
            let mut json: Value = serde_json::from_str(&event("m").to_json()).unwrap();
            json[key] = value;
            json.to_string()
        };
        for (key, value) in [
            ("component", "a.b".into()),
            ("event_type", "".into()),
            ("event_type", "Ä".into()),
            ("component", "x".repeat(33).into()),
            ("level", "loud".into()),
            ("message", "x".repeat(501).into()),
            ("details", serde_json::json!({"x": "x".repeat(4096)})),
            ("job_id", "a b".into()),
            ("node", "x".into()),
            ("trace_id", "abc".into()),
            ("timestamp", 5.into()),
        ] {
            assert!(Event::parse(json(key, value).as_bytes()).is_err(), "{key}");
        }
        assert!(Event::parse(&vec![b' '; EVENT_BYTES_MAX + 1]).is_err());
        assert!(Event::parse(json("unknown", 1.into()).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_text_is_told_the_event_can_be_read_by_others(
            message in "\\PC{0,700}",
            details in proptest::collection::vec("\\PC{0,900}", 0..12),
        ) {
            let mut told = event(&message);
            for (at, text) in details.into_iter().enumerate() {
                let key = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"][at];
                told = told.with(key, text);
            }
            prop_assert!(told.message().len() <= MESSAGE_BYTES_MAX);
            prop_assert!(Event::parse(told.to_json().as_bytes()).is_ok());
        }
    }
}
