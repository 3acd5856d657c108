//! Folders that nobody needs any more, on their way out.
//!
//! What a job leaves may be a million files, or a hundred thousand folders in one another: to
//! remove it takes minutes, and may fail. So a folder leaves its job by one rename, and goes later.
//!
//! What must hold: to put a folder here takes no longer for a large one; the job's life does not
//! wait for what becomes of it; what could not be removed is tried again, and holds up nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::folders::private;
use crate::host::tree::{Cleared, Clearing, fresh_name};
use crate::supervise::Failure;

/// Entries that are removed between two looks at whether the program ends.
const STEP_ENTRIES: usize = 1000;
/// How often what could not be removed is tried again.
const AGAIN: Duration = Duration::from_mins(10);

/// The folder `trash/` of the data folder. Clones are of the same.
#[derive(Debug, Clone)]
pub struct Trash {
    folder: PathBuf,
    /// Rung when there is something new.
    filled: Arc<Notify>,
}

impl Trash {
    /// Creates the folder, private to the node. What lies there from an earlier life goes, too.
    pub fn create(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("trash");
        private(&folder)?;
        Ok(Self { folder, filled: Arc::default() })
    }

    /// Takes `path`, a file or folder of the same file system, out of the way; `Ok` where there is
    /// none. At most one is ever half taken: none.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        let to = self.folder.join(fresh_name());
        let taken = match std::fs::rename(path, &to) {
            // The folder itself may have been removed by hand.
            Err(err) if err.kind() == io::ErrorKind::NotFound && !self.folder.exists() => {
                private(&self.folder)?;
                std::fs::rename(path, &to)
            }
            taken => taken,
        };
        match taken {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err),
            Ok(()) => {
                self.filled.notify_one();
                Ok(())
            }
        }
    }

    /// Empties the folder whenever there is something in it; a service. `emptied` is called each
    /// time that something went.
    pub async fn sweep(self, emptied: impl Fn() + Send) -> Result<(), Failure> {
        loop {
            let mut clearing =
                Clearing::of(&self.folder).map_err(|err| Failure::Again(err.into()))?;
            loop {
                let step = tokio::task::spawn_blocking(move || {
                    let cleared = clearing.step(STEP_ENTRIES);
                    (clearing, cleared)
                });
                let (same, cleared) = step.await.map_err(|err| Failure::Again(err.into()))?;
                clearing = same;
                match cleared.map_err(|err| Failure::Again(err.into()))? {
                    Cleared::More => {}
                    Cleared::All => break,
                    Cleared::Stuck(err) => {
                        let folder = self.folder.display();
                        tracing::warn!(
                            "some of what jobs left in {folder} can't be removed: {err}"
                        );
                        break;
                    }
                }
            }
            emptied();
            tokio::time::timeout(AGAIN, self.filled.notified()).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_is_out_of_the_way_at_once_and_gone_soon() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::create(dir.path()).unwrap();
        let (gone, none) = (dir.path().join("gone"), dir.path().join("none"));
        std::fs::create_dir_all(gone.join("a/b/c")).unwrap();
        trash.take(&none).unwrap();
        // Somebody tidied up by hand.
        std::fs::remove_dir(dir.path().join("trash")).unwrap();
        trash.take(&gone).unwrap();
        assert!(!gone.exists());
        let (said, told) = tokio::sync::oneshot::channel();
        let said = std::sync::Mutex::new(Some(said));
        let emptied = move || {
            if let Some(said) = said.lock().unwrap().take() {
                said.send(()).unwrap();
            }
        };
        tokio::select! {
            end = trash.clone().sweep(emptied) => panic!("{end:?}"),
            told = told => told.unwrap(),
        }
        assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    }
}
