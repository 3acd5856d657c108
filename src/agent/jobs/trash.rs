//! Folders that nobody needs any more, on their way out.
//!
//! What a job leaves may be a million files, or a hundred thousand folders in one another: to
//! remove it takes minutes, and may fail. So a folder leaves its job by one rename, and goes later.
//!
//! What must hold: to put a folder here takes no longer for a large one; the job's life does not
//! wait for what becomes of it; what could not be removed is tried again, and holds up nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::folders::private;
use crate::host::tree::{Cleared, Clearing, fresh_name};
use crate::supervise::Failure;

/// Entries that are removed between two looks at whether the program ends.
const STEP_ENTRIES: usize = 1000;
/// How often in one sweep closed folders are opened: each time, those in what was opened before.
const OPENED_MAX: u32 = 100;
/// How often what could not be removed is tried again.
const AGAIN: Duration = Duration::from_mins(10);

/// Its name in the folder of all jobs: no job's id begins like this. It lies there, since that folder
/// may be a file system of its own, or a link to another, and nothing is renamed from one to another.
pub const NAME: &str = ".trash";

/// The folder [`NAME`] of the folder of all jobs. Clones are of the same.
#[derive(Debug, Clone)]
pub struct Trash {
    folder: PathBuf,
    /// Rung when there is something new.
    filled: Arc<Notify>,
    /// There is something that was not looked at yet.
    is_filled: Arc<AtomicBool>,
    is_swept: Arc<AtomicBool>,
}

impl Trash {
    /// Creates the folder, private to the node. What lies there from an earlier life goes, too.
    pub fn create(jobs: &Path) -> io::Result<Self> {
        let folder = jobs.join(NAME);
        private(&folder)?;
        Ok(Self {
            folder,
            filled: Arc::default(),
            is_filled: Arc::default(),
            is_swept: Arc::default(),
        })
    }

    /// Whether what lies here still takes up room that it gives back soon; what can't be removed does
    /// not count.
    pub fn is_being_emptied(&self) -> bool {
        self.is_filled.load(Ordering::SeqCst) || self.is_swept.load(Ordering::SeqCst)
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
                self.is_filled.store(true, Ordering::SeqCst);
                self.filled.notify_one();
                Ok(())
            }
        }
    }

    /// Empties the folder whenever there is something in it; a service. `emptied` is called each
    /// time that something went, and may block.
    ///
    /// `open` is asked to open folders below this one that a container's root closed to the node; says
    /// whether it did.
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
        // What comes from here on may be missed.
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

/// What was opened so far in one sweep.
#[derive(Debug, Default)]
struct Opened {
    times: u32,
    last: BTreeSet<PathBuf>,
}

impl Opened {
    /// Whether it helps to open these: not where the same ones were opened just now, so that something
    /// else keeps them (a file that can't be changed), and not without end.
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
        // Somebody tidied up by hand.
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
