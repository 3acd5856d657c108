//! What was pulled for jobs: the engine's id of the image, by the name that the job gave it.
//!
//! The id is a hash of the image, so whatever the owner does to the name later, what is found under
//! the id is what the registry gave a stranger. What must hold: losing this record costs one
//! question to a registry, never a job.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Of names kept: a stranger who makes up more costs the others a question each.
const NAMES_MAX: usize = 2048;
/// Of the file; a name and an id are under 700.
const FILE_BYTES_MAX: u64 = 2 << 20;

type Names = BTreeMap<String, String>;

/// The record; read at its first use.
#[derive(Debug, Default)]
pub(super) struct Record {
    path: Option<PathBuf>,
    names: OnceLock<Mutex<Names>>,
}

impl Record {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, names: OnceLock::new() }
    }

    /// The image that was pulled under this name.
    pub(super) fn id_of(&self, name: &str) -> Option<String> {
        self.names().lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Notes it down. A note that can't be written is a debug line: see above.
    pub(super) async fn remember(&self, name: String, id: String) {
        let text = {
            let mut names = self.names().lock().unwrap_or_else(PoisonError::into_inner);
            if names.insert(name, id.clone()).is_some_and(|before| before == id) {
                return;
            }
            while names.len() > NAMES_MAX {
                names.pop_first();
            }
            serde_json::to_vec(&*names).unwrap_or_default()
        };
        let Some(path) = self.path.clone() else { return };
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        if let Err(err) = written.unwrap_or_else(|err| Err(std::io::Error::other(err))) {
            tracing::debug!("what was pulled can't be noted down: {err}");
        }
    }

    fn names(&self) -> &Mutex<Names> {
        self.names.get_or_init(|| Mutex::new(self.path.as_deref().map(read).unwrap_or_default()))
    }
}

fn read(path: &Path) -> Names {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).ok();
    let read = file.map(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    match read {
        Some(Ok(_)) => serde_json::from_slice(&text).unwrap_or_default(),
        Some(Err(_)) | None => Names::new(),
    }
}

/// A whole file or none: what reads it must not find half of it.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.persist(path).map(drop).map_err(|err| err.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_record_outlives_the_process_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.json");
        let record = || Record::new(Some(path.clone()));
        let first = record();
        first.remember("busybox:latest".to_owned(), "sha256:1".to_owned()).await;
        assert_eq!(record().id_of("busybox:latest").as_deref(), Some("sha256:1"));
        for number in 0..=NAMES_MAX {
            let names = first.names();
            names.lock().unwrap().insert(format!("a{number}"), "sha256:2".to_owned());
        }
        first.remember("z:1".to_owned(), "sha256:3".to_owned()).await;
        assert_eq!(record().names().lock().unwrap().len(), NAMES_MAX);
        std::fs::write(&path, "{ broken").unwrap();
        assert_eq!(record().id_of("z:1"), None);
    }
}
