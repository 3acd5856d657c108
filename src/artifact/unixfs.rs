//! From bytes on disk to a CID: chunks, a balanced tree over them, directories.
//!
//! Invariants: [`seal_output`] reads what an untrusted container wrote, so it never lets the system
//! follow a link, and opens only files and folders inside the output. Its CIDs are those of
//! `ipfs add --cid-version=1`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::dag::{self, BlockId, Codec, Link, Version};
use super::directory::{self, Emit, Summary};
use super::item::{Item, Leaf, View};
use super::local::Tree;
use super::task::{self, Stop};
use super::{Error, Kind, Sealed};

/// How a file is split into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) version: Version,
    /// Bytes of a file in one leaf.
    pub(super) chunk_bytes: usize,
    /// Maximum links of an inner node.
    pub(super) width: usize,
    /// Whether leaves are the bytes themselves or wrapped in dag-pb.
    pub(super) raw_leaves: bool,
}

/// `ipfs add --cid-version=1`: the profile that this node publishes under.
pub(super) const NODE: Profile =
    Profile { version: Version::V1, chunk_bytes: 256 * 1024, width: 174, raw_leaves: true };
/// `ipfs add`, and Pinata without options.
pub(super) const LEGACY: Profile = Profile { version: Version::V0, raw_leaves: false, ..NODE };
/// `unixfs-v1-2025` of IPIP-499, also Helia's and web3.storage's.
const LARGE: Profile = Profile { chunk_bytes: 1024 * 1024, width: 1024, ..NODE };
/// `ipfs add --cid-version=1 --chunker=size-1048576`.
const LARGE_NARROW: Profile = Profile { width: 174, ..LARGE };

/// The profiles that another tool's CID may stem from, the likeliest first.
pub(super) const KNOWN: [Profile; 4] = [NODE, LEGACY, LARGE, LARGE_NARROW];

/// Hashes a file, or a directory with everything below it, of at most `bytes_max` bytes. Fails if
/// anything in it can't be carried. Empty directories are left out of the sealed one: the pinning
/// call can't carry them.
pub async fn seal(path: &Path, bytes_max: u64) -> Result<Sealed, Error> {
    let seen_as = std::path::absolute(path)?.to_string_lossy().into_owned();
    let (path, view) = (path.to_owned(), View { seen_as, bytes_max });
    task::blocking(move |stop| {
        let tree = Tree::open(&path, &view)?;
        if let Some((path, why)) = tree.left_out.first() {
            return Err(Error::Unsupported { path: path.clone(), reason: why.clone() });
        }
        sealed(&tree, view, stop)
    })
    .await
}

/// Like [`seal`] for a job's output under this view, but leaves out what can't be carried. Returns
/// one line per omission.
pub async fn seal_output(path: &Path, view: View) -> Result<(Sealed, Vec<String>), Error> {
    let path = path.to_owned();
    task::blocking(move |stop| {
        let tree = Tree::open(&path, &view)?;
        Ok((sealed(&tree, view, stop)?, tree.left_out.told()))
    })
    .await
}

fn sealed(tree: &Tree, view: View, stop: &Stop) -> Result<Sealed, Error> {
    let summary = hash_tree(tree, &NODE, stop)?;
    let kind = if matches!(tree.item, Item::File(_)) { Kind::File } else { Kind::Directory };
    Ok(Sealed { cid: cid(summary.id, Version::V1)?, bytes: summary.bytes, kind, view })
}

/// The CID of a block that this node made.
pub(super) fn cid(id: BlockId, version: Version) -> Result<crate::ids::Cid, Error> {
    id.cid(version).map_err(|err| Error::Io(std::io::Error::other(err)))
}

/// Hashes `tree` under `profile`.
pub(super) fn hash_tree(tree: &Tree, profile: &Profile, stop: &Stop) -> Result<Summary, Error> {
    hash_item(tree, &mut Vec::new(), &tree.item, profile, stop)
}

fn hash_item<'t>(
    tree: &'t Tree,
    path: &mut Vec<&'t str>,
    item: &'t Item<Leaf>,
    profile: &Profile,
    stop: &Stop,
) -> Result<Summary, Error> {
    match item {
        Item::File(leaf) => {
            let mut file = tree.open_file(path, leaf)?;
            add_file(&mut file, profile, &mut |_, _| {}, stop)
        }
        Item::Directory(items) => {
            let mut entries = BTreeMap::new();
            for (name, item) in items {
                path.push(name);
                entries.insert(name.clone(), hash_item(tree, path, item, profile, stop)?);
                path.pop();
            }
            directory::add(&entries, profile.version, &mut |_, _| {}).map_err(|err| {
                let path = super::names::shown(&path.join("/"));
                Error::Unsupported { path, reason: err.0.into() }
            })
        }
    }
}

/// Hashes the content of `file`. Inner nodes go to `emit`; leaves are only hashed.
pub(super) fn add_file(
    file: &mut impl Read,
    profile: &Profile,
    emit: Emit<'_>,
    stop: &Stop,
) -> Result<Summary, Error> {
    let mut chunk = Vec::with_capacity(profile.chunk_bytes);
    let mut levels = Levels { profile, rows: vec![Vec::new()], emit };
    loop {
        stop.check()?;
        chunk.clear();
        file.by_ref().take(profile.chunk_bytes as u64).read_to_end(&mut chunk)?;
        // An empty file has one empty leaf; no other file has any.
        if chunk.is_empty() && !levels.is_empty() {
            return Ok(levels.finish());
        }
        levels.push(0, hash_leaf(&chunk, profile));
        if chunk.len() < profile.chunk_bytes {
            return Ok(levels.finish());
        }
    }
}

fn hash_leaf(chunk: &[u8], profile: &Profile) -> Summary {
    let bytes = chunk.len() as u64;
    if profile.raw_leaves {
        return Summary { id: BlockId::of(Codec::Raw, chunk), bytes, dag_bytes: bytes };
    }
    let (before, after) = dag::leaf_frame(chunk.len());
    let hash = Sha256::new().chain_update(&before).chain_update(chunk).chain_update(&after);
    let id = BlockId { codec: Codec::DagPb, digest: hash.finalize().into() };
    Summary { id, bytes, dag_bytes: bytes + (before.len() + after.len()) as u64 }
}

/// A balanced tree that grows from the left: a full level becomes one node of the next.
struct Levels<'a> {
    profile: &'a Profile,
    rows: Vec<Vec<Summary>>,
    emit: Emit<'a>,
}

impl Levels<'_> {
    fn is_empty(&self) -> bool {
        self.rows.iter().all(Vec::is_empty)
    }

    fn push(&mut self, level: usize, summary: Summary) {
        if level == self.rows.len() {
            self.rows.push(Vec::new());
        }
        self.rows[level].push(summary);
        if self.rows[level].len() == self.profile.width {
            self.fold(level);
        }
    }

    /// Makes one node of everything on `level`.
    fn fold(&mut self, level: usize) {
        let children = std::mem::take(&mut self.rows[level]);
        let links: Vec<_> = children
            .iter()
            .map(|child| Link { id: child.id, name: b"", dag_bytes: child.dag_bytes })
            .collect();
        let parts: Vec<u64> = children.iter().map(|child| child.bytes).collect();
        let block = dag::encode(&links, &dag::file_message(&parts), self.profile.version);
        let id = BlockId::of(Codec::DagPb, &block);
        let below: u64 = children.iter().map(|child| child.dag_bytes).sum();
        let summary =
            Summary { id, bytes: parts.iter().sum(), dag_bytes: block.len() as u64 + below };
        (self.emit)(id, block);
        self.push(level + 1, summary);
    }

    /// Folds the remaining levels, lowest first, until a single root is left.
    fn finish(mut self) -> Summary {
        let mut level = 0;
        loop {
            let above = self.rows[level + 1..].iter().any(|level| !level.is_empty());
            match self.rows[level].as_slice() {
                [root] if !above => return *root,
                [] => {}
                _ => self.fold(level),
            }
            level += 1;
        }
    }
}

/// Whether the file that `open` opens has the content of `id` under a known profile.
pub(super) fn matching(
    open: impl Fn() -> Result<std::fs::File, Error>,
    id: BlockId,
    stop: &Stop,
) -> Result<bool, Error> {
    if id.codec == Codec::Raw {
        let mut hash = Sha256::new();
        let (mut file, mut chunk) = (open()?, vec![0; NODE.chunk_bytes]);
        loop {
            stop.check()?;
            match file.read(&mut chunk)? {
                0 => return Ok(id.digest == <[u8; 32]>::from(hash.finalize())),
                n => hash.update(&chunk[..n]),
            }
        }
    }
    for profile in KNOWN {
        if add_file(&mut open()?, &profile, &mut |_, _| {}, stop)?.id == id {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8], profile: &Profile) -> String {
        let summary = add_file(&mut &bytes[..], profile, &mut |_, _| {}, &Stop::default()).unwrap();
        assert_eq!(summary.bytes, bytes.len() as u64);
        cid(summary.id, profile.version).unwrap().to_string()
    }

    #[test]
    fn the_empty_file_has_its_well_known_names() {
        assert_eq!(name(b"", &NODE), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(name(b"", &LEGACY), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    }

    #[test]
    fn a_full_node_and_one_chunk_more_give_a_tree_of_the_right_shape() {
        let tiny = Profile { chunk_bytes: 2, width: 3, ..NODE };
        for (bytes, nodes) in [(6, 1), (7, 3), (18, 4), (19, 7)] {
            let mut made = 0;
            let content = vec![7; bytes];
            add_file(&mut &content[..], &tiny, &mut |_, _| made += 1, &Stop::default()).unwrap();
            assert_eq!(made, nodes, "{bytes} bytes");
        }
    }
}
