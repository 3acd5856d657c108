//! Blocks into files: every block is written to its place on disk as soon as it arrives.
//!
//! A block is wanted at one or more spots, which its parents' nodes determine; gateways send
//! parents first, so that hardly anything waits. Invariants: memory stays bounded whatever the
//! order, the size and the shape of what arrives; a block that arrives once serves all its spots;
//! nothing is written that the root's CID doesn't lead to.

mod early;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;

use super::car::{self, Reader};
use super::dag::{self, BlockId, Codec, Content, Malformed, Node};
use super::patience::Tally;
use super::staging::{EntryId, Staging};
use super::{Error, Kind};
use early::Early;
#[cfg(test)]
use early::{EARLY_BYTES_MAX, EARLY_MAX};

/// Maximum spots that wait for blocks: a gateway that sends parents first needs some thousands, one
/// that sends whole levels needs one per 256 KiB.
const PENDING_MAX: usize = 114_688;
/// Maximum blocks whose places are remembered, for gateways that send a repeated block once.
const DONE_MAX: usize = 114_688;
/// Verified blocks that wait to be written.
const AHEAD_MAX: usize = 4;
/// Maximum spots of one object: 4 TiB in chunks of 256 KiB. Stops objects built to be endless.
const SPOTS_MAX: u64 = 16 * 1024 * 1024;
/// Maximum depth of inner nodes; a file of 2^64 bytes needs eight levels.
const LEVELS_MAX: u8 = 32;

/// Why an object could not be assembled.
#[derive(Debug)]
pub(super) enum AssembleError {
    /// The stream is not an archive.
    NotCar,
    /// A block doesn't match its CID; another gateway may do better.
    Wrong(Malformed),
    /// The archive is malformed from some byte on; another gateway may do better.
    Garbled(Malformed),
    /// The archive ended too early; another gateway may do better.
    Incomplete,
    /// The object itself or this host is at fault; no gateway can help.
    Final(Error),
}

impl From<Error> for AssembleError {
    fn from(err: Error) -> Self {
        Self::Final(err)
    }
}

impl From<car::CarError> for AssembleError {
    fn from(fault: car::CarError) -> Self {
        match fault {
            car::CarError::NotCar => Self::NotCar,
            car::CarError::Wrong(why) => Self::Wrong(why),
            car::CarError::Garbled(why) => Self::Garbled(why),
            car::CarError::Cut => Self::Incomplete,
        }
    }
}

/// Reads an archive until `root` is complete, then gives it its final name. Blocks are verified on
/// a thread of their own: hashing takes longer than writing, and neither should wait.
pub(super) fn receive(
    root: BlockId,
    staging: Staging,
    bytes_max: u64,
    tally: Arc<Tally>,
    pull: impl FnMut() -> Option<Bytes> + Send,
) -> Result<(u64, Kind), AssembleError> {
    let mut assembler = Assembler::new(root, staging, bytes_max, tally);
    let (checked, blocks) = sync_channel(AHEAD_MAX);
    thread::scope(|scope| {
        scope.spawn(move || check_blocks(pull, &checked));
        // Moved in, so that a failure here drops it and thereby ends the other thread.
        let blocks = blocks;
        while !assembler.is_complete() {
            let block = blocks.recv().map_err(|_| AssembleError::Incomplete)??;
            let (id, block) = block.ok_or(AssembleError::Incomplete)?;
            assembler.add(id, block)?;
        }
        Ok::<_, AssembleError>(())
    })?;
    let Assembler { staging, bytes, kind, .. } = assembler;
    staging.finish()?;
    Ok((bytes, kind))
}

/// A verified block; `None` at the end.
type Checked = Result<Option<(BlockId, Bytes)>, car::CarError>;

fn check_blocks(pull: impl FnMut() -> Option<Bytes>, checked: &SyncSender<Checked>) {
    let mut archive = match Reader::new(pull) {
        Ok(archive) => archive,
        Err(fault) => return drop(checked.send(Err(fault))),
    };
    loop {
        let block = archive.next_block();
        let is_last = !matches!(block, Ok(Some(_)));
        if checked.send(block).is_err() || is_last {
            return;
        }
    }
}

/// Where a block's content belongs.
#[derive(Debug, Clone, Copy)]
enum Spot {
    /// The block is this entry, whatever kind it turns out to be.
    Entry(EntryId),
    /// The block holds these bytes of a file.
    Part { file: EntryId, offset: u64, bytes: u64, level: u8 },
    /// The block is a shard of this directory.
    Shard { dir: EntryId, level: u8 },
}

/// Where the content of an earlier block is stored.
#[derive(Debug, Clone, Copy)]
enum Place {
    Data { file: EntryId, offset: u64, len: usize },
    Node { at: u64, len: usize },
}

/// The content of a block.
enum Piece {
    Data(Bytes),
    Node(Bytes),
}

struct Assembler {
    staging: Staging,
    bytes_max: u64,
    bytes: u64,
    /// Progress, shared with the receiver of the blocks.
    tally: Arc<Tally>,
    kind: Kind,
    pending: HashMap<BlockId, Vec<Spot>>,
    pending_spots: usize,
    spots: u64,
    done: HashMap<BlockId, Place>,
    early: Early,
    /// Blocks that are wanted and already here.
    ready: Vec<BlockId>,
}

impl Assembler {
    fn new(root: BlockId, staging: Staging, bytes_max: u64, tally: Arc<Tally>) -> Self {
        Self {
            staging,
            bytes_max,
            bytes: 0,
            tally,
            kind: Kind::File,
            pending: HashMap::from([(root, vec![Spot::Entry(EntryId::ROOT)])]),
            pending_spots: 1,
            spots: 1,
            done: HashMap::new(),
            early: Early::default(),
            ready: Vec::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a verified block.
    fn add(&mut self, id: BlockId, block: Bytes) -> Result<(), Error> {
        if !self.pending.contains_key(&id) {
            // The request asks for a block at each of its places, so a repetition is useful.
            if self.done.contains_key(&id) {
                self.tally.add(block.len());
            } else {
                self.early.keep(id, &block);
            }
            return Ok(());
        }
        self.tally.add(block.len());
        self.place(id, block, true)?;
        // A node that was just placed may want blocks that came early or were placed before.
        while let Some(id) = self.ready.pop() {
            let place = self.done.get(&id).copied();
            if let Some(block) = self.early.take(id) {
                self.tally.add(block.len());
                self.place(id, block, true)?;
            } else if let Some(Place::Node { at, len }) = place {
                let block = self.staging.unspill(at, len)?;
                self.place(id, block.into(), false)?;
            } else if let Some(Place::Data { file, offset, len }) = place {
                let data = self.staging.read(file, offset, len)?.into();
                self.put(id, &Piece::Data(data), false)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, id: BlockId, block: Bytes, is_new: bool) -> Result<(), Error> {
        let piece = match id.codec {
            Codec::Raw => Piece::Data(block),
            Codec::DagPb => match dag::decode(&block).map_err(|why| self.malformed(id, why))? {
                Node { links, content: Content::File { inline, .. } } if links.is_empty() => {
                    Piece::Data(block.slice_ref(inline))
                }
                _ => Piece::Node(block),
            },
        };
        self.put(id, &piece, is_new)
    }

    /// Writes a block's content to every spot that wants it.
    fn put(&mut self, id: BlockId, piece: &Piece, is_new: bool) -> Result<(), Error> {
        let spots = self.pending.remove(&id).unwrap_or_default();
        self.pending_spots -= spots.len();
        let mut place = None;
        match piece {
            Piece::Data(data) => {
                for spot in spots {
                    let (file, offset) = self.put_data(spot, data)?;
                    place = Some(Place::Data { file, offset, len: data.len() });
                }
            }
            Piece::Node(block) => {
                let node = dag::decode(block).map_err(|why| self.malformed(id, why))?;
                if is_new && self.done.len() < DONE_MAX {
                    place = Some(Place::Node { at: self.staging.spill(block)?, len: block.len() });
                }
                for spot in spots {
                    self.put_node(spot, &node)?;
                }
            }
        }
        if let Some(place) = place
            && is_new
            && self.done.len() < DONE_MAX
        {
            self.done.insert(id, place);
        }
        Ok(())
    }

    fn put_data(&mut self, spot: Spot, data: &[u8]) -> Result<(EntryId, u64), Error> {
        match spot {
            Spot::Entry(file) => {
                self.begin_file(file, data.len() as u64)?;
                self.staging.write(file, 0, data)?;
                Ok((file, 0))
            }
            Spot::Part { file, offset, bytes, .. } if bytes == data.len() as u64 => {
                self.staging.write(file, offset, data)?;
                Ok((file, offset))
            }
            Spot::Part { file, .. } => {
                Err(self.unsupported(file, "a part that is not as long as its parent says"))
            }
            Spot::Shard { dir, .. } => Err(self.unsupported(dir, "a shard that is a file")),
        }
    }

    fn put_node(&mut self, spot: Spot, node: &Node<'_>) -> Result<(), Error> {
        match (&node.content, spot) {
            (Content::File { inline, bytes, parts }, Spot::Entry(file)) => {
                self.begin_file(file, *bytes)?;
                self.put_parts((file, 0, 0), node, inline, parts)
            }
            (Content::File { inline, bytes, parts }, Spot::Part { file, offset, level, .. })
                if spot.is_of(*bytes) =>
            {
                self.put_parts((file, offset, level), node, inline, parts)
            }
            (Content::Directory, Spot::Entry(dir)) => {
                self.begin_dir(dir)?;
                for link in &node.links {
                    let entry = self.staging.entry(dir, link.name)?;
                    self.want(link.id, Spot::Entry(entry), dir)?;
                }
                Ok(())
            }
            (Content::Shard { prefix }, Spot::Entry(dir)) => {
                self.begin_dir(dir)?;
                self.put_shard((dir, 0), node, *prefix)
            }
            (Content::Shard { prefix }, Spot::Shard { dir, level }) => {
                self.put_shard((dir, level), node, *prefix)
            }
            (Content::Symlink { target }, Spot::Entry(link)) if link != EntryId::ROOT => {
                self.staging.link(link, target)
            }
            (Content::Symlink { .. }, _) => {
                Err(self.unsupported(spot.entry(), "a symbolic link by itself"))
            }
            _ => Err(self.unsupported(spot.entry(), "a node that does not belong where it is")),
        }
    }

    fn put_parts(
        &mut self,
        (file, mut offset, level): (EntryId, u64, u8),
        node: &Node<'_>,
        inline: &[u8],
        parts: &[u64],
    ) -> Result<(), Error> {
        self.check_level(level, file)?;
        self.staging.write(file, offset, inline)?;
        offset += inline.len() as u64;
        for (link, bytes) in node.links.iter().zip(parts) {
            let part = Spot::Part { file, offset, bytes: *bytes, level: level + 1 };
            self.want(link.id, part, file)?;
            offset += bytes;
        }
        Ok(())
    }

    fn put_shard(
        &mut self,
        (dir, level): (EntryId, u8),
        node: &Node<'_>,
        prefix: usize,
    ) -> Result<(), Error> {
        self.check_level(level, dir)?;
        for link in &node.links {
            let spot = match link.name.split_at_checked(prefix) {
                Some((_, [])) => Spot::Shard { dir, level: level + 1 },
                Some((_, name)) => Spot::Entry(self.staging.entry(dir, name)?),
                None => return Err(self.unsupported(dir, "a shard whose slots have no names")),
            };
            self.want(link.id, spot, dir)?;
        }
        Ok(())
    }

    fn begin_dir(&mut self, dir: EntryId) -> Result<(), Error> {
        if dir == EntryId::ROOT {
            self.kind = Kind::Directory;
        }
        self.staging.create_dir(dir)
    }

    fn begin_file(&mut self, file: EntryId, bytes: u64) -> Result<(), Error> {
        let sum = self.bytes.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.bytes = sum.ok_or(Error::TooLarge { limit_bytes: self.bytes_max })?;
        self.tally.know(self.bytes);
        self.staging.create_file(file)
    }

    fn check_level(&self, level: u8, entry: EntryId) -> Result<(), Error> {
        if level < LEVELS_MAX {
            return Ok(());
        }
        Err(self.unsupported(entry, "too many nodes above one another"))
    }

    fn want(&mut self, id: BlockId, spot: Spot, within: EntryId) -> Result<(), Error> {
        self.pending_spots += 1;
        self.spots += 1;
        if self.pending_spots > PENDING_MAX || self.spots > SPOTS_MAX {
            return Err(self.unsupported(within, "too many blocks at once"));
        }
        let spots = self.pending.entry(id).or_insert_with(|| Vec::with_capacity(1));
        spots.push(spot);
        if spots.len() == 1 && (self.done.contains_key(&id) || self.early.holds(id)) {
            self.ready.push(id);
        }
        Ok(())
    }

    /// The root's CID leads to this block, so the object is at fault, not the gateway.
    fn malformed(&self, id: BlockId, why: Malformed) -> Error {
        let spot = self.pending.get(&id).and_then(|spots| spots.first());
        self.unsupported(spot.map_or(EntryId::ROOT, |spot| spot.entry()), why.0)
    }

    fn unsupported(&self, entry: EntryId, reason: &str) -> Error {
        Error::Unsupported { path: self.staging.shown(entry), reason: reason.into() }
    }
}

impl Spot {
    fn entry(self) -> EntryId {
        match self {
            Self::Entry(entry)
            | Self::Part { file: entry, .. }
            | Self::Shard { dir: entry, .. } => entry,
        }
    }

    fn is_of(self, len: u64) -> bool {
        matches!(self, Self::Part { bytes, .. } if bytes == len)
    }
}

#[cfg(test)]
mod tests;
