//! Keys of a Hivemind DHT, and the ids that they and the nodes have.
//!
//! Must hold: a key's id is the one under which Hivemind itself stores it.

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A key that the publisher gives as text, as a round: its id is the SHA-1 of its msgpack.
    Text(String),
    /// A key that the publisher gives as bytes, as `b"solver"`: its id is the SHA-1 of the bytes themselves.
    Bytes(Vec<u8>),
}

impl Key {
    pub(super) fn id(&self) -> Id {
        let digest = match self {
            Self::Bytes(bytes) => sha1(bytes),
            Self::Text(text) => {
                let mut packed = Vec::with_capacity(text.len() + 5);
                // Writing to memory can't fail.
                let _ = rmp::encode::write_str(&mut packed, text);
                sha1(&packed)
            }
        };
        Id::of(digest.as_ref()).unwrap_or_default()
    }
}

/// SHA-1 is what the network uses; nothing here relies on its strength.
fn sha1(bytes: &[u8]) -> ring::digest::Digest {
    ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes)
}

/// The id of a key or of a node. Nodes choose their own, so it proves nothing about who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Id([u8; 20]);

impl Id {
    /// `None` if these aren't 20 bytes.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How far two ids are from each other: nearer is less.
    pub(super) fn distance(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `DHTID.generate(key).to_bytes().hex()` of Hivemind 1.1.12 says.
    #[test]
    fn a_key_has_the_id_that_hivemind_gives_it() {
        let long = "x".repeat(300);
        for (key, id) in [
            (Key::Bytes(b"solver".to_vec()), "e43e60346e68ccb1b5afed011bbf2d7f2f8406c5"),
            (Key::Bytes(b"proposer".to_vec()), "7887a0a371b35e0220299d5395b69af0e20a0d5c"),
            (Key::Text("7".into()), "170f02cdf22aa2c823666606b0ba9d1cdaf3b475"),
            (Key::Text("118931".into()), "125ed827a43de9bfd4ab3fa09d9f1886b5450e88"),
            (Key::Text("solver".into()), "9cf22af9c9e21bdf0122736c1893097070dfee51"),
            (Key::Text(String::new()), "c7da1ff95a25c353f1319604703e8bfd287ee1a1"),
            (Key::Text(long), "8f4138c7801656a5854a4f196902391359605d3f"),
        ] {
            assert_eq!(data_encoding::HEXLOWER.encode(key.id().bytes()), id, "{key:?}");
        }
    }

    #[test]
    fn an_id_of_another_length_is_none() {
        assert_eq!(Id::of(&[0; 19]), None);
        assert_eq!(Id::of(&[0; 21]), None);
        assert!(Id::of(&[7; 20]).is_some());
    }
}
