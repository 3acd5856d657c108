//! Room on the disk for a job's end: taken before its container starts, made when it has ended.
//!
//! What must hold: a container that fills the disk takes nothing of what its own end needs, and
//! its end waits for no removal.

use std::io;

use super::Act;
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Exit};
use crate::failpoint;
use crate::host::{self, Room};
use crate::job::Job;

/// What the journal and the notes of a job may need until it is gone.
const MIB_MIN: u64 = 8;
/// The same in files and folders.
const INODES_MIN: u64 = 32;

/// Whether a disk with this room is full, as far as the node's own writing goes.
pub(crate) const fn is_tight(room: Room) -> bool {
    room.mib < MIB_MIN || room.inodes < INODES_MIN
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    /// Takes the room for the job's log, and sees to it that the reserve is whole.
    pub(super) async fn take_room(&self, job: &Job) -> io::Result<()> {
        let (folders, reserve) = (self.folders.of(job), self.folders.reserve.clone());
        let taken = tokio::task::spawn_blocking(move || {
            reserve.keep()?;
            folders.take_log_room()
        });
        taken.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// Keeps the log of a run that has ended. A job may have filled the disk, and the journal lies
    /// on it: what a failed one left goes, and the reserve is given up.
    pub(super) async fn keep_end(&self, job: &Job, exit: &Exit, log: Vec<u8>) -> io::Result<()> {
        let (all, folders) = (self.folders.clone(), self.folders.of(job));
        let (id, is_result) = (job.id().clone(), exit.code == 0);
        let kept = tokio::task::spawn_blocking(move || {
            if host::disk_room(all.root()).is_ok_and(is_tight) {
                tracing::warn!(job.id = %id, "job {id} ended with the disk full: making room");
                all.reserve.spend();
                if !is_result && let Err(err) = folders.empty_output() {
                    tracing::warn!(job.id = %id, "what job {id} left can't be removed: {err}");
                }
            }
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
}
