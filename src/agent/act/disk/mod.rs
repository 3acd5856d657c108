//! Guards the disk: measures what running jobs write, and stops a job that writes more than it may
//! before the disk is full for all.
//!
//! A job's `disk_mib` limits its inputs, `/output`, the image's volumes, the container's layer and the log
//! together, and also bounds the number of files that it makes. The guard looks at the free space four times
//! a second; it measures the jobs when that drops, and now and then. A job above its limit is stopped at once
//! and without a grace period. If the disk stays full for a second all the same, the job that has written
//! most is stopped, provided that this frees enough. No further job is stopped for a full disk while stopped
//! or ended jobs are about to free space.
//!
//! An engine that can limit a layer itself (`--storage-opt size`) is told to; a job that failed there is
//! measured once more, since it may have reached that limit before a look found it.
//!
//! Invariants: a tree built to be slow to measure costs a bounded time, and its job is stopped first; only a
//! measurement of the current look stops a job; nothing here waits for the journal.

mod eyes;
mod judge;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyes::{Eyes, Known, SHARE, SHARE_IN_HASTE, Seen};
use judge::{Haste, Lack, Looks, Pace, Written, entries_max};

use crate::agent::act::Act;
use crate::agent::jobs::board::{Board, Running};
use crate::agent::jobs::folders::Folders;
use crate::clock::Clock;
use crate::container::{ContainerRuntime, LOG_BYTES_KEPT};
use crate::fleet::kinds;
use crate::host::{self, Room};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::{Run, StopCause};
use crate::supervise::Failure;

/// Time between two looks at the free space: a job can write half a gigabyte to a fast disk meanwhile.
const EVERY: Duration = Duration::from_millis(250);
/// Shortest time between two measurements while free space does not shrink.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Time limit for a stopped job's answer; the job stops even without one.
const ANSWER: Duration = Duration::from_secs(1);
/// Free MiB below which a disk is full, whatever the owner set.
const FULL_MIB_MIN: u64 = 8;

impl Looks {
    /// Whether space is about to be freed, by a stopped job or by the trash.
    fn settles(&mut self, board: &Board, folders: &Folders) -> bool {
        self.stopped.retain(|id| board.is_ending(id));
        !self.stopped.is_empty() || folders.trash.is_being_emptied()
    }
}

/// Watches the disk as long as the node runs; a service. `free_min_mib`: the MiB that the owner wants to keep
/// free; with less than half of it the disk counts as full.
pub(crate) async fn watch<R: ContainerRuntime, C: Clock>(
    act: Arc<Act<R, C>>,
    free_min_mib: u64,
) -> Result<(), Failure> {
    let full_mib = (free_min_mib / 2).max(FULL_MIB_MIN);
    let mut guard = Guard { act: &act, engines: None, are_apart: false, known: Known::new() };
    let (mut looks, mut pace) = (Looks::default(), Pace::default());
    loop {
        act.clock.sleep(EVERY).await;
        let running = act.base.board.running();
        guard.known.retain(|id, _| running.iter().any(|job| job.container == *id));
        if running.is_empty() {
            looks.idle();
            pace = Pace::default();
            continue;
        }
        let rooms = guard.rooms().await?;
        let is_full = Lack::of_first(&rooms, guard.are_apart, full_mib).is_some();
        let left = guard.left(&running);
        // On a full disk every look measures, however long that takes.
        let due = if is_full { Some(Haste::All) } else { pace.due(&rooms, left, Instant::now()) };
        let Some(haste) = due else {
            looks.rested();
            continue;
        };
        let seen = guard.measure(running, haste).await;
        let took = seen.outputs_took;
        let now = Instant::now();
        pace.looked(rooms, now + (took * SHARE).max(MEASURE_EVERY), now + took * SHARE_IN_HASTE);
        // Ask again: jobs may have cleaned up meanwhile. An engine that is away can't stop a job.
        let rooms = if is_full && !seen.is_engine_away { guard.rooms().await? } else { Vec::new() };
        let lack = Lack::of_first(&rooms, guard.are_apart, full_mib);
        let settles = looks.settles(&act.base.board, &act.folders);
        for (id, cause) in looks.judge(&seen.jobs, lack, settles, Instant::now()) {
            stop(&act.base.board, &id, cause, &seen.jobs).await;
        }
    }
}

/// The watch's knowledge, kept from one look to the next.
struct Guard<'a, R, C> {
    act: &'a Act<R, C>,
    /// The folder of the engine's images and containers, once the engine has named it.
    #[expect(clippy::option_option, reason = "not asked yet, and none, are different")]
    engines: Option<Option<PathBuf>>,
    /// Whether that folder is known to be on another file system than the jobs' folders.
    are_apart: bool,
    known: Known,
}

impl<R: ContainerRuntime, C: Clock> Guard<'_, R, C> {
    /// Free space under the jobs' folders and under the engine's.
    async fn rooms(&mut self) -> Result<Vec<Room>, Failure> {
        if self.engines.is_none() {
            self.engines = self.act.runtime.root_folder().await.ok();
            let device = |at: &Path| std::fs::metadata(at).ok().map(|found| found.dev());
            let engines = self.engines.iter().flatten().find_map(|at| device(at));
            let own = device(self.act.folders.root());
            self.are_apart = engines.zip(own).is_some_and(|(engines, own)| engines != own);
        }
        let jobs = host::disk_room(self.act.folders.root());
        let jobs = jobs.map_err(|err| Failure::Again(err.into()))?;
        let engines = self.engines.iter().flatten().filter_map(|at| host::disk_room(at).ok());
        Ok(std::iter::once(jobs).chain(engines).collect())
    }

    /// The least bytes and files that any of these jobs has left.
    fn left(&self, running: &[Running]) -> (u64, u64) {
        let left = |job: &Running| {
            let last = self.known.get(&job.container).map(|known| known.last).unwrap_or_default();
            let entries = entries_max(job.disk_bytes).saturating_sub(last.made());
            (job.disk_bytes.saturating_sub(last.bytes()), entries)
        };
        let least = |a: (u64, u64), b: (u64, u64)| (a.0.min(b.0), a.1.min(b.1));
        running.iter().map(left).fold((u64::MAX, u64::MAX), least)
    }

    /// Measures the jobs. A job that seems to be above its limit because of an earlier measurement of its
    /// layer is measured once more.
    async fn measure(&mut self, running: Vec<Running>, haste: Haste) -> Seen {
        let log_of = |job: &Running| self.act.log_of(&job.id, job.attempt);
        let eyes = self.act.eyes(&log_of);
        let mut seen = eyes.measure(running, &mut self.known, haste).await;
        let is_doubtful = |(job, written): &(Running, Written)| {
            written.is_above(job) && !written.is_surely_above(job)
        };
        let (doubtful, sure): (Vec<_>, Vec<_>) = seen.jobs.into_iter().partition(is_doubtful);
        seen.jobs = sure;
        if !doubtful.is_empty() {
            let doubtful = doubtful.into_iter().map(|(job, _)| job).collect();
            let again = eyes.measure(doubtful, &mut self.known, Haste::All).await;
            seen.is_engine_away |= again.is_engine_away;
            seen.outputs_took += again.outputs_took;
            seen.jobs.extend(again.jobs);
        }
        seen
    }
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    fn eyes<'a>(&'a self, log_of: &'a (dyn Fn(&Running) -> u64 + Sync)) -> Eyes<'a, R> {
        Eyes { runtime: &*self.runtime, folders: &self.folders, node: self.key.address(), log_of }
    }

    /// Bytes of an attempt's log that the engine keeps, as far as this process has read it.
    fn log_of(&self, id: &JobId, attempt: u32) -> u64 {
        let read = self.memory.logs().get(&(id.clone(), attempt)).copied();
        read.unwrap_or_default().min(LOG_BYTES_KEPT)
    }

    /// Whether a job that failed had reached its limit, if the engine limits layers: the job may have failed
    /// because of that before a look found it above its limit. Such an engine can't measure a layer that is
    /// full to the last block (btrfs: each look at it writes), so a layer that it can't measure is full.
    pub(super) async fn met_its_limit(&self, job: &Job, run: &Run) -> bool {
        if !self.runtime.holds_layers(self.key.address()).await {
            return false;
        }
        let job = Running::of(job, &run.container);
        let log_of = |job: &Running| self.log_of(&job.id, job.attempt);
        let eyes = self.eyes(&log_of);
        let seen = eyes.measure(vec![job], &mut Known::new(), Haste::All).await;
        seen.jobs
            .iter()
            .any(|(job, written)| written.is_surely_above(job) || written.is_layer_closed)
    }
}

async fn stop(board: &Board, id: &JobId, cause: StopCause, jobs: &[(Running, Written)]) {
    // Its processes may have ended since they were looked at: what it left is judged when it is collected.
    if !board.running().iter().any(|job| job.id == *id) {
        return;
    }
    let found = jobs.iter().find(|(job, _)| job.id == *id);
    let written = found.map(|(_, written)| *written).unwrap_or_default();
    let limit = found.map(|(job, _)| job.disk_bytes).unwrap_or_default();
    let mib = |bytes: u64| bytes >> 20;
    let Written { output, input, layer, log, .. } = written;
    let entries = written.made();
    let why = match cause {
        StopCause::DiskFull if written.is_whole() => "the disk is full and it has written most",
        StopCause::DiskFull => "the disk is full and what it has written can't be measured",
        _ if entries > entries_max(limit) => "it has made more files than its disk_mib allows",
        _ => "it has written more than its disk_mib",
    };
    tracing::warn!(
        job.id = %id,
        limit_mib = mib(limit),
        input_mib = mib(input),
        output_mib = mib(output),
        layer_mib = mib(layer),
        log_mib = mib(log),
        entries,
        "job {id} is stopped: {why}"
    );
    board.events().tell(kinds::DISK_STOPPED, &format!("job {id} is stopped: {why}"), |event| {
        let event = event.about(id).with("limit_mib", mib(limit)).with("output_mib", mib(output));
        let event = event.with("input_mib", mib(input)).with("layer_mib", mib(layer));
        event.with("log_mib", mib(log)).with("entries", entries)
    });
    tokio::time::timeout(ANSWER, board.stop(id, cause)).await.ok();
}

#[cfg(test)]
mod tests;
