//! A trash for folders that nobody needs any more.
//!
//! A job may leave a million files, or a hundred thousand nested folders: removing them takes
//! minutes, and may fail. So a folder leaves its job by one rename, and is removed later.
//!
//! Invariants: moving a folder here takes the same time whatever its size. No job waits for the
//! removal. What can't be removed is tried again, and delays nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::host;
use crate::host::tree::{Cleared, Clearing, fresh_name};
use crate::supervise::Failure;

/// How many entries one blocking call removes: only between two calls the sweep can be cancelled.
const STEP_ENTRIES: usize = 1000;
/// How often one sweep has closed folders opened; each time may reveal further ones inside.
const OPENED_MAX: u32 = 100;
/// Interval at which the removal of what is left is tried again.
const AGAIN: Duration = Duration::from_mins(10);

/// The name of the trash in the folder of all jobs; no job id begins with a dot. It must lie there,
/// since that folder may be on a file system of its own, and a rename can't cross file systems.
pub const NAME: &str = ".trash";

/// The folder [`NAME`] in the folder of all jobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Trash {
    folder: PathBuf,
    /// Notified when something is added.
    filled: Arc<Notify>,
    /// Whether something was added since the last sweep began.
    is_filled: Arc<AtomicBool>,
    is_swept: Arc<AtomicBool>,
}

impl Trash {
    /// Creates the folder, private to the node. The first sweep removes what an earlier process
    /// left there.
    pub fn create(jobs: &Path) -> io::Result<Self> {
        let folder = jobs.join(NAME);
        host::private_folder(&folder)?;
        Ok(Self {
            folder,
            filled: Arc::default(),
            is_filled: Arc::default(),
            is_swept: Arc::default(),
        })
    }

    /// Whether the trash holds disk space that will be freed soon. What can't be removed does not
    /// count.
    pub fn is_being_emptied(&self) -> bool {
        self.is_filled.load(Ordering::SeqCst) || self.is_swept.load(Ordering::SeqCst)
    }

    /// Moves `path`, a file or folder of the same file system, into the trash by one rename; `Ok`
    /// if it does not exist.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        let to = self.folder.join(fresh_name());
        let taken = match std::fs::rename(path, &to) {
            // The folder itself may have been removed by hand.
            Err(err) if err.kind() == io::ErrorKind::NotFound && !self.folder.exists() => {
                host::private_folder(&self.folder)?;
                std::fs::rename(path, &to)
            }
            taken => taken,
        };
        match taken {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err),
            Ok(()) => {
                self.is_filled.store(true, Ordering::SeqCst);
                self.filled.notify_one();
                Ok(())
            }
        }
    }

    /// Empties the folder whenever there is something in it. A service. `emptied` is called after
    /// each sweep, and may block.
    ///
    /// `open(root, closed)` is asked to make the folders `closed` below `root` accessible, which a
    /// container's root user closed to the node; returns whether it did.
    pub async fn sweep<F: Future<Output = bool>>(
        self,
        emptied: impl Fn() + Clone + Send + Sync + 'static,
        open: impl Fn(PathBuf, Vec<PathBuf>) -> F,
    ) -> Result<(), Failure> {
        loop {
            let swept = self.sweep_once(&open).await;
            self.is_swept.store(false, Ordering::SeqCst);
            swept?;
            blocking(emptied.clone()).await?;
            tokio::time::timeout(AGAIN, self.filled.notified()).await.ok();
        }
    }

    async fn sweep_once<F: Future<Output = bool>>(
        &self,
        open: &impl Fn(PathBuf, Vec<PathBuf>) -> F,
    ) -> Result<(), Failure> {
        let mut tries = Opened::default();
        self.is_swept.store(true, Ordering::SeqCst);
        // This sweep may miss what is added from here on.
        self.is_filled.store(false, Ordering::SeqCst);
        let folder = self.folder.clone();
        let opened = blocking(move || Clearing::of(&folder)).await?;
        let mut clearing = opened.map_err(|err| Failure::Again(err.into()))?;
        loop {
            let (same, cleared) = blocking(move || {
                let cleared = clearing.step(STEP_ENTRIES);
                (clearing, cleared)
            })
            .await?;
            clearing = same;
            match cleared.map_err(|err| Failure::Again(err.into()))? {
                Cleared::More => {}
                Cleared::All => return Ok(()),
                Cleared::Stuck(err) => {
                    let closed = clearing.take_closed();
                    if tries.is_worth(&closed)
                        && open(self.folder.clone(), closed.into_iter().collect()).await
                    {
                        continue;
                    }
                    let folder = self.folder.display();
                    tracing::warn!("some of what jobs left in {folder} can't be removed: {err}");
                    return Ok(());
                }
            }
        }
    }
}

/// The folders that one sweep has had opened so far.
#[derive(Debug, Default)]
struct Opened {
    times: u32,
    last: BTreeSet<PathBuf>,
}

impl Opened {
    /// Whether it is worth opening these. Not if the same ones were opened just before: then their
    /// mode is not what stops the removal (it may be an immutable file). Not more than
    /// [`OPENED_MAX`] times.
    fn is_worth(&mut self, closed: &BTreeSet<PathBuf>) -> bool {
        let is_worth = !closed.is_empty() && *closed != self.last && self.times < OPENED_MAX;
        self.times += 1;
        self.last.clone_from(closed);
        is_worth
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|err| Failure::Again(err.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_closed_is_opened_once_and_nothing_without_end() {
        let of = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let mut opened = Opened::default();
        assert!(!opened.is_worth(&of(&[])));
        assert!(opened.is_worth(&of(&["a", "b"])));
        assert!(opened.is_worth(&of(&["a/c"])));
        assert!(!opened.is_worth(&of(&["a/c"])), "it is not its mode");
        let rounds = (0..1000).filter(|round| opened.is_worth(&of(&[&round.to_string()])));
        assert!(rounds.count() < OPENED_MAX as usize);
    }

    #[tokio::test]
    async fn what_is_taken_is_out_of_the_way_at_once_and_gone_soon() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::create(dir.path()).unwrap();
        let (gone, none) = (dir.path().join("gone"), dir.path().join("none"));
        std::fs::create_dir_all(gone.join("a/b/c")).unwrap();
        trash.take(&none).unwrap();
        // The owner removed the trash by hand.
        std::fs::remove_dir(dir.path().join(NAME)).unwrap();
        assert!(!trash.is_being_emptied());
        trash.take(&gone).unwrap();
        assert!(!gone.exists() && trash.is_being_emptied());
        let (said, told) = tokio::sync::oneshot::channel();
        let said = Arc::new(std::sync::Mutex::new(Some(said)));
        let emptied = move || {
            if let Some(said) = said.lock().unwrap().take() {
                said.send(()).unwrap();
            }
        };
        let is_swept = async {
            told.await.unwrap();
            while trash.is_being_emptied() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = trash.clone().sweep(emptied, |_, _| std::future::ready(false)) => panic!("{end:?}"),
            () = is_swept => {}
        }
        assert_eq!(std::fs::read_dir(dir.path().join(NAME)).unwrap().count(), 0);
    }
}
