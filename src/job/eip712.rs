//! EIP-712 typed data, as far as this protocol signs it: flat structs in one domain.
//!
//! What must hold: any EIP-712 library computes the same digests (tests compare with one). See
//! <https://eips.ethereum.org/EIPS/eip-712>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use sha3::{Digest as _, Keccak256};

use crate::node::Address;

/// Thirty-two bytes of keccak-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// An ECDSA signature: r, s, v with v 27 or 28.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 65]);

/// keccak-256 of these bytes.
pub fn keccak256(bytes: &[u8]) -> Hash {
    Hash(Keccak256::digest(bytes).into())
}

/// A text that is not `0x` and the right number of hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 0x and {digits} hex digits")]
pub struct InvalidHex {
    digits: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidHex> {
    let invalid = InvalidHex { digits: 2 * N };
    let digits = text.strip_prefix("0x").ok_or(invalid)?;
    if digits.len() != 2 * N || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid);
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| invalid)?;
    }
    Ok(bytes)
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
hex_text!(Hash);
hex_text!(Signature);

/// The domain that everything in this protocol is signed in: `LamdaNode`, version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    /// EIP-155 id of the chain that holds the contract.
    pub chain_id: u64,
    /// The reputation contract.
    pub contract: Address,
}

impl Domain {
    /// For what is signed where no chain need be known: chain 0, no contract. It means nothing
    /// anywhere else.
    pub const OWN: Self = Self { chain_id: 0, contract: Address::new([0; 20]) };

    /// `hashStruct(eip712Domain)`.
    fn separator(&self) -> Hash {
        let kind =
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        hash_struct(
            kind,
            &[
                Word::text("LamdaNode"),
                Word::text("1"),
                Word::number(self.chain_id),
                Word::address(self.contract),
            ],
        )
    }

    /// The digest that is signed for a struct.
    fn digest(&self, struct_hash: Hash) -> Hash {
        let mut bytes = [0_u8; 66];
        bytes[..2].copy_from_slice(&[0x19, 0x01]);
        bytes[2..34].copy_from_slice(&self.separator().0);
        bytes[34..].copy_from_slice(&struct_hash.0);
        keccak256(&bytes)
    }

    /// The digest of `Job(string target,bytes32 specHash)`.
    pub fn job_digest(&self, target: &str, spec_hash: Hash) -> Hash {
        let kind = "Job(string target,bytes32 specHash)";
        self.digest(hash_struct(kind, &[Word::text(target), Word(spec_hash.0)]))
    }

    /// The digest of `Control(string action,string jobId,address agent,uint64 issuedAtMs)`.
    pub fn control_digest(&self, action: &str, job_id: &str, agent: Address, at_ms: u64) -> Hash {
        let kind = "Control(string action,string jobId,address agent,uint64 issuedAtMs)";
        self.digest(hash_struct(
            kind,
            &[Word::text(action), Word::text(job_id), Word::address(agent), Word::number(at_ms)],
        ))
    }

    /// The digest of a struct of this kind with these words.
    pub(super) fn digest_of(&self, kind: &str, words: &[Word]) -> Hash {
        self.digest(hash_struct(kind, words))
    }

    /// The domain as it stands in a typed-data document.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": "LamdaNode", "version": "1",
            "chainId": self.chain_id, "verifyingContract": self.contract,
        })
    }

    /// The domain's type as it stands in a typed-data document.
    pub(super) fn json_type() -> Value {
        json!([
            {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"},
        ])
    }
}

/// One member of a struct, encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word([u8; 32]);

impl Word {
    pub(super) fn text(text: &str) -> Self {
        Self(keccak256(text.as_bytes()).0)
    }

    pub(super) fn bytes32(hash: Hash) -> Self {
        Self(hash.0)
    }

    pub(super) fn number(number: u64) -> Self {
        let mut word = [0; 32];
        word[24..].copy_from_slice(&number.to_be_bytes());
        Self(word)
    }

    /// Two's complement, sign-extended.
    pub(super) fn signed(number: i32) -> Self {
        let mut word = if number < 0 { [0xff; 32] } else { [0; 32] };
        word[28..].copy_from_slice(&number.to_be_bytes());
        Self(word)
    }

    pub(super) fn address(address: Address) -> Self {
        let mut word = [0; 32];
        word[12..].copy_from_slice(address.as_bytes());
        Self(word)
    }
}

fn hash_struct(kind: &str, words: &[Word]) -> Hash {
    let mut bytes = keccak256(kind.as_bytes()).0.to_vec();
    for word in words {
        bytes.extend_from_slice(&word.0);
    }
    keccak256(&bytes)
}
