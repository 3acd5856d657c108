//! Content-addressed archives (CAR v1): a header, then sections of a CID and its block.
//!
//! Invariants: the reader returns a block only after hashing its bytes and finding that they match
//! its CID; it keeps at most one section in memory; it copies bytes only where a section spans two
//! pieces of the stream. See <https://ipld.io/specs/transport/car/carv1/>.

use bytes::{Bytes, BytesMut};

use super::dag::{self, BLOCK_BYTES_MAX, BlockId, Malformed, Version};

/// Media type of a CAR, without parameters.
pub(super) const MEDIA_TYPE: &str = "application/vnd.ipld.car";

/// Maximum bytes of a header, which names one or a few roots and is far shorter.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Maximum bytes of a section; other readers have the same limit.
const SECTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a binary CIDv1 with a SHA-256 digest.
const CID_BYTES_MAX: usize = 36;

/// Why an archive can't be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarError {
    /// It doesn't begin like an archive; it may be something else that is useful.
    NotCar,
    /// It is an archive, but a block in it doesn't match its CID.
    Wrong(Malformed),
    /// It begins like an archive but is malformed from here on: something else may have replaced
    /// it.
    Garbled(Malformed),
    /// It ends in the middle of a section.
    Cut,
}

/// The header of an archive with one root.
pub(super) fn header(root: BlockId, version: Version) -> Vec<u8> {
    let cid = root.to_bytes(version);
    // DAG-CBOR of {"roots": [cid], "version": 1}; a CID is tag 42 over bytes that begin with 0.
    let mut map = b"\xa2\x65roots\x81\xd8\x2a\x58".to_vec();
    map.push(u8::try_from(cid.len() + 1).unwrap_or(u8::MAX));
    map.push(0);
    map.extend_from_slice(&cid);
    map.extend_from_slice(b"\x67version\x01");
    let mut out = Vec::with_capacity(map.len() + 2);
    dag::put_varint(&mut out, map.len() as u64);
    out.extend_from_slice(&map);
    out
}

/// The bytes before a block of `len` bytes: the section's length and the CID.
pub(super) fn section_head(id: BlockId, version: Version, len: usize) -> Vec<u8> {
    let cid = id.to_bytes(version);
    let mut out = Vec::with_capacity(cid.len() + 4);
    dag::put_varint(&mut out, (cid.len() + len) as u64);
    out.extend_from_slice(&cid);
    out
}

/// Reads an archive from the pieces that `pull` returns, until it returns `None`.
pub(super) struct Reader<P> {
    pull: P,
    piece: Bytes,
}

impl<P: FnMut() -> Option<Bytes>> Reader<P> {
    /// Reads the header. Its roots are ignored: blocks are matched with what was requested.
    pub(super) fn new(pull: P) -> Result<Self, CarError> {
        let mut reader = Self { pull, piece: Bytes::new() };
        let len = reader.varint().map_err(|_| CarError::NotCar)?;
        let len =
            len.filter(|len| (10..=HEADER_BYTES_MAX).contains(len)).ok_or(CarError::NotCar)?;
        let header = reader.take(len).map_err(|_| CarError::NotCar)?;
        let is_v1 = header[0] == 0xa2 && header.windows(9).any(|nine| nine == b"\x67version\x01");
        if is_v1 { Ok(reader) } else { Err(CarError::NotCar) }
    }

    /// The next block with its bytes verified; `None` at the end.
    pub(super) fn next_block(&mut self) -> Result<Option<(BlockId, Bytes)>, CarError> {
        let Some(len) = self.varint()? else { return Ok(None) };
        if len == 0 || len > SECTION_BYTES_MAX {
            return Err(CarError::Garbled(Malformed("a section of an impossible length")));
        }
        let section = self.take(len)?;
        let (id, block) = BlockId::split_from(&section).map_err(CarError::Garbled)?;
        if block.len() > BLOCK_BYTES_MAX + CID_BYTES_MAX {
            return Err(CarError::Garbled(Malformed("a block of more than 2 MiB")));
        }
        if !id.names(block) {
            return Err(CarError::Wrong(Malformed("a block that is not what its CID says")));
        }
        let block = section.slice_ref(block);
        Ok(Some((id, block)))
    }

    /// The length of the next section; `None` if the archive ends before it.
    fn varint(&mut self) -> Result<Option<usize>, CarError> {
        let mut digits = Vec::with_capacity(4);
        loop {
            if !self.refill() {
                return if digits.is_empty() { Ok(None) } else { Err(CarError::Cut) };
            }
            digits.push(self.piece.split_to(1)[0]);
            if digits.last().is_some_and(|digit| digit & 0x80 == 0) {
                let value = dag::varint(&mut digits.as_slice()).map_err(CarError::Garbled)?;
                return Ok(Some(usize::try_from(value).unwrap_or(usize::MAX)));
            }
            if digits.len() > 5 {
                return Err(CarError::Garbled(Malformed("a length without an end")));
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, CarError> {
        if self.refill() && self.piece.len() >= len {
            return Ok(self.piece.split_to(len));
        }
        let mut taken = BytesMut::with_capacity(len);
        while taken.len() < len {
            if !self.refill() {
                return Err(CarError::Cut);
            }
            let part = self.piece.split_to(self.piece.len().min(len - taken.len()));
            taken.extend_from_slice(&part);
        }
        Ok(taken.freeze())
    }

    /// Makes sure that `piece` has a byte to read; `false` at the end of the stream.
    fn refill(&mut self) -> bool {
        while self.piece.is_empty() {
            match (self.pull)() {
                Some(piece) => self.piece = piece,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::dag::Codec;
    use super::*;

    fn archive(blocks: &[&[u8]]) -> Vec<u8> {
        let root = BlockId::of(Codec::Raw, blocks[0]);
        let mut out = header(root, Version::V1);
        for block in blocks {
            let id = BlockId::of(Codec::Raw, block);
            out.extend_from_slice(&section_head(id, Version::V1, block.len()));
            out.extend_from_slice(block);
        }
        out
    }

    fn read(archive: &[u8], piece_bytes: usize) -> Result<Vec<Bytes>, CarError> {
        let mut pieces = archive.chunks(piece_bytes).map(Bytes::copy_from_slice);
        let mut reader = Reader::new(|| pieces.next())?;
        let mut blocks = Vec::new();
        while let Some((_, block)) = reader.next_block()? {
            blocks.push(block);
        }
        Ok(blocks)
    }

    #[test]
    fn blocks_come_out_however_the_stream_is_cut_into_pieces() {
        let long = vec![7; 70_000];
        let archive = archive(&[b"one", &long, b""]);
        for piece_bytes in [1, 3, 1000, 100_000] {
            let blocks = read(&archive, piece_bytes).unwrap();
            assert_eq!(blocks, [&b"one"[..], &long, b""], "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_flipped_or_none_is_refused() {
        let whole = archive(&[b"one", b"two"]);
        assert_eq!(read(&whole[..whole.len() - 1], 9), Err(CarError::Cut));
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(read(&flipped, 9), Err(CarError::Wrong(_))));
        for other in [&b"<!doctype html><p>hello</p>"[..], b"", b"\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(read(other, 9), Err(CarError::NotCar), "{other:?}");
        }
        let mut long = header(BlockId::of(Codec::Raw, b""), Version::V1);
        dag::put_varint(&mut long, 5 * 1024 * 1024);
        assert!(matches!(read(&long, 9), Err(CarError::Garbled(_))));
    }

    #[test]
    fn a_block_of_another_hash_is_refused() {
        let mut archive = header(BlockId::of(Codec::Raw, b""), Version::V1);
        archive.extend_from_slice(&[4 + 5, 0x01, 0x55, 0x00, 0x05]);
        archive.extend_from_slice(b"hello");
        assert!(matches!(read(&archive, 99), Err(CarError::Garbled(_))));
    }
}
