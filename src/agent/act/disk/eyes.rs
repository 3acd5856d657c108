//! Measures what running jobs have on the disk.
//!
//! Invariants: a tree built to be slow to measure costs a bounded time; nothing here waits for the journal.
//! If this process may, it reads a container's layer in the engine's folder, which is quick and counts files;
//! if not, the engine measures it, which is slow and counts none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::judge::{ENTRIES_MAX, Haste, Written};
use crate::agent::jobs::board::Running;
use crate::agent::jobs::folders::{Folders, JobFolders};
use crate::container::{ContainerId, ContainerRuntime, Error as EngineError};
use crate::host::tree;
use crate::ids::Address;

/// While the disk has room, at most one part in so many of the time is spent measuring.
pub(super) const SHARE: u32 = 20;
/// The same while free space shrinks.
pub(super) const SHARE_IN_HASTE: u32 = 3;
/// Shortest time between two measurements of a layer by the engine, unless free space shrinks.
const LAYER_EVERY: Duration = Duration::from_secs(1);
/// Jobs measured at the same time: the engine walks through each layer.
const AT_ONCE: usize = 4;
/// Time limit for one look at one of a job's folders: enough to count [`ENTRIES_MAX`] on a slow disk.
const LOOK_MAX: Duration = Duration::from_secs(4);
/// Time limit for the engine to measure a layer.
const LAYER_MAX: Duration = Duration::from_secs(10);
/// Time limit for an easy request, which shows whether the engine answers at all.
const ENGINE: Duration = Duration::from_secs(2);

/// The running containers and their measurements, by the engine's ids.
pub(super) type Known = HashMap<String, Container>;

/// A running container and its measurements.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    /// The last measurement.
    pub last: Written,
    /// The job's inputs, which do not change while it runs.
    input: Option<tree::Usage>,
    /// The folder of its layer; `Some(None)` if only the engine can measure the layer.
    #[expect(clippy::option_option, reason = "not asked yet, and none, are different")]
    folder: Option<Option<PathBuf>>,
    /// When the engine measured the layer last, and how long that took.
    measured: Option<(Instant, Duration)>,
}

impl Container {
    fn is_due(&self, haste: Haste) -> bool {
        let Some((at, took)) = self.measured else { return true };
        match haste {
            Haste::Calm => at.elapsed() >= (took * SHARE).max(LAYER_EVERY),
            Haste::Some => at.elapsed() >= took * SHARE_IN_HASTE,
            Haste::All => true,
        }
    }
}

/// The measurements of one look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub jobs: Vec<(Running, Written)>,
    /// Time spent on walks through folders, all together.
    pub outputs_took: Duration,
    pub is_engine_away: bool,
}

/// The engine's answer about a container's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Bytes, and files where they could be counted.
    Written(u64, u64),
    /// It was not asked.
    NotDue,
    /// It says that it can't measure this layer.
    Closed,
    /// It failed to measure the layer, or took too long.
    TooLong,
    /// The container is gone.
    Gone,
    /// The engine does not answer.
    Away,
}

/// Everything that a look needs.
pub(super) struct Eyes<'a, R> {
    pub runtime: &'a R,
    pub folders: &'a Folders,
    pub node: Address,
    /// Bytes of the log that the engine keeps of this attempt.
    pub log_of: &'a (dyn Fn(&Running) -> u64 + Sync),
}

impl<R: ContainerRuntime> Eyes<'_, R> {
    /// Measures what each job has on the disk.
    pub(super) async fn measure(
        &self,
        running: Vec<Running>,
        known: &mut Known,
        haste: Haste,
    ) -> Seen {
        let looks: Vec<_> = running
            .into_iter()
            .map(|job| {
                let container = known.get(&job.container).cloned().unwrap_or_default();
                self.look_at(job, container, haste)
            })
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        let (mut seen, mut too_long) = (Seen::default(), false);
        while let Some((job, container, layer, took)) = looks.next().await {
            seen.outputs_took += took;
            // A container that is gone runs nothing, so there is nothing to stop.
            if layer == Layer::Gone {
                known.remove(&job.container);
                continue;
            }
            too_long |= layer == Layer::TooLong;
            seen.is_engine_away |= layer == Layer::Away;
            let written = container.last;
            known.insert(job.container.clone(), container);
            seen.jobs.push((job, written));
        }
        // Distinguish a layer that is too large to measure from an engine that doesn't answer.
        if too_long {
            let easy = tokio::time::timeout(ENGINE, self.runtime.list(self.node)).await;
            seen.is_engine_away |= !matches!(easy, Ok(Ok(_)));
        }
        seen
    }

    async fn look_at(
        &self,
        job: Running,
        mut container: Container,
        haste: Haste,
    ) -> (Running, Container, Layer, Duration) {
        let id = ContainerId(job.container.clone());
        if container.folder.is_none() {
            container.folder = self.folder_of(&id).await;
        }
        let begun = Instant::now();
        let folders = self.folders.of_attempt(&job.id, job.attempt);
        let (input, layer) = (container.input, container.folder.clone().flatten());
        let walk = move || walk(&folders, input, layer.as_deref());
        let walked = tokio::task::spawn_blocking(walk).await.unwrap_or_default();
        let took = begun.elapsed();
        let layer = match walked.layer {
            Some(usage) => Layer::Written(usage.bytes, usage.entries),
            None if container.is_due(haste) => {
                let begun = Instant::now();
                let layer = self.ask_for(&id).await;
                container.measured = Some((Instant::now(), begun.elapsed()));
                layer
            }
            None => Layer::NotDue,
        };
        let (bytes, entries) = match layer {
            Layer::Written(bytes, entries) => (bytes, entries),
            _ => (container.last.layer, 0),
        };
        let is_layer_walked = walked.layer.is_none_or(|usage| usage.is_whole);
        container.input = Some(walked.input);
        container.last = Written {
            output: walked.output.bytes,
            // The fetched bytes were within the limit, however many blocks they take.
            input: walked.input.bytes.min(job.disk_bytes),
            layer: bytes,
            log: (self.log_of)(&job),
            entries: walked.output.entries,
            input_entries: walked.input.entries,
            layer_entries: entries,
            are_folders_whole: walked.output.is_whole,
            is_layer_whole: is_layer_walked && !matches!(layer, Layer::TooLong | Layer::Closed),
            is_layer_closed: layer == Layer::Closed,
            is_fresh: matches!(layer, Layer::Written(..)),
        };
        (job, container, layer, took)
    }

    /// The folder of the container's layer, if this process can read it; `None` if that is not known yet.
    async fn folder_of(&self, id: &ContainerId) -> Option<Option<PathBuf>> {
        let asked = tokio::time::timeout(ENGINE, self.runtime.layer_folder(id)).await;
        let folder = asked.ok()?.ok()?;
        let readable = move || folder.filter(|folder| std::fs::read_dir(folder).is_ok());
        tokio::task::spawn_blocking(readable).await.ok()
    }

    async fn ask_for(&self, id: &ContainerId) -> Layer {
        match tokio::time::timeout(LAYER_MAX, self.runtime.written(id)).await {
            Ok(Ok(Some(bytes))) => Layer::Written(bytes, 0),
            Ok(Ok(None)) => Layer::Closed,
            Ok(Err(EngineError::Gone(_))) => Layer::Gone,
            Ok(Err(EngineError::Unreachable { .. })) => Layer::Away,
            Ok(Err(_)) | Err(_) => Layer::TooLong,
        }
    }
}

/// The folders of one job, measured.
#[derive(Debug, Default)]
struct Walked {
    /// `/output` and the image's volumes.
    output: tree::Usage,
    input: tree::Usage,
    layer: Option<tree::Usage>,
}

fn walk(folders: &JobFolders, input: Option<tree::Usage>, layer: Option<&Path>) -> Walked {
    // A folder that the job closed to the node counts as incompletely measured; the others are measured all
    // the same.
    let of = |folder: &Path| tree::usage(folder, ENTRIES_MAX + 1, LOOK_MAX).unwrap_or_default();
    let (output, volumes) = (of(&folders.output()), of(&folders.volumes()));
    Walked {
        output: tree::Usage {
            bytes: output.bytes.saturating_add(volumes.bytes),
            entries: output.entries.saturating_add(volumes.entries),
            is_whole: output.is_whole && volumes.is_whole,
        },
        input: input.unwrap_or_else(|| of(&folders.inputs())),
        layer: layer.map(of),
    }
}
