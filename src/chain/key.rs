//! The node's secp256k1 key: signs digests, and recovers the signer of one.
//!
//! Must hold: the key never appears in output and is wiped from memory on drop. Every signature made
//! here has a low `s` (EIP-2), and a high `s` is refused, so that a signature can't be turned into a
//! second valid one.

use std::fmt;

use alloy::primitives::{B256, Signature};
use alloy::signers::SignerSync as _;
use alloy::signers::local::PrivateKeySigner;
use zeroize::Zeroizing;

use crate::ids::Address;
use crate::secret::Secret;

/// A private key; its [`Address`] identifies the node.
#[derive(Clone)]
pub struct Key(PrivateKeySigner);

impl Key {
    /// Reads 64 hex digits, with or without `0x`.
    pub fn from_hex(text: &Secret) -> Result<Self, InvalidKey> {
        let text = text.expose().trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new([0; 32]);
        alloy::hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| InvalidKey)?;
        Self::from_bytes(&bytes)
    }

    /// A new key from the system's random source.
    pub fn random() -> Self {
        Self(PrivateKeySigner::random())
    }

    /// The key of these bytes; an error for zero and for numbers not below the curve's order.
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        PrivateKeySigner::from_slice(bytes).map(Self).map_err(|_| InvalidKey)
    }

    /// The key's bytes, for the keystore.
    pub(super) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.credential().to_bytes().into())
    }

    /// The address of the account that this key controls.
    pub fn address(&self) -> Address {
        Address::new(self.0.address().into_array())
    }

    /// Signs a digest. Returns `r`, a low `s`, and `v` of 27 or 28, as contracts and wallets expect.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 65] {
        self.sign(&B256::from(*digest)).as_bytes()
    }

    /// [`Key::sign_digest`] in alloy's type, for the transactions of this folder.
    pub(super) fn sign(&self, digest: &B256) -> Signature {
        self.0.sign_hash_sync(digest).expect("a valid key signs any 32 bytes")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address())
    }
}

/// The text is not a private key. The error does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key: 64 hex digits, not zero and below the curve's order")]
pub struct InvalidKey;

/// The bytes are not a signature, or not in the one accepted form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signature: r, a low s, and v of 27 or 28")]
pub struct InvalidSignature;

/// The signer of `digest`. Accepts only the form of [`Key::sign_digest`]: `v` of 27 or 28, and `s`
/// in the lower half of the curve's order.
pub fn recover(digest: &[u8; 32], signature: &[u8; 65]) -> Result<Address, InvalidSignature> {
    if !matches!(signature[64], 27 | 28) {
        return Err(InvalidSignature);
    }
    let signature = Signature::from_raw_array(signature).map_err(|_| InvalidSignature)?;
    if signature.normalize_s().is_some() {
        return Err(InvalidSignature);
    }
    let signer = signature
        .recover_address_from_prehash(&B256::from(*digest))
        .map_err(|_| InvalidSignature)?;
    Ok(Address::new(signer.into_array()))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{U256, uint};

    use super::*;

    /// The curve's order.
    const ORDER: U256 =
        uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);

    fn key() -> Key {
        let hex = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        Key::from_hex(&Secret::new(hex)).unwrap()
    }

    #[test]
    fn a_key_has_the_address_that_wallets_give_it_and_never_prints() {
        assert_eq!(key().address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(format!("{:?}", key()), "Key(0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266)");
        assert_ne!(Key::random().address(), Key::random().address());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        for text in ["", "0x", "12", &"0".repeat(64), &"g".repeat(64), &"1".repeat(65), order] {
            assert!(Key::from_hex(&Secret::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_signer_of_a_digest_is_found_again() {
        let key = key();
        for digest in [[0; 32], [7; 32], [0xff; 32]] {
            let signature = key.sign_digest(&digest);
            assert!(matches!(signature[64], 27 | 28));
            assert_eq!(recover(&digest, &signature), Ok(key.address()));
            assert_ne!(recover(&[1; 32], &signature), Ok(key.address()));
        }
    }

    #[test]
    fn a_second_signature_made_out_of_the_first_is_refused() {
        let signature = key().sign_digest(&[7; 32]);
        let mut twin = signature;
        let s = U256::from_be_slice(&signature[32..64]);
        twin[32..64].copy_from_slice(&(ORDER - s).to_be_bytes::<32>());
        twin[64] = 55 - signature[64];
        assert_eq!(recover(&[7; 32], &twin), Err(InvalidSignature));
        for v in [0, 1, 26, 29, 35, 255] {
            let mut odd = signature;
            odd[64] = v;
            assert_eq!(recover(&[7; 32], &odd), Err(InvalidSignature), "{v}");
        }
        assert_eq!(recover(&[7; 32], &[0; 65]), Err(InvalidSignature));
    }
}
