//! UnixFS directories: one node, or a tree of shards if that node would grow too large.
//!
//! Invariants: the same entries give the same bytes as Kubo's; no choice of names by a stranger
//! makes the tree of shards deeper than a name's hash is long.

use std::collections::BTreeMap;

use super::dag::{self, BlockId, Codec, DIRECTORY_MESSAGE, Link, Malformed, Version};

/// Kubo shards a directory whose names and CIDs together exceed this.
const PLAIN_BYTES_MAX: usize = 256 * 1024;

/// Root block and sizes of a hashed file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) id: BlockId,
    /// Total size of the files in bytes.
    pub(super) bytes: u64,
    /// Total size of all blocks in bytes.
    pub(super) dag_bytes: u64,
}

/// Receives every inner node as it is made, children first.
pub(super) type Emit<'a> = &'a mut dyn FnMut(BlockId, Vec<u8>);

/// Emits the nodes of one directory, its root last. Entries are sorted by the bytes of their names.
pub(super) fn add(
    entries: &BTreeMap<String, Summary>,
    version: Version,
    emit: Emit<'_>,
) -> Result<Summary, Malformed> {
    let bytes = entries.values().map(|entry| entry.bytes).sum();
    let plain_bytes: usize =
        entries.iter().map(|(name, entry)| name.len() + entry.id.to_bytes(version).len()).sum();
    let (id, dag_bytes) = if plain_bytes > PLAIN_BYTES_MAX {
        let hashed = entries.iter().map(|(name, entry)| (murmur3(name.as_bytes()), name, entry));
        add_shard(&hashed.collect::<Vec<_>>(), 0, version, emit)?
    } else {
        let links: Vec<_> = entries
            .iter()
            .map(|(name, entry)| Link {
                id: entry.id,
                name: name.as_bytes(),
                dag_bytes: entry.dag_bytes,
            })
            .collect();
        emit_node(&links, &DIRECTORY_MESSAGE, version, emit)
    };
    Ok(Summary { id, bytes, dag_bytes })
}

/// Emits one shard. An entry goes into the slot that the next eight bits of its name's hash pick;
/// if several share a slot, a shard below holds them.
fn add_shard(
    entries: &[(u64, &String, &Summary)],
    level: usize,
    version: Version,
    emit: Emit<'_>,
) -> Result<(BlockId, u64), Malformed> {
    let mut slots: BTreeMap<u8, Vec<(u64, &String, &Summary)>> = BTreeMap::new();
    for entry in entries {
        let slot =
            *entry.0.to_be_bytes().get(level).ok_or(Malformed("names whose hashes agree"))?;
        slots.entry(slot).or_default().push(*entry);
    }
    let mut bits = [0_u8; 32];
    let mut named = Vec::with_capacity(slots.len());
    for (slot, entries) in slots {
        bits[31 - usize::from(slot / 8)] |= 1 << (slot % 8);
        named.push(match entries.as_slice() {
            [(_, name, entry)] => (format!("{slot:02X}{name}"), entry.id, entry.dag_bytes),
            several => {
                let (id, dag_bytes) = add_shard(several, level + 1, version, emit)?;
                (format!("{slot:02X}"), id, dag_bytes)
            }
        });
    }
    let links: Vec<_> = named
        .iter()
        .map(|(name, id, dag_bytes)| Link { id: *id, name: name.as_bytes(), dag_bytes: *dag_bytes })
        .collect();
    // Kubo writes the bit field as a big-endian number without leading zero bytes.
    let leading = bits.iter().take_while(|byte| **byte == 0).count();
    Ok(emit_node(&links, &dag::shard_message(&bits[leading..]), version, emit))
}

fn emit_node(
    links: &[Link<'_>],
    message: &[u8],
    version: Version,
    emit: Emit<'_>,
) -> (BlockId, u64) {
    let block = dag::encode(links, message, version);
    let id = BlockId::of(Codec::DagPb, &block);
    let dag_bytes = block.len() as u64 + links.iter().map(|link| link.dag_bytes).sum::<u64>();
    emit(id, block);
    (id, dag_bytes)
}

/// The first 64 bits of `MurmurHash3` x64-128 with seed 0, which picks the slots.
fn murmur3(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (low, high) = block.split_at(8);
        h1 = (h1 ^ mix1(word(low))).rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(word(high))).rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let (low, high) = tail.split_at(tail.len().min(8));
    h2 ^= mix2(word(high)) ^ bytes.len() as u64;
    h1 ^= mix1(word(low)) ^ bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    avalanche(h1).wrapping_add(avalanche(h2))
}

fn avalanche(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_murmur3() {
        // From the reference implementation.
        assert_eq!(murmur3(b""), 0);
        assert_eq!(murmur3(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(murmur3(b"The quick brown fox jumps over the lazy dog"), 0xe34b_bc7b_bc07_1b6c);
    }

    #[test]
    fn names_whose_hashes_agree_are_refused_instead_of_followed_for_ever() {
        let entry = Summary { id: BlockId::of(Codec::Raw, b""), bytes: 0, dag_bytes: 0 };
        let (one, two) = ("one".to_owned(), "two".to_owned());
        let entries = [(7, &one, &entry), (7, &two, &entry)];
        assert!(add_shard(&entries, 0, Version::V1, &mut |_, _| {}).is_err());
    }
}
