//! An account on the chain, written as EIP-55 says.
//!
//! Invariant: a node's name is printed only by [`Address`], in EIP-55. NATS subjects are case-sensitive,
//! so two spellings of one address would never meet.

use std::fmt;
use std::str::FromStr;

use sha3::{Digest as _, Keccak256};

/// The 20 bytes that identify an account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

impl Address {
    /// The account with these bytes.
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The account's 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// `0x` and forty lower-case hex digits.
    pub fn lower_hex(&self) -> String {
        let mut text = String::with_capacity(42);
        text.push_str("0x");
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text
    }
}

impl fmt::Display for Address {
    /// EIP-55: a letter is upper-case if the nibble at its place in the keccak-256 of the lower-case text
    /// is 8 or more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = self.lower_hex();
        let digits = &lower[2..];
        let hash = Keccak256::digest(digits.as_bytes());
        let mut text = [0; 42];
        text[..2].copy_from_slice(b"0x");
        for (i, digit) in digits.bytes().enumerate() {
            let nibble = if i % 2 == 0 { hash[i / 2] >> 4 } else { hash[i / 2] & 0xf };
            text[2 + i] = if nibble >= 8 { digit.to_ascii_uppercase() } else { digit };
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address: 0x and 40 hex digits (in EIP-55 where their case is mixed)")]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Accepts all-lower and all-upper case; mixed case must be the checksum of EIP-55.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").ok_or(InvalidAddress)?;
        if digits.len() != 40 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidAddress);
        }
        let mut bytes = [0; 20];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| InvalidAddress)?;
        }
        let address = Self(bytes);
        let mixed = digits.bytes().any(|b| b.is_ascii_lowercase())
            && digits.bytes().any(|b| b.is_ascii_uppercase());
        if mixed && address.to_string() != text {
            return Err(InvalidAddress);
        }
        Ok(address)
    }
}

crate::text::serde_as_text!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of EIP-55 itself.
    const EIP55: [&str; 4] = [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn the_eip55_examples_survive_a_round_trip_from_any_case() {
        for text in EIP55 {
            let lower: Address = text.to_lowercase().parse().unwrap();
            assert_eq!(lower.to_string(), text);
            assert_eq!(text.parse::<Address>(), Ok(lower));
        }
    }

    #[test]
    fn a_wrong_checksum_or_shape_is_refused() {
        for text in [
            "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
            "0x+aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        ] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
        }
    }
}
