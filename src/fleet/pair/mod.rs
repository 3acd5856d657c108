//! Two hubs that share their alerts: who sends over a channel, what was told already, and the forms of both in the
//! bucket `HUB_OUTBOX` (docs/protocol.md).
//!
//! Each hub decides for itself, and each has its own numbers of incidents. What both can name is what a message says:
//! of this node, by this rule, that it is in trouble or well again. [`told`] holds a message against what was told so,
//! [`lease`] says whose turn it is, [`wire`] reads and writes the values.
//!
//! Must hold: nothing counts as told that was not; where that is in doubt, it is told again and marked.

pub mod lease;
pub mod told;
pub mod wire;

use std::fmt;

/// The name of one hub of a pair, which people read: 1 to 32 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName(String);

/// The text is no name of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no name of 1 to 32 letters, digits, - and _")]
pub struct InvalidName;

impl HubName {
    /// The name, if it is one.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=32).contains(&text.len()) && text.bytes().all(is_fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
