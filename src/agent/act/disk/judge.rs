//! Which jobs to stop for their use of the disk. Pure.
//!
//! Invariants: a job's limit counts its inputs, its output, its image's volumes, its container's layer and
//! its log together in bytes, and all of these except the inputs in files; a job above it is stopped at once;
//! if a disk stays full for [`FULL_FOR`], the job that has written most there is stopped, provided that this
//! helps.

use std::time::{Duration, Instant};

use crate::agent::jobs::board::Running;
use crate::host::Room;
use crate::ids::JobId;
use crate::job::phase::StopCause;

/// Bytes that a job may have above its limit: the file system's own blocks, and the folders that the node
/// makes.
const LEEWAY: u64 = 1 << 20;
/// Bytes of its limit for which a job may make one file or folder. Of the file systems in use ext4 has the
/// fewest inodes, one for each 16 KiB: a job that keeps to this leaves others inodes for their blocks.
const BYTES_PER_ENTRY: u64 = 64 << 10;
/// Files and folders that every job may make: environments of Python packages have some 10,000.
const ENTRIES_MIN: u64 = 16_384;
/// Files and folders that no job may exceed. More of them take seconds to count, and minutes to remove.
pub(super) const ENTRIES_MAX: u64 = 500_000;
/// How long a disk has to stay full before a job is stopped, which spares a job that is about to end or clean
/// up.
const FULL_FOR: Duration = Duration::from_secs(1);
/// How long stopped jobs and the trash may take to free space before another job is stopped.
pub(super) const SETTLE_MAX: Duration = Duration::from_mins(1);
/// Free inodes below which a disk is full.
pub(super) const FULL_INODES: u64 = 1024;

/// A job's use of the disk, as far as it could be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the look by itself")]
pub(super) struct Written {
    /// Bytes of `/output` and of the image's volumes.
    pub output: u64,
    /// Bytes of the inputs.
    pub input: u64,
    /// Bytes of the container's layer at its last measurement.
    pub layer: u64,
    /// Bytes of the log that the engine keeps.
    pub log: u64,
    /// Files and folders of `/output` and of the image's volumes.
    pub entries: u64,
    /// Those of the inputs, which do not count against the limit: the fetch has bounded their number.
    pub input_entries: u64,
    /// Those of the container's layer, where they could be counted.
    pub layer_entries: u64,
    /// Whether nothing in the job's folders was too large, too slow or closed to be measured.
    pub are_folders_whole: bool,
    /// The same of the container's layer.
    pub is_layer_whole: bool,
    /// Whether the layer was measured in this look.
    pub is_fresh: bool,
    /// Whether the engine reported in this look that it can't measure the layer.
    pub is_layer_closed: bool,
}

impl Written {
    /// All bytes together.
    pub(super) const fn bytes(&self) -> u64 {
        let files = self.output.saturating_add(self.input);
        files.saturating_add(self.layer).saturating_add(self.log)
    }

    /// Whether everything could be measured.
    pub(super) const fn is_whole(&self) -> bool {
        self.are_folders_whole && self.is_layer_whole
    }

    /// The files and folders that the job made.
    pub(super) const fn made(&self) -> u64 {
        self.entries.saturating_add(self.layer_entries)
    }

    /// Whether the job has more than it may.
    pub(super) fn is_above(&self, job: &Running) -> bool {
        self.bytes() > job.disk_bytes.saturating_add(LEEWAY)
            || self.made() > entries_max(job.disk_bytes)
    }

    /// The same, by the measurements of this look alone.
    pub(super) fn is_surely_above(&self, job: &Running) -> bool {
        let layer = if self.is_fresh { self.layer } else { 0 };
        Self { layer, ..*self }.is_above(job)
    }
}

/// The files and folders that a job with this limit may make.
pub(super) fn entries_max(disk_bytes: u64) -> u64 {
    (disk_bytes / BYTES_PER_ENTRY).clamp(ENTRIES_MIN, ENTRIES_MAX)
}

/// The findings of the previous looks, for comparison with the next one.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Since when every look has found the disk full.
    full_since: Option<Instant>,
    /// Jobs that were stopped and may still hold space.
    pub stopped: Vec<JobId>,
    /// Since when a full disk has been waiting for those jobs or the trash to free space.
    waits_since: Option<Instant>,
}

impl Looks {
    /// The jobs to stop after this look, and why. `settles`: space is about to be freed.
    pub(super) fn judge(
        &mut self,
        jobs: &[(Running, Written)],
        lack: Option<Lack>,
        settles: bool,
        now: Instant,
    ) -> Vec<(JobId, StopCause)> {
        let above = jobs.iter().filter(|(job, written)| written.is_surely_above(job));
        let mut stops: Vec<_> =
            above.map(|(job, _)| (job.id.clone(), StopCause::DiskExceeded)).collect();
        let waits = self.waits(settles && lack.is_some(), now);
        let lack = lack.filter(|_| !waits && stops.is_empty());
        let stayed_full = self.full_since.is_some_and(|since| now - since >= FULL_FOR);
        if stayed_full
            && let Some(lack) = lack
            && let Some(id) = greediest(jobs, lack)
        {
            stops.push((id, StopCause::DiskFull));
        }
        self.full_since = match lack {
            Some(_) if stops.is_empty() => self.full_since.or(Some(now)),
            _ => None,
        };
        if !stops.is_empty() {
            self.waits_since = None;
            self.stopped.extend(stops.iter().map(|(id, _)| id.clone()));
        }
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

    /// Notes a look that found room on the disk and measured nothing.
    pub(super) fn rested(&mut self) {
        (self.full_since, self.waits_since) = (None, None);
    }

    /// Notes a look while no job runs.
    pub(super) fn idle(&mut self) {
        *self = Self { stopped: std::mem::take(&mut self.stopped), ..Self::default() };
    }
}

/// The part of a job's files that lies on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// All of them: as far as known, the jobs' folders and the engine's are on one disk.
    All,
    /// The jobs' folders: inputs, outputs and volumes.
    Folders,
    /// The engine's folder: layers and logs.
    Layers,
}

/// The space that a full disk lacks to be usable again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lack {
    pub bytes: u64,
    pub inodes: u64,
    /// The part of a job's files that lies on this disk.
    pub holds: Holds,
}

impl Lack {
    /// `None` if the disk under the jobs' folders has enough room.
    pub(super) fn of(room: Room, full_mib: u64) -> Option<Self> {
        let bytes = full_mib.saturating_sub(room.mib) << 20;
        let inodes = FULL_INODES.saturating_sub(room.inodes);
        (bytes > 0 || inodes > 0).then_some(Self { bytes, inodes, holds: Holds::All })
    }

    /// The same of the disk under the jobs' folders, then of the engine's. `are_apart`: these are two. If
    /// both are full, all files of a job count.
    pub(super) fn of_first(rooms: &[Room], are_apart: bool, full_mib: u64) -> Option<Self> {
        let lack = |at: usize| rooms.get(at).and_then(|room| Self::of(*room, full_mib));
        match (lack(0), lack(1)) {
            (Some(lack), None) if are_apart => Some(Self { holds: Holds::Folders, ..lack }),
            (None, Some(lack)) if are_apart => Some(Self { holds: Holds::Layers, ..lack }),
            (Some(lack), _) | (None, Some(lack)) => Some(lack),
            (None, None) => None,
        }
    }

    /// The job's bytes on the disk that is full.
    const fn bytes_of(self, written: &Written) -> u64 {
        match self.holds {
            Holds::All => written.bytes(),
            Holds::Folders => written.output.saturating_add(written.input),
            Holds::Layers => written.layer.saturating_add(written.log),
        }
    }

    /// Whether all of that could be measured.
    const fn is_whole_of(self, written: &Written) -> bool {
        match self.holds {
            Holds::All => written.is_whole(),
            Holds::Folders => written.are_folders_whole,
            Holds::Layers => written.is_layer_whole,
        }
    }

    /// The job's files and folders there.
    const fn entries_of(self, written: &Written) -> u64 {
        match self.holds {
            Holds::All => written.made().saturating_add(written.input_entries),
            Holds::Folders => written.entries.saturating_add(written.input_entries),
            Holds::Layers => written.layer_entries,
        }
    }
}

/// Of the jobs whose end frees enough space, the one that has written most to the full disk. A job that can't
/// be measured counts as larger than any other.
pub(super) fn greediest(jobs: &[(Running, Written)], lack: Lack) -> Option<JobId> {
    let weight = |written: &Written| {
        let bytes = lack.bytes_of(written);
        let amount = if lack.bytes > 0 { bytes } else { lack.entries_of(written) };
        (!lack.is_whole_of(written), amount)
    };
    let helps = |written: &Written| {
        let (bytes, entries) = (lack.bytes_of(written), lack.entries_of(written));
        !lack.is_whole_of(written) || (bytes >= lack.bytes && entries >= lack.inodes)
    };
    let most = jobs.iter().filter(|(_, written)| helps(written));
    most.max_by_key(|(_, written)| weight(written)).map(|(job, _)| job.id.clone())
}

/// How eager a look is to measure layers that are slow to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Each layer in its turn.
    Calm,
    /// Sooner, since free space shrinks.
    Some,
    /// All of them, however long that takes.
    All,
}

/// When the next look is due.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Free space and inodes at the last look, or when the first job began.
    before: Vec<Room>,
    rests_until: Option<Instant>,
    hurries_from: Option<Instant>,
}

/// MiB by which free space has to drop before a look is worth it.
const DROP_MIB_MIN: u64 = 1;
/// The same, in inodes.
const DROP_INODES_MIN: u64 = 1024;

impl Pace {
    /// The look that is due, if any: after a while, or as soon as the free space has dropped by a quarter of
    /// what the job nearest to its limit has left. `left`: the bytes and files that this job may still write.
    pub(super) fn due(&mut self, rooms: &[Room], left: (u64, u64), now: Instant) -> Option<Haste> {
        if self.before.len() != rooms.len() {
            self.before = rooms.to_vec();
        }
        let (mib, inodes) = ((left.0 >> 22).max(DROP_MIB_MIN), (left.1 / 4).max(DROP_INODES_MIN));
        let dropped = |(before, now): (&Room, &Room)| {
            before.mib.saturating_sub(now.mib) >= mib
                || before.inodes.saturating_sub(now.inodes) >= inodes
        };
        let is_past = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if is_past(self.hurries_from) && self.before.iter().zip(rooms).any(dropped) {
            return Some(Haste::Some);
        }
        is_past(self.rests_until).then_some(Haste::Calm)
    }

    /// Notes a look. The next one comes at `rests_until`, or from `hurries_from` on if free space shrinks.
    pub(super) fn looked(&mut self, rooms: Vec<Room>, rests_until: Instant, hurries_from: Instant) {
        self.before = rooms;
        (self.rests_until, self.hurries_from) = (Some(rests_until), Some(hurries_from));
    }
}
