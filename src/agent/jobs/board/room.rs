//! How many more jobs may be taken in, and how large they may be.
//!
//! Invariants: none while the node drains or is not fit; files of jobs in hand, and files of ended jobs that
//! wait for their removal, never make the node look smaller than it is, nor larger than its disk.

use super::{Board, State};
use crate::job::phase::{Fault, Phase};
use crate::job::{Job, JobSpec};
use crate::node::fitness::Unfit;

/// The limit of unpublished results, per slot, and its minimum for small nodes. At the limit the store is
/// slower than the jobs. An unpublished result lies on this node's disk, and its job can't go to another
/// node; so no more jobs are taken until some results are published.
const UNPUBLISHED_PER_SLOT: usize = 4;
pub(super) const UNPUBLISHED_MIN: usize = 16;

impl State {
    /// The number of jobs in hand that have run. A job whose output is the only one that the store refuses
    /// does not count: it says nothing about others.
    fn unpublished(&self) -> usize {
        self.entries.values().filter(|entry| !entry.wants_slot && !entry.oversized).count()
    }

    fn unpublished_max(&self) -> usize {
        (self.terms.offer.slots * UNPUBLISHED_PER_SLOT).max(UNPUBLISHED_MIN)
    }

    /// `Some` if too many results are unpublished: then no job is taken although the host is fit.
    pub(super) fn is_full(&self) -> Option<Unfit> {
        let unpublished = self.unpublished();
        (unpublished >= self.unpublished_max()).then_some(Unfit::Unpublished(unpublished))
    }
}

/// Whether a job has run, or may have, and its files go with it. A kept output stays.
const fn has_files(phase: &Phase) -> bool {
    match phase {
        Phase::Claiming { .. }
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Stopping { .. }
        | Phase::Exited { .. }
        | Phase::Collected { .. }
        | Phase::Published { .. }
        | Phase::Concluding { .. } => true,
        Phase::Ended { outcome } => !outcome.keeps_output(),
        _ => false,
    }
}

impl Board {
    /// How many more jobs may be taken in: the free slots plus `ahead` more to prepare. None while
    /// the node drains or is not fit, which includes too many unpublished results.
    pub fn room(&self, ahead: usize) -> usize {
        let state = self.seen();
        if state.draining || state.unfit.is_some() {
            return 0;
        }
        let (slots, unpublished) = (state.terms.offer.slots, state.unpublished());
        let wanting = state.entries.values().filter(|entry| entry.wants_slot).count();
        let room = (slots + ahead).saturating_sub(wanting);
        room.min((state.unpublished_max() + ahead).saturating_sub(unpublished))
    }

    /// Whether no job is in hand.
    pub fn is_idle(&self) -> bool {
        self.seen().entries.is_empty()
    }

    /// Takes in the disk space that jobs could fill now, in MiB. While jobs are in hand the missing part may
    /// be theirs and come back, so the offer does not shrink then. `is_settled`: before the measurement no
    /// job was in hand and no files of earlier ones were being removed.
    pub fn disk(&self, free_mib: u64, is_settled: bool) {
        let mut state = self.state();
        let is_idle = is_settled && state.entries.is_empty();
        let offer = &mut state.terms.offer;
        let before = offer.disk_mib;
        offer.disk_mib = if is_idle { free_mib } else { free_mib.max(before) };
        let is_changed = offer.disk_mib != before;
        drop(state);
        if is_changed {
            self.notify();
        }
    }

    /// Adds the disk shares of these jobs of an earlier process to the offer: their files are missing in the
    /// measured free space. That does not raise the offer above `max_mib`, the space that jobs can ever fill.
    /// Only the first call counts, since recovery may be repeated.
    pub fn occupied_by(&self, jobs: &[Job], max_mib: u64) {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_written_known, true) {
            return;
        }
        let shares = jobs
            .iter()
            .filter(|job| has_files(&job.phase))
            .map(|job| state.terms.demand(&job.spec).share);
        let written = shares.fold(0_u64, |sum, share| sum.saturating_add(share.disk_mib));
        let offer = &mut state.terms.offer;
        let with_theirs = offer.disk_mib.saturating_add(written).min(max_mib);
        offer.disk_mib = offer.disk_mib.max(with_theirs);
    }

    /// `Err` with the reason if the node can never run the job.
    pub fn admit(&self, spec: &JobSpec) -> Result<(), Fault> {
        self.seen().terms.admit(spec)
    }

    /// The same for a job that was admitted before: it may have to wait for the disk, however full that is.
    pub fn still_admits(&self, spec: &JobSpec) -> Result<(), Fault> {
        let mut terms = self.seen().terms.clone();
        terms.offer.disk_mib = u64::MAX;
        terms.admit(spec)
    }

    /// Whether one more may be taken in. Several sources take jobs concurrently: between
    /// [`Board::wait_for_room`] and a delivery another source may have used the room.
    pub fn has_room(&self, ahead: usize) -> bool {
        self.room(ahead) > 0
    }

    /// Stops taking jobs in, until the node restarts.
    pub fn drain(&self) {
        self.state().draining = true;
        self.notify();
    }

    /// The node is shutting down: no more jobs are taken in, and no open job is resumed.
    pub fn close(&self) {
        self.state().closed = true;
        self.drain();
    }

    /// Whether [`Board::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.seen().closed
    }

    /// Waits until [`Board::drain`] is called.
    pub async fn drained(&self) {
        self.wait_for(|| self.is_draining().then_some(())).await;
    }

    /// Whether [`Board::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.seen().draining
    }

    /// Waits until there is room for more jobs, and returns how many.
    pub async fn wait_for_room(&self, ahead: usize) -> usize {
        self.wait_for(|| Some(self.room(ahead)).filter(|room| *room > 0)).await
    }
}
