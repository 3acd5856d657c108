//! The upload's form as one stream of bytes, however many files it has.
//!
//! Invariants: only a few pieces read from disk wait in memory, whatever is uploaded; the stream
//! has exactly the announced length, or ends with an error because a file became shorter.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use super::item::Leaf;
use super::local::Tree;
use super::{Error, names};
use crate::http::RequestBuilder;
use crate::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use crate::ids::Cid;
use crate::report::BoxError;

/// Bytes in one piece of the body.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces buffered between disk and network.
const PIECES_MAX: usize = 2;

/// A piece of the body, and the number of file bytes in it.
type Piece = Result<(Vec<u8>, u64), BoxError>;

/// The form that uploads a file or folder under a pin name.
pub(super) struct Form {
    boundary: String,
    /// The fields before the files; `heads` holds the part header of each file.
    intro: String,
    heads: Vec<String>,
    outro: String,
    length: u64,
}

impl Form {
    /// Puts the options first, so that a service that hashes while it reads knows them.
    ///
    /// The boundary is the CID: content that contains its own hash can't be constructed.
    pub(super) fn new(tree: &Tree, name: &str, cid: &Cid) -> Self {
        let boundary = format!("lamda-node-{cid}");
        let text = |key: &str, value: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{key}\"\r\n\r\n{value}\r\n"
            )
        };
        let metadata = serde_json::json!({ "name": name }).to_string();
        let intro =
            text("pinataOptions", r#"{"cidVersion":1}"#) + &text("pinataMetadata", &metadata);
        let files = tree.item.files();
        let head = |path: &[&str]| {
            let file_name = [&[name][..], path].concat().join("/");
            let file_name = names::written(&file_name);
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; \
                 filename=\"{file_name}\"\r\n\r\n"
            )
        };
        let heads: Vec<String> = files.iter().map(|(path, _)| head(path)).collect();
        let outro = format!("--{boundary}--\r\n");
        let frame: usize = heads.iter().map(|head| head.len() + 2).sum();
        let bytes: u64 = files.iter().map(|(_, file)| file.bytes()).sum();
        let length = (intro.len() + frame + outro.len()) as u64 + bytes;
        Self { boundary, intro, heads, outro, length }
    }

    /// Sets this form as the request's body; `sent` grows with the file bytes sent.
    pub(super) fn put_into(
        self,
        request: RequestBuilder,
        tree: Arc<Tree>,
        sent: Arc<AtomicU64>,
    ) -> RequestBuilder {
        let kind = format!("multipart/form-data; boundary={}", self.boundary);
        let request = request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, self.length);
        let (pieces, received) = mpsc::channel(PIECES_MAX);
        // Not awaited: it ends when the receiver is dropped.
        tokio::task::spawn_blocking(move || self.write(&tree, &pieces));
        let body = stream::unfold(received, move |mut received| {
            let sent = Arc::clone(&sent);
            async move {
                let piece = received.recv().await?.map(|(piece, bytes)| {
                    sent.fetch_add(bytes, Ordering::Relaxed);
                    Bytes::from(piece)
                });
                Some((piece, received))
            }
        });
        request.body(crate::http::Body::wrap_stream(body))
    }

    fn write(self, tree: &Tree, pieces: &mpsc::Sender<Piece>) {
        let mut out = Out { pieces, piece: self.intro.into_bytes(), bytes: 0 };
        let written =
            tree.item.files().iter().zip(self.heads).try_for_each(|((path, file), head)| {
                out.put(head.as_bytes())?;
                out.file(tree, path, file)?;
                out.put(b"\r\n")
            });
        let written = written.and_then(|()| out.put(self.outro.as_bytes()));
        match written.and_then(|()| out.flush()) {
            Ok(()) | Err(None) => {}
            // The receiver may be gone already.
            Err(Some(err)) => drop(pieces.blocking_send(Err(err.into()))),
        }
    }
}

struct Out<'a> {
    pieces: &'a mpsc::Sender<Piece>,
    piece: Vec<u8>,
    /// Number of file bytes in `piece`.
    bytes: u64,
}

/// Why writing ended early: the receiver is gone (`None`), or a file can't be read.
type Ended = Option<Error>;

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.piece.extend_from_slice(bytes);
        self.room().map(drop)
    }

    /// Free bytes in the piece, never zero.
    fn room(&mut self) -> Result<usize, Ended> {
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(PIECE_BYTES - self.piece.len())
    }

    fn file(&mut self, tree: &Tree, path: &[&str], leaf: &Leaf) -> Result<(), Ended> {
        let mut file = tree.open_file(path, leaf).map_err(Some)?;
        let mut left = leaf.bytes();
        while left > 0 {
            let most = left.min(self.room()? as u64);
            let read = file.by_ref().take(most).read_to_end(&mut self.piece);
            let read = read.map_err(|err| Some(err.into()))? as u64;
            if read == 0 {
                return Err(Some(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()));
            }
            left -= read;
            self.bytes += read;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let bytes = std::mem::take(&mut self.bytes);
        if piece.is_empty() {
            return Ok(());
        }
        self.pieces.blocking_send(Ok((piece, bytes))).map_err(|_| None)
    }
}
