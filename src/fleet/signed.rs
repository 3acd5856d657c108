//! A beat that its node has signed with its key, so that no other node can speak for it. Pure.
//!
//! The signature is in a head of the request, `Lamda-Signature: v1 ADDRESS INSTANCE AT_MS SIGNATURE`, and covers the
//! exact bytes of the body: EIP-712, `Beat(address node,bytes32 instance,uint64 at,bytes32 bodyHash)`, in the domain of
//! messages for which no chain needs to be known ([`Domain::OWN`]). `instance` is one run of the program.
//!
//! Must hold: what is read is bounded before it is looked at; two spellings of one seal are never two seals.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::ids::eip712::Word;
use crate::ids::hash::keccak256;
use crate::ids::{Address, Domain, Hash, Signature};

/// The name of the head.
pub const HEADER: &str = "lamda-signature";

/// How far a beat's time may be from the hub's.
pub const SKEW_MAX: Duration = Duration::from_mins(5);

/// The version of the form.
const VERSION: &str = "v1";

/// The longest seal, in bytes; the longest valid one has 266.
const SEAL_BYTES_MAX: usize = 300;

/// What was signed, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Whose key is said to have signed.
    pub node: Address,
    /// The run of the program, see [`instance`].
    pub instance: Hash,
    /// When it was signed, by the node's clock, in ms since 1970.
    pub at_ms: u64,
    /// The signature.
    pub signature: Signature,
}

/// Why a signed beat is refused, apart from whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The head has another form.
    #[error("Lamda-Signature is: v1 ADDRESS INSTANCE AT_MS SIGNATURE")]
    Form,
    /// The clocks of node and hub differ too much, or the beat was held back.
    #[error(
        "the beat was signed {minutes} min from the hub's time, at most {max} are taken: set the clock of the node",
        max = SKEW_MAX.as_secs() / 60
    )]
    Stale {
        /// How far it is, in minutes, rounded up.
        minutes: u64,
    },
    /// This beat, or a later one of the same run, was taken before.
    #[error("a beat signed at this time or later was taken before: this one is a repetition")]
    Replayed,
    /// More programs use the key than the hub keeps apart.
    #[error("too many programs use this key at once")]
    Crowd,
}

/// The id of a run of the program as it is signed: keccak-256 of its UUID's text, in lower case.
pub fn instance(uuid: &str) -> Hash {
    keccak256(uuid.as_bytes())
}

/// The digest that a node signs for a beat with this body.
pub fn digest(node: Address, instance: Hash, at_ms: u64, body: &[u8]) -> Hash {
    let kind = "Beat(address node,bytes32 instance,uint64 at,bytes32 bodyHash)";
    let words = [
        Word::address(node),
        Word::bytes32(instance),
        Word::number(at_ms),
        Word::bytes32(keccak256(body)),
    ];
    Domain::OWN.digest_of(kind, &words)
}

impl Seal {
    /// Reads the head's value.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.len() > SEAL_BYTES_MAX {
            return Err(Refused::Form);
        }
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(Refused::Form);
        if word()? != VERSION {
            return Err(Refused::Form);
        }
        let node = word()?.parse().map_err(|_| Refused::Form)?;
        let instance = word()?.parse().map_err(|_| Refused::Form)?;
        let at = word()?;
        let signature = word()?.parse().map_err(|_| Refused::Form)?;
        let at_ms = at.parse().map_err(|_| Refused::Form)?;
        let is_plain = at.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain || words.next().is_some() {
            return Err(Refused::Form);
        }
        Ok(Self { node, instance, at_ms, signature })
    }

    /// The digest that must have been signed for this body.
    pub fn digest(&self, body: &[u8]) -> Hash {
        digest(self.node, self.instance, self.at_ms, body)
    }

    /// `Err` if the beat was signed too long before or after `now`.
    pub fn is_fresh(&self, now: Timestamp) -> Result<(), Refused> {
        let ms = now.unix_ms().abs_diff(self.at_ms);
        if u128::from(ms) <= SKEW_MAX.as_millis() {
            return Ok(());
        }
        Err(Refused::Stale { minutes: ms.div_ceil(60_000) })
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, instance, at_ms, signature } = self;
        write!(f, "{VERSION} {node} {instance} {at_ms} {signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal {
            node: Address::new([0x11; 20]),
            instance: instance("00000000-0000-4000-8000-000000000001"),
            at_ms: 1_800_000_000_000,
            signature: Signature([7; 65]),
        }
    }

    #[test]
    fn a_seal_reads_as_it_is_written_and_nothing_else_does() {
        let text = seal().to_string();
        assert_eq!(Seal::parse(&text), Ok(seal()));
        for wrong in [
            String::new(),
            text.replace("v1 ", "v2 "),
            text.replace(" 18", "  18"),
            text.replace(" 18", " +18"),
            format!("{text} "),
            format!("{text} x"),
            text.replace("0x1111", "0x111"),
            text.rsplit_once(' ').unwrap().0.to_owned(),
            text.replace("1800000000000", "99999999999999999999999"),
            "x".repeat(400),
        ] {
            assert_eq!(Seal::parse(&wrong), Err(Refused::Form), "{wrong}");
        }
    }

    #[test]
    fn whatever_is_signed_is_in_the_digest() {
        let body = br#"{"node_id":"a"}"#;
        let seal = seal();
        let others = [
            Seal { node: Address::new([0x12; 20]), ..seal.clone() }.digest(body),
            Seal { instance: instance("x"), ..seal.clone() }.digest(body),
            Seal { at_ms: seal.at_ms + 1, ..seal.clone() }.digest(body),
            seal.digest(br#"{"node_id":"b"}"#),
        ];
        assert!(others.iter().all(|other| *other != seal.digest(body)));
    }

    #[test]
    fn a_beat_is_fresh_for_five_minutes_on_either_side() {
        let seal = seal();
        let at = |ms| Timestamp::from_unix_ms(ms);
        for now in [seal.at_ms - 300_000, seal.at_ms, seal.at_ms + 300_000] {
            assert_eq!(seal.is_fresh(at(now)), Ok(()));
        }
        for now in [seal.at_ms - 300_001, seal.at_ms + 300_001] {
            assert_eq!(seal.is_fresh(at(now)), Err(Refused::Stale { minutes: 6 }));
        }
        let last = Seal { at_ms: u64::MAX, ..seal };
        assert!(matches!(last.is_fresh(at(0)), Err(Refused::Stale { .. })));
    }
}
