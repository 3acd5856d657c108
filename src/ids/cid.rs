//! A content identifier against which this node can check content.
//!
//! Invariant: a [`Cid`] names a UnixFS object by SHA-256; anything else is refused when it is parsed,
//! before a byte is fetched. See <https://github.com/multiformats/cid>.

use std::fmt;
use std::str::FromStr;

/// Multicodec of a UnixFS node in protobuf.
pub const DAG_PB: u64 = 0x70;
/// Multicodec of raw bytes.
pub const RAW: u64 = 0x55;
/// Multihash code of SHA-256.
pub const SHA2_256: u64 = 0x12;

/// Longest text that is parsed, in bytes. Even in base2, a CIDv1 with SHA-256 is shorter.
const TEXT_BYTES_MAX: usize = 512;

/// A CIDv0 or CIDv1 of a UnixFS file or directory (codec dag-pb or raw, hash SHA-256).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid(cid::Cid);

/// Why a text is not a CID that this node can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCid {
    /// The text does not parse.
    #[error("not a CID")]
    Malformed,
    /// It parses, but content can't be checked against it here.
    #[error(
        "a CID of codec 0x{codec:x} and hash 0x{hash:x} can't be checked here (dag-pb or raw, SHA-256)"
    )]
    Unsupported {
        /// The multicodec of the CID.
        codec: u64,
        /// The multihash code of the CID.
        hash: u64,
    },
}

impl Cid {
    /// Accepts a parsed CID if its codec and hash are supported.
    pub fn new(inner: cid::Cid) -> Result<Self, InvalidCid> {
        let (codec, hash) = (inner.codec(), inner.hash().code());
        let sized = inner.hash().size() == 32;
        if matches!(codec, DAG_PB | RAW) && hash == SHA2_256 && sized {
            Ok(Self(inner))
        } else {
            Err(InvalidCid::Unsupported { codec, hash })
        }
    }

    /// The CID as the library parsed it.
    pub const fn inner(&self) -> &cid::Cid {
        &self.0
    }

    /// Whether both name the same content: version and text may differ.
    pub fn same_content(&self, other: &Self) -> bool {
        self.0.codec() == other.0.codec() && self.0.hash() == other.0.hash()
    }
}

impl fmt::Display for Cid {
    /// Base58 for v0, base32 for v1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Cid {
    type Err = InvalidCid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The library would accept a path or a URL around a CID; a job must name the CID itself.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
        if text.len() > TEXT_BYTES_MAX || !plain {
            return Err(InvalidCid::Malformed);
        }
        cid::Cid::try_from(text).map_err(|_| InvalidCid::Malformed).and_then(Self::new)
    }
}

crate::text::serde_as_text!(Cid);

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    const V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

    #[test]
    fn both_versions_survive_a_round_trip() {
        for text in [V0, V1] {
            assert_eq!(text.parse::<Cid>().unwrap().to_string(), text);
        }
        assert!(V0.parse::<Cid>().unwrap().same_content(&V1.parse().unwrap()));
    }

    #[test]
    fn paths_rubbish_and_other_hashes_are_refused() {
        let long = "b".repeat(100_000);
        for text in
            ["", "Qm", "/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "../x", &long]
        {
            assert_eq!(text.parse::<Cid>(), Err(InvalidCid::Malformed), "{text:.20}");
        }
        // An identity hash: the content is in the CID itself, so nothing could be "checked".
        let identity = "bafkqaaa".parse::<Cid>();
        assert!(matches!(identity, Err(InvalidCid::Unsupported { hash: 0, .. })), "{identity:?}");
    }
}
