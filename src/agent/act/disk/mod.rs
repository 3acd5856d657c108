//! Guards the disk: measures what running jobs write, and stops a job that writes more than it may
//! before the disk is full for all.
//!
//! A job's `disk_mib` limits each of two places: `/output` together with the image's volumes, and
//! the container's layer. If the disk runs full all the same, the job that has written most is
//! stopped, provided that this frees enough. Both take two looks in a row, to spare a job that is
//! about to end or to clean up. No further job is stopped for a full disk while stopped or ended
//! jobs are about to free space.
//!
//! Invariants: a tree built to be slow to measure costs a bounded time, and its job is stopped
//! first; a job is judged only by measurements of the current look; nothing here waits for the
//! journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::agent::act::Act;
use crate::agent::jobs::board::{Board, Running};
use crate::agent::jobs::folders::{Folders, JobFolders};
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime, Error as EngineError};
use crate::host::{self, Room, tree};
use crate::ids::{Address, JobId};
use crate::job::phase::StopCause;
use crate::supervise::Failure;

/// Time between two looks, in which a fast disk takes a few gigabytes.
const EVERY: Duration = Duration::from_secs(1);
/// While the disk has room, at most one part in so many of the time is spent measuring.
const SHARE: u32 = 20;
/// Jobs measured at the same time: the engine walks through each layer.
const AT_ONCE: usize = 4;
/// Entries counted in one look at a job's output, and again at its volumes; far more than can be
/// published.
const ENTRIES_MAX: u64 = 200_000;
/// Time limit for one look at a job's output, and again at its volumes.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Time limit for the engine to measure a layer.
const LAYER_MAX: Duration = Duration::from_secs(10);
/// Time limit for an easy request, which shows whether the engine answers at all.
const ENGINE: Duration = Duration::from_secs(2);
/// Time limit for a stopped job's answer; the job stops even without one.
const ANSWER: Duration = Duration::from_secs(1);
/// How long stopped jobs and the trash may take to free space before another job is stopped.
const SETTLE_MAX: Duration = Duration::from_mins(1);
/// Free MiB below which a disk is full, whatever the owner set.
const FULL_MIB_MIN: u64 = 8;
/// Free inodes below which a disk is full.
const FULL_INODES: u64 = 1024;

/// What a job has written, as far as this look could measure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Written {
    output: u64,
    entries: u64,
    /// Bytes in the container's layer; `None` if they were not or could not be measured. The engine
    /// reports no number of files.
    layer: Option<u64>,
    is_whole: bool,
}

impl Written {
    fn bytes(&self) -> u64 {
        self.output.saturating_add(self.layer.unwrap_or(0))
    }
}

/// What the previous looks found, for comparison with the next one.
#[derive(Debug, Default)]
struct Looks {
    output_above: Vec<JobId>,
    layer_above: Vec<JobId>,
    was_full: bool,
    /// Jobs that were stopped and may still hold space.
    stopped: Vec<JobId>,
    /// Since when a full disk has been waiting for those jobs or the trash to free space.
    waits_since: Option<Instant>,
}

impl Looks {
    /// The jobs to stop after this look, and why. `settles`: space is about to be freed.
    fn judge(
        &mut self,
        jobs: &[(Running, Written)],
        lack: Option<Lack>,
        settles: bool,
        now: Instant,
    ) -> Vec<(JobId, StopCause)> {
        let mut stops = self.exceeded(jobs);
        let waits = self.waits(settles && lack.is_some(), now);
        let lack = lack.filter(|_| !waits);
        if stops.is_empty()
            && self.was_full
            && let Some(lack) = lack
            && let Some(id) = greediest(jobs, lack)
        {
            stops.push((id, StopCause::DiskFull));
        }
        self.was_full = lack.is_some() && stops.is_empty();
        if !stops.is_empty() {
            self.waits_since = None;
            self.stopped.extend(stops.iter().map(|(id, _)| id.clone()));
        }
        stops
    }

    /// The jobs above their limit in one place for the second time. A layer that was not measured
    /// keeps its last finding.
    fn exceeded(&mut self, jobs: &[(Running, Written)]) -> Vec<(JobId, StopCause)> {
        let (mut output_above, mut layer_above, mut stops) = (Vec::new(), Vec::new(), Vec::new());
        for (job, written) in jobs {
            let knew = |list: &[JobId]| list.contains(&job.id);
            let output = written.output > job.disk_bytes;
            let layer = written.layer.map(|bytes| bytes > job.disk_bytes);
            if output && knew(&self.output_above) || layer == Some(true) && knew(&self.layer_above)
            {
                stops.push((job.id.clone(), StopCause::DiskExceeded));
            }
            if output {
                output_above.push(job.id.clone());
            }
            if layer.unwrap_or_else(|| knew(&self.layer_above)) {
                layer_above.push(job.id.clone());
            }
        }
        (self.output_above, self.layer_above) = (output_above, layer_above);
        stops
    }

    /// Whether to keep waiting for space that is about to be freed.
    fn waits(&mut self, is_due: bool, now: Instant) -> bool {
        if !is_due {
            self.waits_since = None;
            return false;
        }
        now.duration_since(*self.waits_since.get_or_insert(now)) < SETTLE_MAX
    }

    /// Notes a look at a disk with room, in which nothing was measured.
    fn rested(&mut self) {
        (self.was_full, self.waits_since) = (false, None);
    }

    /// Notes a look in which no job runs.
    fn idle(&mut self) {
        *self = Self { stopped: std::mem::take(&mut self.stopped), ..Self::default() };
    }

    /// Whether space is about to be freed, by a stopped job or by the trash.
    fn settles(&mut self, board: &Board, folders: &Folders) -> bool {
        self.stopped.retain(|id| board.is_ending(id));
        !self.stopped.is_empty() || folders.trash.is_being_emptied()
    }
}

/// What a full disk lacks to be usable again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lack {
    bytes: u64,
    inodes: u64,
}

impl Lack {
    /// `None` if the disk has enough room.
    fn of(room: Room, full_mib: u64) -> Option<Self> {
        let bytes = full_mib.saturating_sub(room.mib) << 20;
        let inodes = FULL_INODES.saturating_sub(room.inodes);
        (bytes > 0 || inodes > 0).then_some(Self { bytes, inodes })
    }
}

/// The job that has written most, of those whose end frees what is lacking. One that can't be
/// measured counts as larger than any other.
fn greediest(jobs: &[(Running, Written)], lack: Lack) -> Option<JobId> {
    let weight = |written: &Written| {
        let amount = if lack.bytes > 0 { written.bytes() } else { written.entries };
        (!written.is_whole, amount)
    };
    let helps = |written: &Written| {
        !written.is_whole || (written.bytes() >= lack.bytes && written.entries >= lack.inodes)
    };
    let most = jobs.iter().filter(|(_, written)| helps(written));
    most.max_by_key(|(_, written)| weight(written)).map(|(job, _)| job.id.clone())
}

/// Watches the disk as long as the node runs; a service. `free_min_mib` is what the owner wants to
/// stay free, in MiB: with less than half of it the disk counts as full.
pub(crate) async fn watch<R: ContainerRuntime, C: Clock>(
    act: Arc<Act<R, C>>,
    free_min_mib: u64,
) -> Result<(), Failure> {
    let full_mib = (free_min_mib / 2).max(FULL_MIB_MIN);
    let lack = || match host::disk_room(act.folders.root()) {
        Ok(room) => Ok(Lack::of(room, full_mib)),
        Err(err) => Err(Failure::Again(err.into())),
    };
    let (mut looks, mut layers) = (Looks::default(), Layers::new());
    let mut rests_until = Instant::now();
    loop {
        act.clock.sleep(EVERY).await;
        let running = act.base.board.running();
        layers.retain(|id, _| running.iter().any(|job| job.container == *id));
        if running.is_empty() {
            looks.idle();
            continue;
        }
        let is_full = lack()?.is_some();
        if !is_full && Instant::now() < rests_until {
            looks.rested();
            continue;
        }
        // On a full disk every look measures, however long that takes.
        let eyes = Eyes { runtime: &*act.runtime, folders: &act.folders, node: act.key.address() };
        let seen = eyes.measure(running, &mut layers, is_full).await;
        rests_until = Instant::now() + seen.outputs_took * SHARE;
        // Ask again: jobs may have cleaned up meanwhile. An engine that is away can't stop a job.
        let lack = if is_full && !seen.is_engine_away { lack()? } else { None };
        let settles = looks.settles(&act.base.board, &act.folders);
        for (id, cause) in looks.judge(&seen.jobs, lack, settles, Instant::now()) {
            stop(&act.base.board, &id, cause, &seen.jobs).await;
        }
    }
}

/// When each container's layer is due to be measured again.
type Layers = HashMap<String, Instant>;

/// The measurements of one look.
#[derive(Debug, Default)]
struct Seen {
    jobs: Vec<(Running, Written)>,
    outputs_took: Duration,
    is_engine_away: bool,
}

/// The measurement of one job.
#[derive(Debug)]
struct Look {
    job: Running,
    output: tree::Usage,
    output_took: Duration,
    layer: Layer,
    layer_took: Duration,
}

/// The engine's answer about a container's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Bytes(u64),
    /// It was not asked. To measure a layer it walks through all of it, so slow ones are measured
    /// seldom.
    NotDue,
    /// It could not measure the layer, or not in time.
    TooLong,
    /// The container is gone.
    Gone,
    /// The engine does not answer.
    Away,
}

/// The parts that a look needs.
struct Eyes<'a, R> {
    runtime: &'a R,
    folders: &'a Folders,
    node: Address,
}

impl<R: ContainerRuntime> Eyes<'_, R> {
    /// Measures what each job has written; its layer only if that is due, or with `all`.
    async fn measure(&self, running: Vec<Running>, layers: &mut Layers, all: bool) -> Seen {
        let now = Instant::now();
        let looks: Vec<_> = running
            .into_iter()
            .map(|job| {
                let is_due = all || layers.get(&job.container).is_none_or(|due| *due <= now);
                self.look_at(job, is_due)
            })
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        let (mut seen, mut too_long) = (Seen::default(), false);
        while let Some(Look { job, output, output_took, layer, layer_took }) = looks.next().await {
            seen.outputs_took += output_took;
            if layer != Layer::NotDue {
                let rest = (layer_took * SHARE).max(EVERY);
                layers.insert(job.container.clone(), Instant::now() + rest);
            }
            let bytes = match layer {
                Layer::Bytes(bytes) => Some(bytes),
                Layer::NotDue | Layer::TooLong | Layer::Away => None,
                // Nothing of the job runs any more, so there is nothing to stop.
                Layer::Gone => continue,
            };
            too_long |= layer == Layer::TooLong;
            seen.is_engine_away |= layer == Layer::Away;
            let written = Written {
                output: output.bytes,
                entries: output.entries,
                layer: bytes,
                is_whole: output.is_whole && layer != Layer::TooLong,
            };
            seen.jobs.push((job, written));
        }
        // Tell a layer that is too large to measure from an engine that answers nothing.
        if too_long {
            let easy = tokio::time::timeout(ENGINE, self.runtime.list(self.node)).await;
            seen.is_engine_away |= !matches!(easy, Ok(Ok(_)));
        }
        seen
    }

    async fn look_at(&self, job: Running, is_due: bool) -> Look {
        let begun = Instant::now();
        let output = output_of(self.folders, &job).await;
        let output_took = begun.elapsed();
        let begun = Instant::now();
        let layer = if is_due { self.layer_of(&job.container).await } else { Layer::NotDue };
        Look { job, output, output_took, layer, layer_took: begun.elapsed() }
    }

    async fn layer_of(&self, container: &str) -> Layer {
        let id = ContainerId(container.to_owned());
        match tokio::time::timeout(LAYER_MAX, self.runtime.written(&id)).await {
            Ok(Ok(bytes)) => Layer::Bytes(bytes),
            Ok(Err(EngineError::Gone(_))) => Layer::Gone,
            Ok(Err(EngineError::Unreachable { .. })) => Layer::Away,
            Ok(Err(_)) | Err(_) => Layer::TooLong,
        }
    }
}

async fn output_of(folders: &Folders, job: &Running) -> tree::Usage {
    let folders = folders.of_attempt(&job.id, job.attempt);
    let measured = tokio::task::spawn_blocking(move || usage(&folders)).await;
    measured.unwrap_or_default()
}

/// The usage of the job's `/output` and of its image's volumes, together.
fn usage(folders: &JobFolders) -> tree::Usage {
    // A folder that the job closed to the node counts as not wholly measured, and hides no other one.
    let of = |folder| tree::usage(folder, ENTRIES_MAX, LOOK_MAX).unwrap_or_default();
    let (output, volumes) = (of(&folders.output()), of(&folders.volumes()));
    tree::Usage {
        bytes: output.bytes.saturating_add(volumes.bytes),
        entries: output.entries.saturating_add(volumes.entries),
        is_whole: output.is_whole && volumes.is_whole,
    }
}

async fn stop(board: &Board, id: &JobId, cause: StopCause, jobs: &[(Running, Written)]) {
    let written = jobs.iter().find(|(job, _)| job.id == *id).map(|(_, written)| *written);
    let Written { output, layer, is_whole, .. } = written.unwrap_or_default();
    let (output_mib, layer_mib) = (output >> 20, layer.map(|bytes| bytes >> 20));
    let why = match cause {
        StopCause::DiskFull if is_whole => "the disk is full and it has written most",
        StopCause::DiskFull => "the disk is full and what it has written can't be measured",
        _ => "it has written more than its disk_mib",
    };
    tracing::warn!(job.id = %id, output_mib, layer_mib, "job {id} is stopped: {why}");
    tokio::time::timeout(ANSWER, board.stop(id, cause)).await.ok();
}

#[cfg(test)]
mod tests;
