//! Keeps the node's use of its disks within the owner's budget: measures it, and removes images that this
//! node pulled ([`crate::node::stock`] decides which).
//!
//! Invariants: each look asks the journal and the engine what is in use, so a restart forgets nothing; an
//! image that a job asked for less than `PAUSE` ago stays, whatever the journal says; a look that can't
//! measure everything finds less than there is, so it never removes more than a complete one; a look that
//! can't list the images removes nothing; an image that could not be removed counts as no room made.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::container::{ContainerRuntime, Error as EngineError};
use crate::host::{self, tree};
use crate::ids::JobId;
use crate::job::Job;
use crate::job::phase::Phase;
use crate::journal::Journal;
use crate::node::fitness::Disk;
use crate::node::stock::{Item, Room, Stock};
use crate::report::causes;
use crate::supervise::Failure;

use super::jobs::trash::{self, Trash};

/// Time between two looks at the engine's free space.
const EVERY: Duration = Duration::from_secs(10);
/// Time between two looks at everything, which walk through all jobs' folders.
const WALK_EVERY: Duration = Duration::from_mins(1);
/// Time limit for the engine's answer about its room; without one only `DATA_DIR`'s disk is offered.
const ENGINE: Duration = Duration::from_secs(3);
/// An image that a job asked for less than this long ago stays: the job may not be in the journal with it
/// yet.
const PAUSE: Duration = Duration::from_secs(5);
/// Files and folders counted in one folder of a job.
const ENTRIES_MAX: u64 = 500_000;
/// Time limit for counting one folder of a job.
const LOOK_MAX: Duration = Duration::from_secs(4);

/// The owner's limits of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// `DISK_FREE_MIN_MIB`: no job is taken while less is free.
    pub free_min_mib: u64,
    /// `DISK_BUDGET_MIB`: the limit of everything that the node keeps; `None`: the disk, without
    /// `free_min_mib`.
    pub budget_mib: Option<u64>,
}

impl DiskLimits {
    /// MiB that jobs may fill, given the free space under `DATA_DIR` and in the engine's room. Given the
    /// sizes of both disks instead: the MiB that jobs can ever fill.
    pub fn for_jobs(&self, free_mib: u64, engines_room_mib: Option<u64>) -> u64 {
        let free = free_mib.min(engines_room_mib.unwrap_or(u64::MAX));
        free.saturating_sub(self.free_min_mib).min(self.budget_mib.unwrap_or(u64::MAX))
    }

    /// The limits and the free space on the engine's disk, in bytes.
    pub fn room(&self, engine_free: Option<u64>) -> Room {
        Room {
            budget: self.budget_mib.map(|mib| mib.saturating_mul(1 << 20)),
            free_min: self.free_min_mib.saturating_mul(1 << 20),
            engine_free,
        }
    }
}

/// The images that jobs in hand need and that no container of theirs protects yet.
pub fn needed<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> HashSet<String> {
    let image = |job: &Job| match &job.phase {
        Phase::Pulled { image }
        | Phase::Ready { image }
        | Phase::Claiming { image, .. }
        | Phase::Starting { image, .. } => Some(image.id.clone()),
        _ => None,
    };
    jobs.into_iter().filter_map(image).collect()
}

/// Measures what the node keeps. `kept`: the jobs whose outputs are kept.
#[expect(clippy::implicit_hasher, reason = "both sets are made here")]
pub async fn take<R: ContainerRuntime>(
    runtime: &R,
    data_dir: &Path,
    needed: &HashSet<String>,
    kept: HashSet<JobId>,
) -> Result<Stock, EngineError> {
    let images = runtime.cached().await?;
    let folder = data_dir.to_owned();
    let files = tokio::task::spawn_blocking(move || files(&folder, &kept)).await;
    let item = |image: crate::container::CachedImage| Item {
        in_use: needed.contains(&image.id),
        id: image.id,
        names: image.names,
        bytes: image.bytes,
        used: image.used,
    };
    let images = images.into_iter().map(item).collect();
    Ok(Stock { images, ..files.unwrap_or_default() })
}

/// MiB that the engine's disk can have free once every image that this node pulled has gone; `None` if the
/// engine does not say.
pub async fn engines_room<R: ContainerRuntime>(runtime: &R) -> Option<u64> {
    let asked = async {
        let free = engine_free(runtime).await?;
        let images = runtime.cached().await.ok()?;
        Some(images.iter().fold(free, |sum, image| sum.saturating_add(image.bytes)) >> 20)
    };
    tokio::time::timeout(ENGINE, asked).await.ok().flatten()
}

/// MiB that the engine's disk has in all; `None` if the engine does not say, or not in time.
pub async fn engines_size<R: ContainerRuntime>(runtime: &R) -> Option<u64> {
    let root = tokio::time::timeout(ENGINE, runtime.root_folder()).await.ok()?.ok().flatten()?;
    host::disk_size_mib(&root).ok()
}

/// Bytes free on the engine's disk, if it is on this host.
pub async fn engine_free<R: ContainerRuntime>(runtime: &R) -> Option<u64> {
    let root = runtime.root_folder().await.ok().flatten()?;
    Some(host::disk_free_mib(&root).ok()?.saturating_mul(1 << 20))
}

/// Measures everything except the images.
fn files(data_dir: &Path, kept: &HashSet<JobId>) -> Stock {
    let mut stock = Stock { is_whole: true, ..Stock::default() };
    let own = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    for entry in own {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("journal.db") {
            stock.journal += bytes_of(&entry.path(), &mut stock.is_whole);
        } else if matches!(name.as_ref(), "reserve" | "spare") {
            stock.reserve += bytes_of(&entry.path(), &mut stock.is_whole);
        }
    }
    let jobs = std::fs::read_dir(data_dir.join("jobs")).into_iter().flatten().flatten();
    for job in jobs {
        let (name, path) = (job.file_name(), job.path());
        if name == trash::NAME {
            stock.trash += bytes_of(&path, &mut stock.is_whole);
        } else {
            let is_kept = kept.iter().any(|id| name == id.as_str());
            files_of_job(&path, is_kept, &mut stock);
        }
    }
    stock
}

fn files_of_job(job: &Path, is_kept: bool, stock: &mut Stock) {
    let inputs = job.join("inputs");
    stock.inputs += bytes_of(&inputs, &mut stock.is_whole);
    let attempts = std::fs::read_dir(job).into_iter().flatten().flatten();
    for attempt in attempts.map(|entry| entry.path()).filter(|path| *path != inputs) {
        for entry in std::fs::read_dir(&attempt).into_iter().flatten().flatten() {
            let bytes = bytes_of(&entry.path(), &mut stock.is_whole);
            let part = match entry.file_name().to_string_lossy().as_ref() {
                "log" | "log.room" => &mut stock.logs,
                _ if is_kept => &mut stock.kept,
                _ => &mut stock.outputs,
            };
            *part = part.saturating_add(bytes);
        }
    }
}

/// Bytes on disk of a file or a folder; of a folder that is too large only the part that was counted.
fn bytes_of(path: &Path, is_whole: &mut bool) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.blocks().saturating_mul(512);
    }
    let usage = tree::usage(path, ENTRIES_MAX, LOOK_MAX).unwrap_or_default();
    *is_whole &= usage.is_whole;
    usage.bytes
}

/// The service that keeps the budget, and its last findings.
#[derive(Debug)]
pub(super) struct Keeper<R> {
    pub runtime: Arc<R>,
    pub journal: Journal,
    pub data_dir: PathBuf,
    pub limits: DiskLimits,
    /// Where jobs' files wait for their removal.
    pub trash: Trash,
    /// The part of the budget that was lacking at the last look.
    pub lack: Mutex<Option<Disk>>,
}

impl<R: ContainerRuntime> Keeper<R> {
    /// The part of the budget that was lacking at the last look.
    pub(super) fn lack(&self) -> Option<Disk> {
        *self.lack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks as long as the node runs; a service. It measures everything once a minute if there is a budget,
    /// and while the engine's disk is short.
    pub(super) async fn run<C: Clock>(self: Arc<Self>, clock: C) -> Result<(), Failure> {
        let mut rests_until: Option<Duration> = None;
        loop {
            let room = self.limits.room(engine_free(self.runtime.as_ref()).await);
            let now = clock.monotonic();
            let is_due = rests_until.is_none_or(|until| now >= until);
            if is_due && (room.short() > 0 || room.budget.is_some()) {
                let removed = self.look(room, clock.now()).await?;
                // Shared layers: a removed image may have freed less than its size.
                rests_until = (removed == 0).then_some(now + WALK_EVERY);
            }
            clock.sleep(EVERY).await;
        }
    }

    /// Measures everything and removes the images that have to go. Returns their number.
    async fn look(&self, room: Room, now: Timestamp) -> Result<usize, Failure> {
        let failed = |err: crate::journal::Error| Failure::Again(err.into());
        let needed = needed(&self.journal.open_jobs().await.map_err(failed)?);
        let kept = self.journal.kept_ids().await.map_err(failed)?.into_iter().collect();
        let stock = match take(self.runtime.as_ref(), &self.data_dir, &needed, kept).await {
            Ok(stock) => stock,
            Err(err) => {
                tracing::debug!("the node's images can't be listed: {}", causes(&err));
                return Ok(0);
            }
        };
        *self.lack.lock().unwrap_or_else(PoisonError::into_inner) = stock.lack(room);
        let (mut tried, mut removed, mut freed) = (0, 0, 0_u64);
        while let Some(image) = stock.next_to_go(room, tried, freed) {
            tried += 1;
            if remove(self.runtime.as_ref(), image, now).await {
                removed += 1;
                freed = freed.saturating_add(image.bytes);
            }
        }
        Ok(removed)
    }
}

/// Removes an image unless it turns out to be in use. Returns whether it is gone.
pub async fn remove<R: ContainerRuntime>(runtime: &R, image: &Item, now: Timestamp) -> bool {
    let names = image.names.join(", ");
    let mib = image.bytes >> 20;
    let pause_ms = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
    let unless_after = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(pause_ms));
    match runtime.evict(&image.id, unless_after).await {
        Ok(true) => {
            tracing::info!(image = names, mib, "the image {names} is removed to make room");
            true
        }
        Ok(false) => false,
        Err(err) => {
            tracing::warn!(image = names, "the image {names} stays: {}", causes(&err));
            false
        }
    }
}
