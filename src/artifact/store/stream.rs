//! Response bodies that are read from disk on a blocking thread and sent as they are read.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use super::super::dag::{self, BlockId, Codec};
use super::super::{Error, car};
use super::objects::{Objects, Record, Skeleton};
use crate::web::body::Body;

/// Bytes sent at a time: enough to keep the number of disk and socket calls low.
const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces buffered for a slow client.
const PIECES_MAX: usize = 2;
/// Maximum nesting of directories in an archive; uploads are limited to less.
const DEPTH_MAX: usize = 256;

/// How much of an object an archive holds (`dag-scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The root block only.
    Block,
    /// The whole file, or the directory without its entries.
    Entity,
    /// The object with everything below it.
    All,
}

/// The flat bytes `start..start + len` of a file.
pub(super) fn flat(objects: &Arc<Objects>, id: BlockId, start: u64, len: u64) -> Body {
    let objects = Arc::clone(objects);
    body(move |out| {
        let mut file = objects.data(id)?;
        file.seek(SeekFrom::Start(start))?;
        let mut left = len;
        while left > 0 {
            out.read(&mut file, left.min(PIECE_BYTES as u64))?;
            left = left.saturating_sub(PIECE_BYTES as u64);
            out.flush()?;
        }
        Ok(())
    })
}

/// The archive of an object, after the nodes of the directories `above` that lead to it.
pub(super) fn archive(
    objects: &Arc<Objects>,
    above: Vec<(BlockId, Skeleton)>,
    (id, skeleton): (BlockId, Skeleton),
    scope: Scope,
) -> Body {
    let objects = Arc::clone(objects);
    body(move |out| {
        let (root, version) =
            above.first().map_or((id, skeleton.version), |(root, above)| (*root, above.version));
        out.put(&car::header(root, version));
        for (id, directory) in &above {
            out.object(&objects, *id, directory, Scope::Entity, 0)?;
        }
        out.object(&objects, id, &skeleton, scope, 0)?;
        out.flush()
    })
}

/// The root block of an object.
pub(super) fn root_block(
    objects: &Objects,
    id: BlockId,
    skeleton: &Skeleton,
) -> Result<Bytes, Error> {
    match skeleton.records.first() {
        Some(Record::Node { block, .. }) => Ok(block.clone()),
        Some(Record::Leaf { bytes, .. }) => {
            let mut block = Vec::new();
            put_leaf(&mut block, &mut objects.data(id)?, id, *bytes)?;
            Ok(block.into())
        }
        _ => Ok(Bytes::new()),
    }
}

/// Runs `read` on a blocking thread. Its output becomes the body; an error breaks the body off.
fn body(read: impl FnOnce(&mut Out) -> Result<(), Error> + Send + 'static) -> Body {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    // Not awaited: once the body is dropped, sending fails and ends it.
    drop(tokio::task::spawn_blocking(move || {
        let mut out = Out { pieces, piece: Vec::with_capacity(PIECE_BYTES) };
        if let Err(err) = read(&mut out) {
            out.pieces.blocking_send(Err(std::io::Error::other(err))).ok();
        }
    }));
    Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// The sending end of a body.
struct Out {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    piece: Vec<u8>,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
    }

    fn read(&mut self, file: &mut File, len: u64) -> Result<(), Error> {
        read_exact(&mut self.piece, file, len)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES + 4096));
        let gone = |_| Error::Io(std::io::ErrorKind::BrokenPipe.into());
        self.pieces.blocking_send(Ok(piece.into())).map_err(gone)
    }

    fn object(
        &mut self,
        objects: &Objects,
        id: BlockId,
        skeleton: &Skeleton,
        scope: Scope,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::Io(std::io::ErrorKind::InvalidData.into()));
        }
        let mut data = None;
        for record in &skeleton.records {
            match record {
                Record::Node { id, block } => {
                    self.put(&car::section_head(*id, skeleton.version, block.len()));
                    self.put(block);
                }
                Record::Leaf { id: leaf, bytes } => {
                    let len = super::objects::leaf_block_bytes(*leaf, *bytes as usize);
                    self.put(&car::section_head(*leaf, skeleton.version, len));
                    let data = match &mut data {
                        Some(data) => data,
                        none => none.insert(objects.data(id)?),
                    };
                    put_leaf(&mut self.piece, data, *leaf, *bytes)?;
                }
                Record::Entry { id } if scope == Scope::All => {
                    let entry = objects.find(*id)?;
                    let entry = entry.ok_or(Error::Io(std::io::ErrorKind::NotFound.into()))?;
                    self.object(objects, *id, &entry, scope, depth + 1)?;
                }
                Record::Entry { .. } => {}
            }
            if self.piece.len() >= PIECE_BYTES - 256 * 1024 {
                self.flush()?;
            }
            if scope == Scope::Block {
                break;
            }
        }
        Ok(())
    }
}

fn put_leaf(out: &mut Vec<u8>, data: &mut File, id: BlockId, bytes: u32) -> Result<(), Error> {
    if id.codec == Codec::Raw {
        return read_exact(out, data, u64::from(bytes));
    }
    let (before, after) = dag::leaf_frame(bytes as usize);
    out.extend_from_slice(&before);
    read_exact(out, data, u64::from(bytes))?;
    out.extend_from_slice(&after);
    Ok(())
}

fn read_exact(out: &mut Vec<u8>, file: &mut File, len: u64) -> Result<(), Error> {
    if file.take(len).read_to_end(out)? as u64 == len {
        return Ok(());
    }
    Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()))
}
