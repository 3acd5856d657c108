//! Message ids (the header `Nats-Msg-Id`), by which a stream stores a message only once.
//!
//! A stream drops a message whose id it saw within two minutes, on any subject and from any sender. Whoever
//! could predict an id could use it first, and the message would vanish. Must hold: without the key
//! nobody can predict the id of a future message; the same message has the same id, also after a restart.

use std::fmt::Write as _;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::secret::Secret;

/// Derives ids from a key that only this node has.
#[derive(Debug, Clone)]
pub struct MessageIds(Secret);

impl MessageIds {
    /// Ids that are derived from `key` by HMAC-SHA256.
    pub fn new(key: Secret) -> Self {
        Self(key)
    }

    /// The id of the message with this name. `round` counts from 0; the next round gives another id if
    /// someone else has used this one.
    pub(super) fn of(&self, name: &str, round: u32) -> String {
        let mut id = String::with_capacity(64);
        // Never fails: HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes()) else {
            return id;
        };
        mac.update(&round.to_be_bytes());
        mac.update(name.as_bytes());
        for byte in mac.finalize().into_bytes() {
            _ = write!(id, "{byte:02x}");
        }
        id
    }
}

/// A fresh id that nobody can guess, for a program without a key.
pub(super) fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut id, byte| {
        _ = write!(id, "{byte:02x}");
        id
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_messages_alone_and_the_keys() {
        let ids = |key: &str| MessageIds::new(Secret::new(key));
        let id = ids("k").of("a:j:1", 0);
        assert_eq!((id.len(), &id), (64, &ids("k").of("a:j:1", 0)));
        for other in [ids("k").of("a:j:2", 0), ids("k").of("a:j:1", 1), ids("l").of("a:j:1", 0)] {
            assert_ne!(id, other);
        }
        assert!(!format!("{:?}", ids("hunter2")).contains("hunter2"));
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
