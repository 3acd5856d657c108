//! The blocks that UnixFS objects are made of: their IDs, dag-pb, and the UnixFS message in it.
//!
//! Invariants: [`decode`] reads untrusted bytes. It never panics, borrows instead of copying, and
//! refuses what it doesn't understand instead of guessing. What [`encode`] and the functions like
//! it write is canonical, byte for byte what Kubo writes. See
//! <https://ipld.io/specs/codecs/dag-pb/spec/> and <https://specs.ipfs.tech/unixfs/>.

use sha2::{Digest as _, Sha256};

use crate::ids::Cid;
use crate::ids::cid::{DAG_PB, RAW, SHA2_256};

/// Maximum bytes of a block: the limit of the network itself.
pub(super) const BLOCK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The format of a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Codec {
    /// A protobuf node with links.
    DagPb,
    /// Bytes of a file and nothing else.
    Raw,
}

/// The version of a CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Written as `Qm…`; for dag-pb only.
    V0,
    /// Written as `bafy…` for dag-pb and `bafk…` for raw blocks.
    V1,
}

/// Identifies a block, whatever the version of the CID that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BlockId {
    pub(super) codec: Codec,
    pub(super) digest: [u8; 32],
}

impl BlockId {
    /// The ID of a block with these bytes.
    pub(super) fn of(codec: Codec, block: &[u8]) -> Self {
        Self { codec, digest: Sha256::digest(block).into() }
    }

    /// Whether these bytes have this digest.
    pub(super) fn names(&self, block: &[u8]) -> bool {
        self.digest == <[u8; 32]>::from(Sha256::digest(block))
    }

    /// The block that a CID names.
    pub(super) fn from_cid(cid: &Cid) -> Self {
        let inner = cid.inner();
        let codec = if inner.codec() == RAW { Codec::Raw } else { Codec::DagPb };
        let mut digest = [0; 32];
        // `Cid` holds only SHA-256 digests, so the lengths agree.
        digest.copy_from_slice(&inner.hash().digest()[..32]);
        Self { codec, digest }
    }

    /// Reads a binary CID from the front of `bytes`; also returns the bytes after it.
    pub(super) fn split_from(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (codec, rest) = match bytes {
            [0x12, 0x20, rest @ ..] | [0x01, 0x70, 0x12, 0x20, rest @ ..] => (Codec::DagPb, rest),
            [0x01, 0x55, 0x12, 0x20, rest @ ..] => (Codec::Raw, rest),
            [0x01, _, 0x00, ..] => {
                return Err(Malformed(
                    "an inlined block (an identity CID), which is not supported",
                ));
            }
            _ => {
                return Err(Malformed(
                    "a codec or hash that is not supported (dag-pb or raw, SHA-256)",
                ));
            }
        };
        let (digest, rest) =
            rest.split_first_chunk::<32>().ok_or(Malformed("a CID that is cut short"))?;
        Ok((Self { codec, digest: *digest }, rest))
    }

    /// The binary CID; version 1 for raw blocks whatever `version` says.
    pub(super) fn to_bytes(self, version: Version) -> Vec<u8> {
        let prefix: &[u8] = match (self.codec, version) {
            (Codec::DagPb, Version::V0) => &[0x12, 0x20],
            (Codec::DagPb, Version::V1) => &[0x01, 0x70, 0x12, 0x20],
            (Codec::Raw, _) => &[0x01, 0x55, 0x12, 0x20],
        };
        [prefix, &self.digest].concat()
    }

    /// The CID; version 1 for raw blocks whatever `version` says.
    pub(super) fn cid(self, version: Version) -> Result<Cid, Malformed> {
        let odd = Malformed("a digest that makes no CID");
        let hash = multihash::Multihash::wrap(SHA2_256, &self.digest).map_err(|_| odd)?;
        let inner = match (self.codec, version) {
            (Codec::DagPb, Version::V0) => cid::Cid::new_v0(hash).map_err(|_| odd)?,
            (Codec::DagPb, Version::V1) => cid::Cid::new_v1(DAG_PB, hash),
            (Codec::Raw, _) => cid::Cid::new_v1(RAW, hash),
        };
        Cid::new(inner).map_err(|_| odd)
    }
}

/// Why a block is not a UnixFS node that this program can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// A link of a dag-pb node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link<'a> {
    pub(super) id: BlockId,
    /// UTF-8 by the specification; checked where it is used.
    pub(super) name: &'a [u8],
    /// Size of all blocks below, as the writer claims.
    pub(super) dag_bytes: u64,
}

/// A decoded node with its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) links: Vec<Link<'a>>,
    pub(super) content: Content<'a>,
}

/// The UnixFS message of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// A file or a part of one: its own bytes, then one part per link with these lengths.
    File { inline: &'a [u8], bytes: u64, parts: Vec<u64> },
    /// A directory: one entry per link.
    Directory,
    /// A shard of a large directory: the first `prefix` characters of a link's name are its slot.
    Shard { prefix: usize },
    /// A symbolic link to `target`.
    Symlink { target: &'a [u8] },
}

/// Decodes a dag-pb block.
pub(super) fn decode(block: &[u8]) -> Result<Node<'_>, Malformed> {
    let (mut links, mut data) = (Vec::new(), None);
    let mut fields = Fields(block);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) if data.is_none() => data = Some(bytes),
            (2, Value::Bytes(bytes)) => links.push(decode_link(bytes)?),
            _ => return Err(Malformed("a field that no dag-pb node has")),
        }
    }
    let content = decode_unixfs(data.ok_or(Malformed("a node without a UnixFS message"))?)?;
    if let Content::File { parts, .. } = &content
        && parts.len() != links.len()
    {
        return Err(Malformed("a file whose lengths and links don't agree"));
    }
    Ok(Node { links, content })
}

fn decode_link(bytes: &[u8]) -> Result<Link<'_>, Malformed> {
    let (mut id, mut name, mut dag_bytes) = (None, &[][..], 0);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(cid)) => match BlockId::split_from(cid)? {
                (found, []) => id = Some(found),
                _ => return Err(Malformed("a link with bytes after its CID")),
            },
            (2, Value::Bytes(bytes)) => name = bytes,
            (3, Value::Number(n)) => dag_bytes = n,
            _ => return Err(Malformed("a field that no dag-pb link has")),
        }
    }
    Ok(Link { id: id.ok_or(Malformed("a link without a CID"))?, name, dag_bytes })
}

fn decode_unixfs(bytes: &[u8]) -> Result<Content<'_>, Malformed> {
    let (mut kind, mut inline, mut claimed, mut fanout) = (None, &[][..], None, 0);
    let mut parts = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Number(n)) => kind = Some(n),
            (2, Value::Bytes(bytes)) => inline = bytes,
            (3, Value::Number(n)) => claimed = Some(n),
            (4, Value::Number(n)) => parts.push(n),
            (4, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    parts.push(varint(&mut packed)?);
                }
            }
            (6, Value::Number(n)) => fanout = n,
            // Hash function, mode and modification time don't affect the bytes.
            _ => {}
        }
    }
    match kind {
        Some(0 | 2) => {
            let sum = parts.iter().try_fold(inline.len() as u64, |sum, n| sum.checked_add(*n));
            let bytes = sum.ok_or(Malformed("a file of more than 2^64 bytes"))?;
            if claimed.is_some_and(|claimed| claimed != bytes) || parts.contains(&0) {
                return Err(Malformed("a file whose parts don't add up"));
            }
            Ok(Content::File { inline, bytes, parts })
        }
        Some(1) => Ok(Content::Directory),
        Some(5) if fanout.is_power_of_two() && (8..=1024).contains(&fanout) => {
            Ok(Content::Shard { prefix: format!("{:X}", fanout - 1).len() })
        }
        Some(4) => Ok(Content::Symlink { target: inline }),
        Some(3) => Err(Malformed("a metadata node, which is not supported")),
        _ => Err(Malformed("a UnixFS node of an unknown kind")),
    }
}

/// Reads a protobuf message field by field.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(len)?)
            }
            _ => return Err(Malformed("protobuf of an unknown form")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(Malformed("protobuf that is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Reads an unsigned LEB128 number off the front of `bytes`.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let low = u64::from(byte & 0x7f);
        if at == 9 && low > 1 {
            break;
        }
        value |= low << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed("a number that is cut short or too long"))
}

/// Appends an unsigned LEB128 number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Encodes a dag-pb block with these links and this UnixFS message.
pub(super) fn encode(links: &[Link<'_>], unixfs: &[u8], version: Version) -> Vec<u8> {
    let mut out = Vec::with_capacity(links.len() * 56 + unixfs.len() + 8);
    let mut link = Vec::with_capacity(128);
    for Link { id, name, dag_bytes } in links {
        link.clear();
        put_bytes(&mut link, 0x0a, &id.to_bytes(version));
        put_bytes(&mut link, 0x12, name);
        link.push(0x18);
        put_varint(&mut link, *dag_bytes);
        put_bytes(&mut out, 0x12, &link);
    }
    // Canonical dag-pb has the links before the data.
    put_bytes(&mut out, 0x0a, unixfs);
    out
}

/// The UnixFS message of a file's inner node.
pub(super) fn file_message(parts: &[u64]) -> Vec<u8> {
    let mut out = vec![0x08, 2, 0x18];
    put_varint(&mut out, parts.iter().sum());
    for part in parts {
        out.push(0x20);
        put_varint(&mut out, *part);
    }
    out
}

/// The UnixFS message of a plain directory.
pub(super) const DIRECTORY_MESSAGE: [u8; 2] = [0x08, 1];

/// The UnixFS message of a shard with 256 slots; `bits` marks those that are taken.
pub(super) fn shard_message(bits: &[u8]) -> Vec<u8> {
    let mut out = vec![0x08, 5];
    put_bytes(&mut out, 0x12, bits);
    // Hash function murmur3-x64-64, 256 slots.
    out.extend_from_slice(&[0x28, 0x22, 0x30, 0x80, 0x02]);
    out
}

/// The bytes before and after the `len` bytes of a file in a dag-pb leaf.
pub(super) fn leaf_frame(len: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut message, mut after) = (vec![0x08, 2], vec![0x18]);
    if len > 0 {
        message.push(0x12);
        put_varint(&mut message, len as u64);
    }
    put_varint(&mut after, len as u64);
    let mut before = vec![0x0a];
    put_varint(&mut before, (message.len() + len + after.len()) as u64);
    before.extend_from_slice(&message);
    (before, after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(name: &'static str, dag_bytes: u64) -> Link<'static> {
        Link { id: BlockId::of(Codec::Raw, name.as_bytes()), name: name.as_bytes(), dag_bytes }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let links = vec![link("a", 3), link("b", 300)];
        let file = encode(&links, &file_message(&[3, 300]), Version::V1);
        let content = Content::File { inline: &[], bytes: 303, parts: vec![3, 300] };
        assert_eq!(decode(&file), Ok(Node { links: links.clone(), content }));
        let shard = encode(&links, &shard_message(&[1, 2]), Version::V1);
        assert_eq!(decode(&shard).unwrap().content, Content::Shard { prefix: 2 });
        let (mut leaf, after) = leaf_frame(2);
        leaf.extend_from_slice(b"hi");
        leaf.extend_from_slice(&after);
        let content = Content::File { inline: b"hi", bytes: 2, parts: vec![] };
        assert_eq!(decode(&leaf), Ok(Node { links: vec![], content }));
    }

    #[test]
    fn the_empty_objects_have_their_well_known_names() {
        let (before, after) = leaf_frame(0);
        let file = BlockId::of(Codec::DagPb, &[before, after].concat());
        let known = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
        assert_eq!(file.cid(Version::V0).unwrap().to_string(), known);
        let dir = BlockId::of(Codec::DagPb, &encode(&[], &DIRECTORY_MESSAGE, Version::V1));
        let known = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
        assert_eq!(dir.cid(Version::V1).unwrap().to_string(), known);
        assert_eq!(BlockId::from_cid(&known.parse().unwrap()), dir);
        assert_eq!(BlockId::split_from(&dir.to_bytes(Version::V0)), Ok((dir, &[][..])));
    }

    #[test]
    fn nodes_that_lie_are_refused() {
        let links = [link("a", 3)];
        for (message, why) in [
            (file_message(&[]), "lengths and links"),
            (file_message(&[0]), "add up"),
            (vec![0x08, 2, 0x18, 9, 0x20, 3], "add up"),
            (vec![0x08, 2, 0x20, 3, 0x12, 0x7f], "cut short"),
            (vec![0x08, 5, 0x30, 3], "unknown kind"),
            (vec![0x08, 9], "unknown kind"),
            (vec![], "unknown kind"),
            (vec![0x80; 12], "too long"),
        ] {
            let refusal = decode(&encode(&links, &message, Version::V1)).unwrap_err().to_string();
            assert!(refusal.contains(why), "{message:?}: {refusal}");
        }
    }

    proptest! {
        #[test]
        fn strangers_bytes_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&block);
            let _ = decode_unixfs(&block);
            let _ = decode_link(&block);
        }
    }
}
