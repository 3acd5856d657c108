//! The layout of objects on disk: a file's flat bytes, and next to them its skeleton.
//!
//! A skeleton lists an object's blocks in order, parents first: inner nodes in full, everything
//! else by reference. A leaf refers to a number of the flat bytes, a directory's entry to another
//! object. So the flat file and the archive of its blocks are both one pass over one file.
//! Invariant: if an object's skeleton exists, everything that it refers to exists too.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock, fstatvfs, syncfs};
use tempfile::TempDir;

use super::super::dag::{self, BlockId, Codec, Content, Version};
use super::super::directory::Summary;
use super::super::task::Stop;
use super::super::unixfs::{Profile, add_file};
use super::super::{Error, Kind, directory};

/// Bytes that uploads leave free on the disk.
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// Up to this many new files are synced one by one; beyond, syncing the file system is faster.
const SYNCS_MAX: usize = 16;
const MAGIC: &[u8] = b"lamda-dag-1\n";

/// The objects under one folder.
#[derive(Debug)]
pub(super) struct Objects {
    dir: PathBuf,
    lock: File,
}

/// An object's skeleton; see the module.
#[derive(Debug)]
pub(super) struct Skeleton {
    pub(super) version: Version,
    pub(super) kind: Kind,
    /// Total size of the files in bytes.
    pub(super) bytes: u64,
    /// Size of all blocks as sections of an archive, including those of entries.
    pub(super) archive_bytes: u64,
    pub(super) records: Vec<Record>,
}

/// One block of an object, or a reference to another object.
#[derive(Debug)]
pub(super) enum Record {
    /// An inner node, with its block.
    Node { id: BlockId, block: Bytes },
    /// A leaf with the next `bytes` bytes of the flat file.
    Leaf { id: BlockId, bytes: u32 },
    /// The entry of a directory, which is an object of its own.
    Entry { id: BlockId },
}

/// A stored object with the sizes that its parent needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) summary: Summary,
    archive_bytes: u64,
}

impl Objects {
    /// Opens or creates the folder, locks it for this process and removes what a crash left.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir.join("objects"))?;
        let lock = File::create(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|err| Error::Setting {
            setting: dir.display().to_string(),
            source: format!("another process serves it ({err})").into(),
        })?;
        let incoming = dir.join("incoming");
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        fs::create_dir(&incoming)?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// Begins an upload in a temporary folder.
    pub(super) fn batch(self: &Arc<Self>) -> Result<Batch, Error> {
        let folder = tempfile::tempdir_in(self.dir.join("incoming"))?;
        Ok(Batch { objects: Arc::clone(self), folder, moves: Vec::new(), ids: HashSet::new() })
    }

    /// Fails if less than [`RESERVE_BYTES`] are free on the disk.
    pub(super) fn check_space(&self) -> Result<(), Error> {
        let stat = fstatvfs(&self.lock).map_err(std::io::Error::from)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free > RESERVE_BYTES { Ok(()) } else { Err(Error::NoSpace) }
    }

    /// The skeleton of the object `id`, if it is stored.
    pub(super) fn find(&self, id: BlockId) -> Result<Option<Skeleton>, Error> {
        match fs::read(self.path(id, "dag")) {
            Ok(text) => Skeleton::parse(&text.into())
                .map(Some)
                .ok_or_else(|| Error::Io(std::io::Error::other("a skeleton that can't be read"))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                Ok(Skeleton::of_empty_directory(id))
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Opens the flat bytes of a stored file.
    pub(super) fn data(&self, id: BlockId) -> Result<File, Error> {
        File::open(self.path(id, "data")).map_err(Error::from)
    }

    fn path(&self, id: BlockId, kind: &str) -> PathBuf {
        let codec = if id.codec == Codec::Raw { "raw" } else { "pb" };
        let digest = sha2::digest::Output::<sha2::Sha256>::from(id.digest);
        let hex = format!("{digest:x}");
        self.dir.join("objects").join(&hex[..2]).join(format!("{hex}.{codec}.{kind}"))
    }
}

/// An upload: its files are written to a temporary folder and join the objects on commit.
#[derive(Debug)]
pub(super) struct Batch {
    objects: Arc<Objects>,
    folder: TempDir,
    /// Renames to be done, what is referred to before what refers to it.
    moves: Vec<(PathBuf, PathBuf)>,
    ids: HashSet<BlockId>,
}

impl Batch {
    /// Folder for the upload's files; removed together with the batch.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Hashes the file at `path` and takes it over.
    pub(super) fn add_file(&mut self, path: &Path, profile: &Profile) -> Result<Stored, Error> {
        let mut nodes = HashMap::new();
        let mut keep = |id, block| drop(nodes.insert(id, Bytes::from(block)));
        let summary = add_file(&mut File::open(path)?, profile, &mut keep, &Stop::default())?;
        let mut skeleton = Skeleton::new(profile.version, Kind::File, summary.bytes);
        skeleton.add_file_blocks(summary.id, summary.bytes, &nodes)?;
        if self.is_new(summary.id) {
            self.moves.push((path.to_owned(), self.objects.path(summary.id, "data")));
            self.write(summary.id, &skeleton)?;
        }
        Ok(Stored { summary, archive_bytes: skeleton.archive_bytes })
    }

    /// Creates a directory of objects that are stored or part of this upload.
    pub(super) fn add_directory(
        &mut self,
        entries: &BTreeMap<String, Stored>,
        version: Version,
    ) -> Result<Stored, Error> {
        let mut nodes = HashMap::new();
        let mut keep = |id, block| drop(nodes.insert(id, Bytes::from(block)));
        let summaries = entries.iter().map(|(name, entry)| (name.clone(), entry.summary));
        let summary = directory::add(&summaries.collect(), version, &mut keep)
            .map_err(|err| Error::Unsupported { path: String::new(), reason: err.0.into() })?;
        let mut skeleton = Skeleton::new(version, Kind::Directory, summary.bytes);
        let sizes = entries.values().map(|entry| (entry.summary.id, entry.archive_bytes));
        skeleton.add_directory_blocks(summary.id, &nodes, &sizes.collect())?;
        if self.is_new(summary.id) {
            self.write(summary.id, &skeleton)?;
        }
        Ok(Stored { summary, archive_bytes: skeleton.archive_bytes })
    }

    /// Makes everything durable, then moves it to the objects.
    pub(super) fn commit(self) -> Result<(), Error> {
        let folders: BTreeSet<_> = self.moves.iter().map(|(_, to)| parent(to)).collect();
        for folder in &folders {
            fs::create_dir_all(folder)?;
        }
        // Content is durable before a name leads to it, and names before the pin is confirmed.
        let all_at_once = self.moves.len() > SYNCS_MAX;
        if all_at_once {
            syncfs(&self.objects.lock).map_err(std::io::Error::from)?;
        } else {
            for (from, _) in &self.moves {
                File::open(from)?.sync_all()?;
            }
        }
        for (from, to) in &self.moves {
            fs::rename(from, to)?;
        }
        if all_at_once {
            return syncfs(&self.objects.lock).map_err(|err| Error::Io(err.into()));
        }
        let objects = self.objects.dir.join("objects");
        for folder in folders.into_iter().chain([&*objects]) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn is_new(&mut self, id: BlockId) -> bool {
        !self.objects.path(id, "dag").exists() && self.ids.insert(id)
    }

    fn write(&mut self, id: BlockId, skeleton: &Skeleton) -> Result<(), Error> {
        let path = self.folder.path().join(format!("{}.dag", self.ids.len()));
        fs::write(&path, skeleton.to_bytes())?;
        self.moves.push((path, self.objects.path(id, "dag")));
        Ok(())
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl Skeleton {
    /// The skeleton of the empty directory, which every store has; `None` if `id` is another one.
    fn of_empty_directory(id: BlockId) -> Option<Self> {
        let block: Bytes = dag::encode(&[], &dag::DIRECTORY_MESSAGE, Version::V1).into();
        if id != BlockId::of(Codec::DagPb, &block) {
            return None;
        }
        let head = super::super::car::section_head(id, Version::V1, block.len());
        let archive_bytes = (head.len() + block.len()) as u64;
        let (version, kind) = (Version::V1, Kind::Directory);
        Some(Self {
            version,
            kind,
            bytes: 0,
            archive_bytes,
            records: vec![Record::Node { id, block }],
        })
    }

    fn new(version: Version, kind: Kind, bytes: u64) -> Self {
        Self { version, kind, bytes, archive_bytes: 0, records: Vec::new() }
    }

    fn add_node(&mut self, id: BlockId, block: &Bytes) {
        self.add_section(id, block.len());
        self.records.push(Record::Node { id, block: block.clone() });
    }

    fn add_section(&mut self, id: BlockId, block_bytes: usize) {
        let head = super::super::car::section_head(id, self.version, block_bytes);
        self.archive_bytes += (head.len() + block_bytes) as u64;
    }

    fn add_file_blocks(
        &mut self,
        id: BlockId,
        bytes: u64,
        nodes: &HashMap<BlockId, Bytes>,
    ) -> Result<(), Error> {
        let Some(block) = nodes.get(&id) else {
            let bytes = u32::try_from(bytes).map_err(std::io::Error::other)?;
            self.add_section(id, leaf_block_bytes(id, bytes as usize));
            self.records.push(Record::Leaf { id, bytes });
            return Ok(());
        };
        self.add_node(id, block);
        let node = dag::decode(block).map_err(std::io::Error::other)?;
        if let Content::File { parts, .. } = &node.content {
            for (link, bytes) in node.links.iter().zip(parts) {
                self.add_file_blocks(link.id, *bytes, nodes)?;
            }
        }
        Ok(())
    }

    fn add_directory_blocks(
        &mut self,
        id: BlockId,
        nodes: &HashMap<BlockId, Bytes>,
        sizes: &HashMap<BlockId, u64>,
    ) -> Result<(), Error> {
        let Some(block) = nodes.get(&id) else {
            self.archive_bytes += sizes.get(&id).copied().unwrap_or_default();
            self.records.push(Record::Entry { id });
            return Ok(());
        };
        self.add_node(id, block);
        for link in dag::decode(block).map_err(std::io::Error::other)?.links {
            self.add_directory_blocks(link.id, nodes, sizes)?;
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(u8::from(self.version == Version::V1));
        out.push(u8::from(self.kind == Kind::Directory));
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.archive_bytes.to_le_bytes());
        for record in &self.records {
            let (tag, id, len) = match record {
                Record::Node { id, block } => (0, id, block.len() as u64),
                Record::Leaf { id, bytes } => (1, id, u64::from(*bytes)),
                Record::Entry { id } => (2, id, 0),
            };
            out.push(tag);
            out.extend_from_slice(&id.to_bytes(Version::V1));
            out.extend_from_slice(&len.to_le_bytes());
            if let Record::Node { block, .. } = record {
                out.extend_from_slice(block);
            }
        }
        out
    }

    fn parse(text: &Bytes) -> Option<Self> {
        let (head, mut rest) = text.strip_prefix(MAGIC)?.split_at_checked(18)?;
        let version = if head[0] == 1 { Version::V1 } else { Version::V0 };
        let kind = if head[1] == 1 { Kind::Directory } else { Kind::File };
        let bytes = u64::from_le_bytes(head[2..10].try_into().ok()?);
        let archive_bytes = u64::from_le_bytes(head[10..].try_into().ok()?);
        let mut records = Vec::new();
        while let Some((tag, after)) = rest.split_first() {
            let (id, after) = BlockId::split_from(after).ok()?;
            let (len, after) = after.split_first_chunk::<8>()?;
            let len = u64::from_le_bytes(*len);
            rest = after;
            records.push(match tag {
                0 => {
                    let (block, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                    rest = after;
                    Record::Node { id, block: text.slice_ref(block) }
                }
                1 => Record::Leaf { id, bytes: u32::try_from(len).ok()? },
                2 => Record::Entry { id },
                _ => return None,
            });
        }
        Some(Self { version, kind, bytes, archive_bytes, records })
    }
}

/// Size of a leaf's block that holds `bytes` bytes of a file.
pub(super) fn leaf_block_bytes(id: BlockId, bytes: usize) -> usize {
    if id.codec == Codec::Raw {
        return bytes;
    }
    let (before, after) = dag::leaf_frame(bytes);
    before.len() + bytes + after.len()
}
