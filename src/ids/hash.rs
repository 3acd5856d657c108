//! Hashes and signatures, written as `0x` and lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use sha3::{Digest as _, Keccak256};

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

        crate::text::serde_as_text!($name);
    };
}
hex_text!(Hash);
hex_text!(Signature);
