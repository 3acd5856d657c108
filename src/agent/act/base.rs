//! What carrying jobs out shares with the other parts of the node, and what it remembers between steps.

use super::pull::Pulls;
use super::{
    Board, Domain, HashMap, HashSet, JobId, Link, Mutex, PathBuf, PoisonError, Terms, Uploads,
    watch,
};

/// What the act shares with the other parts of the node.
#[derive(Debug)]
pub(crate) struct Base {
    /// The node's slots and GPUs, and the jobs that hold them.
    pub board: Board,
    /// The connection to NATS.
    pub link: Link,
    /// What the node offers, and what a job gets by default.
    pub terms: Terms,
    /// The domain of receipts; known once the chain has answered.
    pub domain: watch::Receiver<Option<Domain>>,
    /// The driver and its CUDA version, for errors about images that want a newer one.
    pub driver: String,
}

/// What this process remembers of its jobs; a restart forgets it without harm.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Live log lines published so far, by job and attempt: a new follow reads all lines again.
    pub(super) lines: Mutex<HashMap<(JobId, u32), u64>>,
    /// Bytes read of each attempt's log.
    pub(super) logs: Mutex<HashMap<(JobId, u32), u64>>,
    /// Attempts that this process started and the monitor was not told of yet.
    pub(super) fresh: Mutex<HashSet<(JobId, u32)>>,
    /// Parts of the jobs' results that are uploaded already.
    pub(super) uploads: Mutex<HashMap<JobId, Uploads>>,
    /// Inputs that this process fetched and verified, with their sizes in bytes.
    pub(super) fetched: Mutex<HashMap<PathBuf, u64>>,
    /// The pulls that go on while their jobs tell how far they are.
    pub(super) pulls: Pulls,
}

impl Memory {
    pub(super) fn fetched(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uploads(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Uploads>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn logs(&self) -> std::sync::MutexGuard<'_, HashMap<(JobId, u32), u64>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fresh(&self) -> std::sync::MutexGuard<'_, HashSet<(JobId, u32)>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<(JobId, u32), u64>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
