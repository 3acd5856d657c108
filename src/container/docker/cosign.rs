//! Checks an image's signature against the owner's public key, in the form of cosign's "simple signing": the
//! tag `sha256-<hex>.sig` of the image's repository names payloads; each says the image's digest and carries
//! a signature (ECDSA on P-256 over the payload's SHA-256).
//!
//! Must hold: a payload is not parsed before its signature is verified; the digest in it is the image's own;
//! an image with many worthless signatures costs a bounded number of requests.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::registry::{RegistryError, Repository};

/// Most signatures of one image that are tried.
const SIGNATURES_MAX: usize = 16;
/// Most bytes of a payload; usual ones have some 250.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// The annotation that holds the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The type that a payload has to name.
const KIND: &str = "cosign container image signature";
/// The bytes before the point in the DER form of a public key on P-256 (RFC 5480).
const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;

/// A public key on P-256.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    point: Vec<u8>,
}

/// The text is not a public key on P-256 in PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no public key as `cosign generate-key-pair` writes it (PEM, ECDSA on P-256)")]
pub struct InvalidKey;

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

impl std::str::FromStr for SigningKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(InvalidKey)?;
        let body = body.strip_suffix("-----END PUBLIC KEY-----").ok_or(InvalidKey)?;
        let plain: String = body.split_whitespace().collect();
        let der = BASE64.decode(plain.as_bytes()).map_err(|_| InvalidKey)?;
        let prefix = HEXLOWER.decode(P256.as_bytes()).map_err(|_| InvalidKey)?;
        let point = der.strip_prefix(prefix.as_slice()).ok_or(InvalidKey)?;
        // An uncompressed point begins with 4.
        (point.len() == POINT_BYTES && point[0] == 4)
            .then(|| Self { point: point.to_vec() })
            .ok_or(InvalidKey)
    }
}

impl SigningKey {
    /// A short hash of the key, to tell whether an image was checked with this key.
    pub(super) fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.point)[..8])
    }

    fn signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(payload, signature)
            .is_ok()
    }
}

/// Why an image does not count as signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsigned {
    /// Nobody signed it.
    #[error("it has no signature")]
    None,
    /// Only other keys signed it.
    #[error("it has no signature by this node's key (JOB_COSIGN_KEY)")]
    OtherKey,
    /// The owner's key signed another image, whose signature was put here.
    #[error("its signature is for another image")]
    OtherImage,
    /// The registry did not give what was asked for.
    #[error(transparent)]
    Registry(RegistryError),
}

#[derive(Deserialize)]
struct Signatures {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Named,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Checks that this key signed the image with this digest in the repository.
pub(super) async fn check(
    repository: &mut Repository,
    digest: &str,
    key: &SigningKey,
) -> Result<(), Unsigned> {
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let manifest = match repository.manifest(&tag).await {
        Err(RegistryError::Refused(_)) => return Err(Unsigned::None),
        manifest => manifest.map_err(Unsigned::Registry)?,
    };
    let listed: Signatures = serde_json::from_slice(&manifest.bytes).map_err(|_| Unsigned::None)?;
    let mut why = Unsigned::None;
    for layer in listed.layers.into_iter().take(SIGNATURES_MAX) {
        let signature = layer.annotations.get(SIGNATURE);
        let signature = signature.and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let Some(signature) = signature else { continue };
        let payload = repository.blob(&layer.digest, PAYLOAD_BYTES_MAX).await;
        let payload = match payload {
            Err(RegistryError::Refused(_)) => continue,
            payload => payload.map_err(Unsigned::Registry)?,
        };
        match judge(&payload, &signature, digest, key) {
            Ok(()) => return Ok(()),
            // An earlier signature by the owner's key, for another image, says more.
            Err(Unsigned::OtherKey) if matches!(why, Unsigned::OtherImage) => {}
            Err(other) => why = other,
        }
    }
    Err(why)
}

/// Checks that the key signed this payload and that the payload names the image.
fn judge(payload: &[u8], signature: &[u8], digest: &str, key: &SigningKey) -> Result<(), Unsigned> {
    if !key.signed(payload, signature) {
        return Err(Unsigned::OtherKey);
    }
    let said: Payload = serde_json::from_slice(payload).map_err(|_| Unsigned::OtherImage)?;
    let Critical { image, kind } = said.critical;
    (kind == KIND && image.digest == digest).then_some(()).ok_or(Unsigned::OtherImage)
}
