//! Disk space for a job's end: taken before its container starts, freed after it has ended.
//!
//! Invariants: a container that fills the disk can't take the space that its own end needs; a job's
//! end waits for no removal; a new job takes no space that was freed for others to end.

use std::io;
use std::path::PathBuf;

use super::Act;
use crate::agent::jobs::reserve::{is_full, is_tight};
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime, EndedBy, Exit};
use crate::job::Job;
use crate::job::phase::{Phase, Run, Sealed, StopCause};
use crate::report::causes;
use crate::{failpoint, host};

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    /// Takes the space for the job's log after making sure that the reserve is whole. Takes nothing
    /// of a full disk, which is an error.
    pub(super) async fn take_room(&self, job: &Job) -> io::Result<()> {
        let (all, folders) = (self.folders.clone(), self.folders.of(job));
        let taken = tokio::task::spawn_blocking(move || {
            all.reserve.keep()?;
            if is_tight(host::disk_room(all.root())?) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            folders.take_log_room()
        });
        taken.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// Keeps the log of a run that has ended. On a full disk, which holds the journal too, gives up
    /// the reserve first. Discards the output of a failed run if the disk is full or the run was
    /// stopped for it.
    pub(super) async fn keep_end(&self, job: &Job, exit: &Exit, log: Vec<u8>) -> io::Result<()> {
        let (all, folders) = (self.folders.clone(), self.folders.of(job));
        let was_stopped =
            matches!(&job.phase, Phase::Stopping { cause, .. } if cause.is_the_disk());
        // Exit code 0 in answer to the stop signal is no result.
        let is_result =
            exit.code == 0 && !(was_stopped && matches!(exit.ended_by, EndedBy::Engine));
        let id = job.id().clone();
        let is_tight = tokio::task::spawn_blocking(move || {
            let is_tight = host::disk_room(all.root()).is_ok_and(is_tight);
            if is_tight {
                tracing::warn!(job.id = %id, "job {id} ended with the disk full: making room");
                all.reserve.spend();
            }
            is_tight
        });
        let is_tight = is_tight.await.unwrap_or(false);
        if (is_tight || was_stopped) && !is_result {
            self.discard_output(job).await;
        }
        let id = job.id().clone();
        let kept = tokio::task::spawn_blocking(move || {
            if log.is_empty() {
                return folders.keep_log(&log);
            }
            tracing::debug!(job.id = %id, bytes = log.len(), "job {id}: log kept");
            failpoint::hit("keep_log", ".before");
            let kept = folders.keep_log(&log);
            failpoint::hit("keep_log", ".after");
            kept
        });
        kept.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// Removes what the job wrote to `/output`. Its root may have closed that folder to a node that is not
    /// root itself: a folder that its user can't write to can't be moved away before the engine opened it.
    async fn discard_output(&self, job: &Job) {
        let discard = || {
            let folders = self.folders.of(job);
            tokio::task::spawn_blocking(move || folders.discard_output())
        };
        let mut done = discard().await.unwrap_or_else(|err| Err(io::Error::other(err)));
        if done.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::PermissionDenied) {
            let output = self.folders.of(job).output();
            if let (Some(top), Some(name)) = (output.parent(), output.file_name()) {
                let closed = [PathBuf::from(name)];
                if let Err(err) = self.runtime.open_folders(job.node, top, &closed).await {
                    tracing::debug!(job.id = %job.id(), "{}", causes(&err));
                }
            }
            done = discard().await.unwrap_or_else(|err| Err(io::Error::other(err)));
        }
        if let Err(err) = done {
            let id = job.id();
            tracing::warn!(job.id = %id, "what job {id} left can't be removed: {err}");
        }
    }

    /// Removes the container of a job that was stopped for what it wrote. Its layer is of no use,
    /// and others need the space, however long the rest of the job's end takes.
    pub(super) async fn give_layer_back(&self, job: &Job, run: &Run, cause: Option<StopCause>) {
        if !cause.is_some_and(StopCause::is_the_disk) {
            return;
        }
        let container = ContainerId(run.container.clone());
        if let Err(err) = self.runtime.remove(&container).await {
            let id = job.id();
            tracing::warn!(job.id = %id, "job {id} keeps its layer for now: {}", causes(&err));
        }
    }

    /// Syncs a sealed output and notes that it is synced. If the disk is full, gives up the reserve
    /// for it.
    pub(super) async fn note_sealed(&self, job: &Job, sealed: &Sealed) -> io::Result<()> {
        let folders = self.folders.of(job);
        match folders.note_sealed_output(sealed.clone()).await {
            Err(err) if is_full(&err) => {
                let id = job.id();
                tracing::warn!(job.id = %id, "job {id} has a result and the disk is full");
                let reserve = self.folders.reserve.clone();
                tokio::task::spawn_blocking(move || reserve.spend()).await.ok();
                folders.note_sealed_output(sealed.clone()).await
            }
            noted => noted,
        }
    }
}
