//! Small JSON files for facts that the adapter can afford to lose.
//!
//! Invariants: a reader never finds half a file; a file that is missing, too long or broken reads as empty; a
//! failed write costs a debug line.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The content of this file, of which at most `bytes_max` are read.
pub(super) fn read<T: DeserializeOwned + Default>(path: &Path, bytes_max: u64) -> T {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).ok();
    match file.map(|file| file.take(bytes_max).read_to_end(&mut text)) {
        Some(Ok(_)) => serde_json::from_slice(&text).unwrap_or_default(),
        Some(Err(_)) | None => T::default(),
    }
}

/// Writes this text to the file. `what` names the record in the log.
pub(super) async fn write(path: PathBuf, text: Vec<u8>, what: &str) {
    let written = tokio::task::spawn_blocking(move || replace(&path, &text)).await;
    if let Err(err) = written.unwrap_or_else(|err| Err(std::io::Error::other(err))) {
        tracing::debug!("the record of {what} can't be written: {err}");
    }
}

/// Writes a temporary file and renames it to this path.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.persist(path).map(drop).map_err(|err| err.error)
}
