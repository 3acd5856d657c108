//! The id of one run of the program.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The id of one run of the program: a random UUID of version 4 (RFC 9562).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Instance(String);

impl Instance {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new random id.
    pub fn random() -> Self {
        let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Self(parts.join("-"))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if text.len() == 36 && plain {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(serde::de::Error::custom("not a UUID"))
    }
}
