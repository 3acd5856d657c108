//! Who fills the disk: what running jobs have written is measured, and the job that writes more
//! than it may is stopped, before the disk is full for everybody.
//!
//! A job is held to its `disk_mib` in each place: what it sees as `/output`, and the layer of its
//! container. Where the disk as a whole runs full all the same, the job that has written most is
//! stopped, where that can help. Both only where two looks in a row say so: a job that is about to
//! end by itself, or to tidy up, is left alone.
//!
//! What must hold: a tree that was made to be measured for ever costs a bounded time, and its job
//! goes first; nothing here waits for the journal.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::act::Act;
use super::board::{Board, Running};
use super::folders::Folders;
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime};
use crate::host::{self, Room, tree};
use crate::job::JobId;
use crate::job::phase::StopCause;
use crate::supervise::Failure;

/// How often the disk is looked at: a fast one takes some gigabytes meanwhile.
const EVERY: Duration = Duration::from_secs(1);
/// Measuring may take one part of so many of the time, while the disk has room.
const SHARE: u32 = 20;
/// Entries of one job's output that are counted in one look, far more than can be published.
const ENTRIES_MAX: u64 = 200_000;
/// How long one look at one job's output may take.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long the engine may take to measure a layer.
const LAYER_MAX: Duration = Duration::from_secs(10);
/// How long a stopped job's answer is waited for. It stops without that, too.
const ANSWER: Duration = Duration::from_secs(1);
/// A disk with less free than this is full, whatever the owner set.
const FULL_MIB_MIN: u64 = 8;
/// The same in files and folders.
const FULL_INODES: u64 = 1024;

/// What a job has written, as far as it could be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Written {
    output: u64,
    layer: u64,
    entries: u64,
    is_whole: bool,
}

/// What two looks in a row have said of the jobs and of the disk.
#[derive(Debug, Default)]
struct Looks {
    exceeded: Vec<JobId>,
    was_full: bool,
}

impl Looks {
    /// Whom to stop after this look, and why.
    fn judge(
        &mut self,
        jobs: &[(Running, Written)],
        lack: Option<Lack>,
    ) -> Vec<(JobId, StopCause)> {
        let above = |job: &Running, it: &Written| it.output.max(it.layer) > job.disk_bytes;
        let exceeded: Vec<JobId> = jobs
            .iter()
            .filter(|(job, written)| above(job, written))
            .map(|(job, _)| job.id.clone())
            .collect();
        let twice = exceeded.iter().filter(|id| self.exceeded.contains(id)).cloned();
        let mut stops: Vec<_> = twice.map(|id| (id, StopCause::DiskExceeded)).collect();
        if stops.is_empty()
            && self.was_full
            && let Some(lack) = lack
            && let Some(id) = greediest(jobs, lack)
        {
            stops.push((id, StopCause::DiskFull));
        }
        (self.exceeded, self.was_full) = (exceeded, lack.is_some());
        stops
    }
}

/// What a full disk lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lack {
    bytes: u64,
    inodes: u64,
}

impl Lack {
    /// `None` where there is enough.
    fn of(room: Room, full_mib: u64) -> Option<Self> {
        let bytes = full_mib.saturating_sub(room.mib) << 20;
        let inodes = FULL_INODES.saturating_sub(room.inodes);
        (bytes > 0 || inodes > 0).then_some(Self { bytes, inodes })
    }
}

/// The job that has written most, where its end gives back what is lacking. What can't be measured
/// counts as more than anything.
fn greediest(jobs: &[(Running, Written)], lack: Lack) -> Option<JobId> {
    let weight = |written: &Written| {
        let bytes = written.output.saturating_add(written.layer);
        let amount = if lack.bytes > 0 { bytes } else { written.entries };
        (!written.is_whole, amount)
    };
    let helps = |written: &Written| {
        let bytes = written.output.saturating_add(written.layer);
        !written.is_whole || (bytes >= lack.bytes && written.entries >= lack.inodes)
    };
    let most = jobs.iter().filter(|(_, written)| helps(written));
    most.max_by_key(|(_, written)| weight(written)).map(|(job, _)| job.id.clone())
}

/// Looks after the disk for as long as the node runs; a service. `free_min_mib` is what the owner
/// wants to stay free: at half of it the disk counts as full.
pub async fn watch<R: ContainerRuntime, C: Clock>(
    act: Arc<Act<R, C>>,
    free_min_mib: u64,
) -> Result<(), Failure> {
    let full_mib = (free_min_mib / 2).max(FULL_MIB_MIN);
    let (mut looks, mut layers) = (Looks::default(), HashMap::new());
    let mut rests_until = Instant::now();
    loop {
        act.clock.sleep(EVERY).await;
        let running = act.board.running();
        layers.retain(|id, _| running.iter().any(|job| job.container == *id));
        if running.is_empty() {
            looks = Looks::default();
            continue;
        }
        let room = host::disk_room(act.folders.root()).map_err(|err| Failure::Again(err.into()))?;
        let lack = Lack::of(room, full_mib);
        if lack.is_none() && Instant::now() < rests_until {
            continue;
        }
        let begun = Instant::now();
        let jobs = measure(&act, running, &mut layers).await;
        // A full disk is measured at each look, however long that takes.
        rests_until = Instant::now() + begun.elapsed() * SHARE;
        for (id, cause) in looks.judge(&jobs, lack) {
            stop(&act.board, &id, cause, &jobs).await;
        }
    }
}

/// What a layer had when it was measured, and when it is measured again.
type Layers = HashMap<String, (u64, Instant)>;

async fn measure<R: ContainerRuntime, C: Clock>(
    act: &Act<R, C>,
    running: Vec<Running>,
    layers: &mut Layers,
) -> Vec<(Running, Written)> {
    let mut jobs = Vec::with_capacity(running.len());
    for job in running {
        let layer = layer(act, &job.container, layers).await;
        let output = output_of(&act.folders, &job).await;
        let written = Written {
            output: output.bytes,
            layer,
            entries: output.entries,
            is_whole: output.is_whole,
        };
        jobs.push((job, written));
    }
    jobs
}

async fn output_of(folders: &Folders, job: &Running) -> tree::Usage {
    let output = folders.of_attempt(&job.id, job.attempt).output();
    let measured = tokio::task::spawn_blocking(move || usage(&output)).await;
    // One that is just being removed has nothing.
    measured.ok().and_then(Result::ok).unwrap_or_default()
}

fn usage(output: &Path) -> std::io::Result<tree::Usage> {
    tree::usage(output, ENTRIES_MAX, LOOK_MAX)
}

/// The engine walks through a layer to measure it: seldom where that takes long.
async fn layer<R: ContainerRuntime, C: Clock>(
    act: &Act<R, C>,
    container: &str,
    layers: &mut Layers,
) -> u64 {
    let (known, due) = layers.get(container).copied().unwrap_or((0, Instant::now()));
    if Instant::now() < due {
        return known;
    }
    let begun = Instant::now();
    let id = ContainerId(container.to_owned());
    let bytes = match tokio::time::timeout(LAYER_MAX, act.runtime.written(&id)).await {
        Ok(Ok(bytes)) => bytes,
        // An engine that is away, or is busy with it, says nothing new.
        Ok(Err(_)) | Err(_) => known,
    };
    let next = Instant::now() + (begun.elapsed() * SHARE).max(EVERY);
    layers.insert(container.to_owned(), (bytes, next));
    bytes
}

async fn stop(board: &Board, id: &JobId, cause: StopCause, jobs: &[(Running, Written)]) {
    let written = jobs.iter().find(|(job, _)| job.id == *id).map(|(_, written)| *written);
    let Written { output, layer, .. } = written.unwrap_or_default();
    let (output_mib, layer_mib) = (output >> 20, layer >> 20);
    let why = match cause {
        StopCause::DiskFull => "the disk is full and it has written most",
        _ => "it has written more than its disk_mib",
    };
    tracing::warn!(job.id = %id, output_mib, layer_mib, "job {id} is stopped: {why}");
    tokio::time::timeout(ANSWER, board.stop(id, cause)).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn job(id: &str, output_mib: u64, layer_mib: u64) -> (Running, Written) {
        let running = Running {
            id: id.parse().unwrap(),
            attempt: 1,
            container: id.to_owned(),
            disk_bytes: 100 * MIB,
        };
        let (output, layer) = (output_mib * MIB, layer_mib * MIB);
        (running, Written { output, layer, entries: 10, is_whole: true })
    }

    /// 8 MiB are lacking.
    const LACK: Option<Lack> = Some(Lack { bytes: 8 * MIB, inodes: 0 });

    fn named(stops: &[(JobId, StopCause)]) -> Vec<(&str, StopCause)> {
        stops.iter().map(|(id, cause)| (id.as_str(), *cause)).collect()
    }

    #[test]
    fn a_job_above_its_limit_is_stopped_at_the_second_look_and_not_at_the_first() {
        for greedy in [job("a", 101, 0), job("a", 0, 101)] {
            let jobs = [greedy, job("b", 100, 100)];
            let mut looks = Looks::default();
            assert_eq!(looks.judge(&jobs, None), []);
            assert_eq!(named(&looks.judge(&jobs, None)), [("a", StopCause::DiskExceeded)]);
            // One that tidied up in between is at its first look again.
            assert_eq!(looks.judge(&[job("a", 1, 0)], None), []);
            assert_eq!(looks.judge(&jobs, None), []);
        }
    }

    #[test]
    fn on_a_full_disk_the_greediest_job_goes_where_that_helps() {
        let jobs = [job("a", 30, 30), job("b", 50, 0), job("c", 1, 0)];
        let mut looks = Looks::default();
        assert_eq!(looks.judge(&jobs, LACK), []);
        assert_eq!(named(&looks.judge(&jobs, LACK)), [("a", StopCause::DiskFull)]);
        // Somebody else has filled it: no job's end would make room.
        assert_eq!(looks.judge(&[job("c", 1, 0)], LACK), []);
        let hidden = (job("d", 0, 0).0, Written { is_whole: false, ..Written::default() });
        let jobs = [jobs[0].clone(), hidden];
        assert_eq!(named(&looks.judge(&jobs, LACK)), [("d", StopCause::DiskFull)]);
    }

    #[test]
    fn inodes_run_out_as_well_as_blocks() {
        assert_eq!(Lack::of(Room { mib: 9, inodes: FULL_INODES }, 8), None);
        let lack = Lack::of(Room { mib: 9, inodes: 24 }, 8);
        assert_eq!(lack, Some(Lack { bytes: 0, inodes: 1000 }));
        let mut many = job("many", 1, 0);
        many.1.entries = 5000;
        assert_eq!(greediest(&[job("big", 90, 0), many], lack.unwrap()).unwrap().as_str(), "many");
        assert_eq!(Lack::of(Room { mib: 9, inodes: u64::MAX }, 8), None);
    }
}
