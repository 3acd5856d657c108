//! What may come back from a JSON-RPC call: a result, a refusal, or a failure.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Error;

/// What a text of the endpoint's may take of an error message.
const WORDS_MAX: usize = 300;

/// The endpoint understood the call and said no: JSON-RPC's error object.
#[derive(Debug, Deserialize)]
pub(in crate::chain) struct Refusal {
    pub(in crate::chain) code: i64,
    #[serde(default)]
    pub(in crate::chain) message: String,
    #[serde(default)]
    pub(in crate::chain) data: Value,
}

/// Why a call gave no result.
#[derive(Debug)]
pub(in crate::chain) enum Failure {
    Refused(Refusal),
    Other(Error),
}

/// The body of every answer.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// `null` is a result: of a receipt that is not there yet.
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
}

impl Refusal {
    /// Whether the message has one of these words, in any case.
    pub(in crate::chain) fn says(&self, any_of: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        any_of.iter().any(|phrase| message.contains(phrase))
    }

    /// Public endpoints say "slow down" by these codes: it is no answer to the call.
    pub(super) fn is_throttling(&self) -> bool {
        matches!(self.code, -32005 | 429)
    }
}

impl Failure {
    /// The error of a call that should not have been refused.
    pub(in crate::chain) fn unexpected(self, method: &str) -> Error {
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
pub(in crate::chain) fn words(text: &str) -> String {
    let text = text.trim();
    let mut shown: String =
        text.chars().take(WORDS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(WORDS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_words_are_bounded_and_harmless() {
        assert_eq!(words(" two\nlines\u{1b}[2J "), "two lines [2J");
        assert_eq!(words(&"ä".repeat(1000)).chars().count(), WORDS_MAX + 1);
    }
}
