//! The images that this node pulled for jobs: by the engine's id, under which names, and when a job last asked
//! for each.
//!
//! Must hold: an image that was here before this node pulled it never gets into the record, and only the names
//! that this node gave are ever taken from the engine, without force: so an image that the owner named too, or
//! that a container uses, stays. Losing the record costs no job and no image of the owner's: what it listed is
//! kept for ever. Images that the engine no longer has are left out whenever the record is read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder};
use serde::{Deserialize, Serialize};

use super::super::{CachedImage, Error};
use super::{Docker, fault, images, record, within};
use crate::clock::{Clock as _, SystemClock, Timestamp};

/// Most images on record. One beyond that is not recorded, and so stays for ever.
const IMAGES_MAX: usize = 4096;
/// Most names on record for one image.
const NAMES_MAX: usize = 16;
/// Most bytes that are read of the file: an entry takes some 300.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How much later than on record an image has to be used for the file to be written again.
const NOTED_EVERY: Duration = Duration::from_mins(1);

type Images = BTreeMap<String, Entry>;

/// An image that this node pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The names that a pull of this node's gave it.
    names: BTreeSet<String>,
    /// When a job last asked for it.
    used: Timestamp,
    /// The `used` that is in the file.
    #[serde(skip)]
    noted: Option<Timestamp>,
}

/// The record; its file is read at the first use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    path: Option<PathBuf>,
    images: OnceLock<Mutex<Images>>,
}

impl Cache {
    /// The record in this file; `None` keeps it in memory only.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, images: OnceLock::new() }
    }

    /// Records an image that a pull has just brought, or another name for one on record. `was_here`: the image
    /// was on this host before the pull.
    pub(super) async fn pulled(&self, id: &str, name: String, was_here: bool) {
        let now = SystemClock.now();
        {
            let mut images = self.images();
            if !images.contains_key(id) && (was_here || images.len() >= IMAGES_MAX) {
                return;
            }
            let entry = images.entry(id.to_owned());
            let entry =
                entry.or_insert_with(|| Entry { names: BTreeSet::new(), used: now, noted: None });
            entry.used = now;
            if entry.names.len() < NAMES_MAX {
                entry.names.insert(name);
            }
        }
        self.write().await;
    }

    /// Notes that a job was given this image just now.
    pub(super) async fn used(&self, id: &str) {
        let is_due = {
            let mut images = self.images();
            let Some(entry) = images.get_mut(id) else { return };
            entry.used = SystemClock.now();
            entry.noted.is_none_or(|noted| entry.used.since(noted) >= NOTED_EVERY)
        };
        if is_due {
            self.write().await;
        }
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        let read = || {
            Mutex::new(
                self.path
                    .as_deref()
                    .map(|path| record::read(path, FILE_BYTES_MAX))
                    .unwrap_or_default(),
            )
        };
        self.images.get_or_init(read).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file. A failure is only a debug line: the next use writes it again.
    async fn write(&self) {
        let Some(path) = self.path.clone() else { return };
        let text = {
            let mut images = self.images();
            images.values_mut().for_each(|entry| entry.noted = Some(entry.used));
            serde_json::to_vec(&*images).unwrap_or_default()
        };
        record::write(path, text, "this node's images").await;
    }
}

/// The images on record that the engine still has, the one that was used last at the end.
pub(super) async fn list(docker: &Docker) -> Result<Vec<CachedImage>, Error> {
    let there = images::all(docker).await?;
    let mut images = docker.cache.images();
    images.retain(|id, _| there.contains_key(id));
    let mut listed: Vec<CachedImage> = images
        .iter()
        .map(|(id, entry)| CachedImage {
            id: id.clone(),
            names: entry.names.iter().cloned().collect(),
            bytes: there.get(id).copied().unwrap_or_default(),
            used: entry.used,
        })
        .collect();
    listed.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    Ok(listed)
}

/// Takes this node's names from an image on record that no job asked for since `unless_after`. Returns whether
/// the image is gone.
pub(super) async fn evict(
    docker: &Docker,
    id: &str,
    unless_after: Timestamp,
) -> Result<bool, Error> {
    let Some(entry) = docker.cache.images().get(id).cloned() else { return Ok(false) };
    if entry.used > unless_after || is_in_use(docker, id).await? {
        return Ok(false);
    }
    let client = docker.client().await?;
    for name in &entry.names {
        // The owner may have given the name to another image meanwhile.
        let means = images::inspect(docker, name).await?.and_then(|found| found.id);
        if means.as_deref() != Some(id) {
            continue;
        }
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        let remove = client.remove_image(name, Some(options), None);
        match within(docker.config.call_timeout, remove).await {
            Ok(_) => {}
            Err(err) if fault::status(&err) == Some(404) => {}
            // A container uses it.
            Err(err) if fault::status(&err) == Some(409) => return Ok(false),
            Err(err) => return Err(docker.fault(err)),
        }
    }
    let is_gone = images::inspect(docker, id).await?.is_none();
    // Otherwise it has a name of the owner's, and is the owner's now.
    docker.cache.images().remove(id);
    docker.cache.write().await;
    Ok(is_gone)
}

/// Whether any container, running or not, was made of this image: the engine would take its name all the same
/// where the image has several.
async fn is_in_use(docker: &Docker, id: &str) -> Result<bool, Error> {
    let client = docker.client().await?;
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let listed = docker.call(client.list_containers(Some(options))).await?;
    let used: HashSet<String> = listed.into_iter().filter_map(|one| one.image_id).collect();
    Ok(used.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_pull_brought_is_on_record_and_the_record_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pulled.json");
        let cache = Cache::new(Some(path.clone()));
        cache.pulled("sha256:1", "a:1".to_owned(), false).await;
        cache.pulled("sha256:2", "b:1".to_owned(), true).await;
        cache.pulled("sha256:1", "a:2".to_owned(), true).await;
        cache.used("sha256:2").await;
        let again = Cache::new(Some(path.clone()));
        let found = again.images().clone();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["sha256:1"]);
        assert_eq!(found["sha256:1"].names.len(), 2);
        assert_eq!(found["sha256:1"].used, cache.images()["sha256:1"].used);
        std::fs::write(&path, "{ broken").unwrap();
        assert!(Cache::new(Some(path)).images().is_empty(), "nothing is known, nothing goes");
    }
}
