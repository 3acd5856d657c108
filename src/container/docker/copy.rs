//! Copies a job's output out of an exited container: the engine sends a tar archive.
//!
//! Must hold: the archive's names and entry types come from the job, so they are hostile. Files and folders
//! are written under checked names into a folder that holds no link, with the node's own modes. Symbolic
//! links are created after everything else and never followed here. Bytes and entries are counted before they
//! are written. A device becomes a named pipe, so that the name exists but is not a file.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{ContainerId, Error};
use super::Docker;
use super::fault::{self, EngineError};

/// Most entries: enough for any honest output; each costs an inode on the node's disk.
const ENTRIES_MAX: u64 = 100_000;
/// Deepest nesting of folders, and longest path in bytes: more could not be published.
const DEPTH_MAX: usize = 66;
const PATH_BYTES_MAX: usize = 2048;
/// Most chunks that wait for the disk.
const QUEUE_CHUNKS: usize = 16;

/// Copies `path` into the empty folder `dest`.
pub(super) async fn copy_out(
    docker: &Docker,
    id: &ContainerId,
    path: &str,
    dest: &Path,
    bytes_max: u64,
) -> Result<(), Error> {
    let client = docker.client().await?;
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let archive = client.download_from_container(&id.0, Some(options));
    let (to_disk, from_engine) = mpsc::channel(QUEUE_CHUNKS);
    let dest = dest.to_owned();
    let unpacked =
        tokio::task::spawn_blocking(move || unpack(Chunks::new(from_engine), &dest, bytes_max));
    let limit = docker.config.copy_timeout;
    let sent = timeout(limit, send(archive, to_disk)).await;
    let sent = sent.unwrap_or(Err(EngineError::RequestTimeoutError));
    let unpacked = unpacked.await;
    // If sending failed, the unpacking error is only a consequence.
    sent.map_err(|err| refused(docker, id, path, err))?;
    match unpacked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Unpack::TooLarge)) => Err(Error::TooLarge { path: path.to_owned(), bytes_max }),
        Ok(Err(Unpack::Refused(reason))) => Err(Error::CopyOut { path: path.to_owned(), reason }),
        Ok(Err(Unpack::Io(err))) => Err(Error::Io(err)),
        Err(panicked) => Err(Error::Io(io::Error::other(panicked))),
    }
}

fn refused(docker: &Docker, id: &ContainerId, path: &str, err: EngineError) -> Error {
    match &err {
        EngineError::DockerResponseServerError { status_code: 404, message } => {
            if message.to_ascii_lowercase().contains("no such container") {
                Error::Gone(id.clone())
            } else {
                Error::NoSuchPath { path: path.to_owned() }
            }
        }
        EngineError::DockerResponseServerError { status_code: 400, message } => {
            Error::CopyOut { path: path.to_owned(), reason: fault::one_line(message) }
        }
        _ => docker.fault(err),
    }
}

/// Passes the archive on and marks its end, so that the end differs from a caller that went away. A receiver
/// that went away reports the reason itself.
async fn send(
    archive: impl Stream<Item = Result<Bytes, EngineError>>,
    to_disk: mpsc::Sender<Piece>,
) -> Result<(), EngineError> {
    let mut archive = std::pin::pin!(archive);
    while let Some(bytes) = archive.next().await {
        if to_disk.send(Piece::Bytes(bytes?)).await.is_err() {
            return Ok(());
        }
    }
    to_disk.send(Piece::End).await.ok();
    Ok(())
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// The archive as the unpacking thread reads it.
struct Chunks {
    from_engine: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Chunks {
    fn new(from_engine: mpsc::Receiver<Piece>) -> Self {
        Self { from_engine, rest: Bytes::new(), ended: false }
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.from_engine.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buf.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

#[derive(Debug)]
enum Unpack {
    TooLarge,
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Unpack {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

fn unpack(archive: impl Read, dest: &Path, bytes_max: u64) -> Result<(), Unpack> {
    let mut archive = Archive::new(archive);
    let mut bytes_left = bytes_max;
    let mut entries_left = ENTRIES_MAX;
    let mut links = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries_left = entries_left
            .checked_sub(1)
            .ok_or_else(|| Unpack::Refused(format!("it has more than {ENTRIES_MAX} entries")))?;
        bytes_left = bytes_left.checked_sub(entry.size()).ok_or(Unpack::TooLarge)?;
        write(&mut entry, dest, &mut links)?;
    }
    for (name, target) in links {
        // An earlier link may have taken the place of its folder.
        let parent = name.parent().unwrap_or(Path::new(""));
        let is_folder =
            |part: &Path| dest.join(part).symlink_metadata().is_ok_and(|it| it.is_dir());
        if parent.ancestors().all(is_folder) {
            std::os::unix::fs::symlink(target, dest.join(&name))?;
        }
    }
    Ok(())
}

/// Symbolic links to create at the end: their names and their targets.
type Links = Vec<(PathBuf, PathBuf)>;

fn write(entry: &mut Entry<'_, impl Read>, dest: &Path, links: &mut Links) -> Result<(), Unpack> {
    let name = inside(&entry.path()?)?;
    let target = dest.join(&name);
    match entry.header().entry_type() {
        EntryType::Directory => Ok(DirBuilder::new().recursive(true).create(target)?),
        EntryType::Regular | EntryType::Continuous => {
            // Never write through an entry that exists already.
            let mut file = File::create_new(target)?;
            io::copy(entry, &mut file)?;
            Ok(())
        }
        EntryType::Symlink => {
            let leads_to = entry.link_name()?.unwrap_or_default().into_owned();
            links.push((name, leads_to));
            Ok(())
        }
        EntryType::Link => {
            // Another name of a file earlier in the archive.
            let first = dest.join(inside(&entry.link_name()?.unwrap_or_default())?);
            Ok(std::fs::hard_link(first, target)?)
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            let kind = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, target, kind, mode, 0).map_err(io::Error::from)?;
            Ok(())
        }
        _ => {
            let name = fault::one_line(&name.to_string_lossy());
            Err(Unpack::Refused(format!("`{name}` is neither a file nor a folder")))
        }
    }
}

/// The entry's name if it stays below the folder that it is written to.
fn inside(name: &Path) -> Result<PathBuf, Unpack> {
    let (mut checked, mut depth) = (PathBuf::new(), 0);
    for part in name.components() {
        match part {
            Component::Normal(part) => checked.push(part),
            Component::CurDir => continue,
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                let name = fault::one_line(&name.to_string_lossy());
                return Err(Unpack::Refused(format!("`{name}` leads out of the folder")));
            }
        }
        depth += 1;
        if depth > DEPTH_MAX || checked.as_os_str().len() > PATH_BYTES_MAX {
            return Err(Unpack::Refused("it has too many folders in one another".to_owned()));
        }
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    /// An archive of one entry, whose name is written without checks.
    fn archive(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut archive = Builder::new(Vec::new());
        archive.append(&header, content).unwrap();
        archive.into_inner().unwrap()
    }

    fn unpacked(archive: &[u8], bytes_max: u64) -> (Result<(), Unpack>, tempfile::TempDir) {
        let dest = tempfile::tempdir().unwrap();
        (unpack(archive, dest.path(), bytes_max), dest)
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for (name, kind) in [
            (&b"/etc/cron.d/x"[..], EntryType::Regular),
            (b"../x", EntryType::Regular),
            (b"a/../../x", EntryType::Directory),
            (b"../x", EntryType::Symlink),
            (b"../x", EntryType::Link),
            (b"../x", EntryType::Fifo),
        ] {
            let (told, dest) = unpacked(&archive(name, kind, b""), 100);
            assert!(matches!(told, Err(Unpack::Refused(_))), "{}", name.escape_ascii());
            assert_eq!(std::fs::read_dir(dest.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_link_is_made_when_all_else_is_there_and_nothing_goes_through_it() {
        let mut archive = Builder::new(Vec::new());
        let mut put = |name: &str, kind, target: &str, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if kind == EntryType::Symlink || kind == EntryType::Link {
                archive.append_link(&mut header, name, target).unwrap();
            } else {
                archive.append_data(&mut header, name, content).unwrap();
            }
        };
        let outside = tempfile::tempdir().unwrap();
        let out = outside.path().to_str().unwrap();
        put("first", EntryType::Regular, "", b"1");
        put("second", EntryType::Link, "first", b"");
        put("latest", EntryType::Symlink, "first", b"");
        put("pipe", EntryType::Fifo, "", b"");
        put("trap", EntryType::Symlink, out, b"");
        put("trap/link", EntryType::Symlink, "/etc/passwd", b"");
        let archive = archive.into_inner().unwrap();
        let (told, dest) = unpacked(&archive, 100);
        told.unwrap();
        assert_eq!(std::fs::read(dest.path().join("second")).unwrap(), b"1");
        assert_eq!(std::fs::read_link(dest.path().join("latest")).unwrap(), Path::new("first"));
        assert!(!dest.path().join("pipe").metadata().unwrap().is_file());
        assert_eq!(
            std::fs::read_dir(outside.path()).unwrap().count(),
            0,
            "it went through the link"
        );
        // An entry below a link's name fails, since there is no folder of that name.
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "trap", out).unwrap();
        let mut header = Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "trap/file", &b"x"[..]).unwrap();
        let (told, _) = unpacked(&archive.into_inner().unwrap(), 100);
        assert!(told.is_err());
        assert_eq!(
            std::fs::read_dir(outside.path()).unwrap().count(),
            0,
            "it went through the link"
        );
    }

    #[test]
    fn a_size_beyond_the_limit_is_refused_before_a_byte_is_written() {
        let (told, dest) = unpacked(&archive(b"x", EntryType::Regular, b"1234"), 3);
        assert!(matches!(told, Err(Unpack::TooLarge)));
        assert!(!dest.path().join("x").exists());
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error() {
        let whole = archive(b"x", EntryType::Regular, &[7; 2000]);
        assert!(unpacked(&whole, 2000).0.is_ok());
        assert!(matches!(unpacked(&whole[..1500], 2000).0, Err(Unpack::Io(_))));

        let (sender, receiver) = mpsc::channel(1);
        drop(sender);
        let dest = tempfile::tempdir().unwrap();
        let told = unpack(Chunks::new(receiver), dest.path(), 100);
        assert!(matches!(told, Err(Unpack::Io(_))), "a caller who went away is no end");
    }
}
