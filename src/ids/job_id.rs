//! A job's id, checked before it can get into a path, a subject or a container's label.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Longest id, in bytes: a container's name and a subject's token stay well below their limits.
pub const ID_BYTES_MAX: usize = 128;

/// A job's id: 1 to 128 of `A-Za-z0-9_-`, beginning with a letter or a digit. It has no dot, since it is
/// one token of a NATS subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

impl JobId {
    /// The id under which a message without a usable one is answered: `invalid-` and the first 16 hex
    /// digits of the body's SHA-256, so that the same invalid message gets the same answer.
    pub fn of_invalid(body: &[u8]) -> Self {
        let digest = Sha256::digest(body);
        let head = u64::from_be_bytes(std::array::from_fn(|i| digest[i]));
        Self(format!("invalid-{head:016x}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a valid job id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id is 1 to {ID_BYTES_MAX} of A-Za-z0-9_- and begins with a letter or a digit")]
pub struct InvalidJobId;

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sized = (1..=ID_BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let led = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if sized && plain && led { Ok(Self(text.to_owned())) } else { Err(InvalidJobId) }
    }
}

crate::text::serde_as_text!(JobId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_live_dispatchers_are_taken() {
        let bytes32 = format!("0x{}", "a1".repeat(32));
        for id in ["unique-job-identifier", "7", "job_1", bytes32.as_str(), &"x".repeat(128)] {
            assert!(id.parse::<JobId>().is_ok(), "{id}");
        }
    }

    #[test]
    fn hostile_ids_are_refused() {
        let long = "x".repeat(129);
        for id in
            ["", "../../x", "a/b", "a.b", "a b", "a\n", "a\0", "-a", "_a", "ä", "*", ">", &long]
        {
            assert_eq!(id.parse::<JobId>(), Err(InvalidJobId), "{id:?}");
        }
    }

    #[test]
    fn rubbish_gets_a_stable_id_of_its_own() {
        let id = JobId::of_invalid(b"");
        assert_eq!(id.as_str(), "invalid-e3b0c44298fc1c14");
        assert!(id.as_str().parse::<JobId>().is_ok());
    }
}
