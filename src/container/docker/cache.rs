//! The record of the images that this node pulled for jobs: the engine's id, the names, and the last use by a
//! job.
//!
//! Must hold: an image that was here before this node pulled it never gets into the record. Images are
//! removed without force, and only by the names that this node gave, or by id once no name is left; so an
//! image that the owner named too, or that a container uses, stays. Losing the record costs no job and no
//! image of the owner: the images that it listed are kept for ever. Images that the engine no longer has are
//! left out whenever the record is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::ImageInspect;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder};
use serde::{Deserialize, Serialize};

use super::super::{CachedImage, Error};
use super::{Docker, fault, images, record, within};
use crate::clock::{Clock as _, SystemClock, Timestamp};

/// Most images on record. Further ones are not recorded, and so stay for ever.
const IMAGES_MAX: usize = 4096;
/// Most names on record for one image.
const NAMES_MAX: usize = 16;
/// Most bytes of the file that are read: an entry takes some 300.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The file is written again if an image is used this much later than on record.
const NOTED_EVERY: Duration = Duration::from_mins(1);

type Images = BTreeMap<String, Entry>;

/// An image that this node pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The names that this node's pulls gave it.
    names: BTreeSet<String>,
    /// When a job last asked for it.
    used: Timestamp,
    /// The `used` that is in the file.
    #[serde(skip)]
    noted: Option<Timestamp>,
    /// When this process last pulled it.
    #[serde(skip)]
    pulled: Option<Instant>,
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

    /// Records an image that a pull has just brought, or another name for one on record. `was_here`: the
    /// image was on this host before the pull.
    pub(super) async fn pulled(&self, id: &str, name: String, was_here: bool) {
        let now = SystemClock.now();
        {
            let mut images = self.images();
            if !images.contains_key(id) && (was_here || images.len() >= IMAGES_MAX) {
                return;
            }
            let entry = images.entry(id.to_owned());
            let entry = entry.or_insert_with(|| Entry {
                names: BTreeSet::new(),
                used: now,
                noted: None,
                pulled: None,
            });
            (entry.used, entry.pulled) = (now, Some(Instant::now()));
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

    /// Removes an image from the record, unless it was used since this entry was read.
    fn forget(&self, id: &str, as_it_was: &Entry) {
        let mut images = self.images();
        if images.get(id).is_some_and(|now| now.used == as_it_was.used) {
            images.remove(id);
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

/// The images on record that the engine still has, the most recently used one last.
pub(super) async fn list(docker: &Docker) -> Result<Vec<CachedImage>, Error> {
    let began = Instant::now();
    let there = images::all(docker).await?;
    Ok(still_there(&mut docker.cache.images(), &there, began))
}

/// The images on record that are in `there`, the engine's list, asked for at `began`. Removes the others from
/// the record, except those pulled since `began`, which the list may lack.
fn still_there(
    images: &mut Images,
    there: &HashMap<String, u64>,
    began: Instant,
) -> Vec<CachedImage> {
    images.retain(|id, entry| {
        there.contains_key(id) || entry.pulled.is_some_and(|pulled| pulled >= began)
    });
    let listed = images.iter().filter_map(|(id, entry)| {
        Some(CachedImage {
            id: id.clone(),
            names: entry.names.iter().cloned().collect(),
            bytes: *there.get(id)?,
            used: entry.used,
        })
    });
    let mut listed: Vec<CachedImage> = listed.collect();
    listed.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    listed
}

/// Takes this node's names from an image on record that no job asked for since `unless_after`. Returns
/// whether the image is gone.
pub(super) async fn evict(
    docker: &Docker,
    id: &str,
    unless_after: Timestamp,
) -> Result<bool, Error> {
    let Some(entry) = docker.cache.images().get(id).cloned() else { return Ok(false) };
    if entry.used > unless_after || is_in_use(docker, id).await? {
        return Ok(false);
    }
    for name in &entry.names {
        // Meanwhile a later pull or the owner may have given the name to another image.
        let means = images::inspect(docker, name).await?.and_then(|found| found.id);
        if means.as_deref() == Some(id) && !remove(docker, name).await? {
            return Ok(false);
        }
    }
    let mut left = images::inspect(docker, id).await?;
    // A tag that moved on leaves the image without a name: only its id is left to remove it by.
    if left.as_ref().is_some_and(|left| is_nameless(left, &entry.names)) {
        if !remove(docker, id).await? {
            return Ok(false);
        }
        left = images::inspect(docker, id).await?;
    }
    // An image that is left has a name given by the owner, and belongs to the owner now. One that was pulled
    // again meanwhile stays on record.
    docker.cache.forget(id, &entry);
    docker.cache.write().await;
    Ok(left.is_none())
}

/// Removes an image by a name or an id, without force. `false` if a container uses it.
async fn remove(docker: &Docker, name: &str) -> Result<bool, Error> {
    let client = docker.client().await?;
    let options = RemoveImageOptionsBuilder::default().force(false).build();
    let remove = client.remove_image(name, Some(options), None);
    match within(docker.config.call_timeout, remove).await {
        Ok(_) => Ok(true),
        Err(err) if fault::status(&err) == Some(404) => Ok(true),
        Err(err) if fault::status(&err) == Some(409) => Ok(false),
        Err(err) => Err(docker.fault(err)),
    }
}

/// Whether an image's only names are digests in the repositories of these names, which a pull by tag gives
/// too.
fn is_nameless(image: &ImageInspect, names: &BTreeSet<String>) -> bool {
    let ours: HashSet<&str> = names.iter().map(|name| repository(name)).collect();
    image.repo_tags.iter().flatten().all(|tag| tag == "<none>:<none>")
        && image.repo_digests.iter().flatten().all(|name| ours.contains(repository(name)))
}

/// A name without its digest and tag.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name)
}

/// Whether any container, running or not, was made of this image. The engine would remove one of several
/// names all the same.
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
    #[tokio::test]
    async fn an_image_pulled_while_the_engine_lists_stays_on_record() {
        let cache = Cache::new(None);
        cache.pulled("sha256:old", "a:1".to_owned(), false).await;
        cache.pulled("sha256:gone", "b:1".to_owned(), false).await;
        let began = Instant::now();
        cache.pulled("sha256:new", "c:1".to_owned(), false).await;
        let there = HashMap::from([("sha256:old".to_owned(), 7)]);
        let listed = still_there(&mut cache.images(), &there, began);
        assert_eq!(
            listed.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(),
            ["sha256:old"]
        );
        assert_eq!(cache.images().keys().collect::<Vec<_>>(), ["sha256:new", "sha256:old"]);
    }

    #[tokio::test]
    async fn an_image_that_a_job_asked_for_while_it_went_stays_on_record() {
        let cache = Cache::new(None);
        cache.pulled("sha256:1", "a:1".to_owned(), false).await;
        let now = cache.images()["sha256:1"].clone();
        let before = Entry { used: Timestamp::from_unix_ms(1), ..now.clone() };
        cache.forget("sha256:1", &before);
        assert!(cache.images().contains_key("sha256:1"));
        cache.forget("sha256:1", &now);
        assert!(cache.images().is_empty());
    }

    #[test]
    fn an_image_goes_by_its_id_only_when_nobody_else_named_it() {
        let names = BTreeSet::from(["127.0.0.1:5000/a:1".to_owned()]);
        let image = |tags: &[&str], digests: &[&str]| {
            let owned = |texts: &[&str]| Some(texts.iter().map(|&text| text.into()).collect());
            ImageInspect {
                repo_tags: owned(tags),
                repo_digests: owned(digests),
                ..ImageInspect::default()
            }
        };
        assert!(is_nameless(&image(&[], &["127.0.0.1:5000/a@sha256:1"]), &names));
        assert!(is_nameless(&ImageInspect::default(), &names));
        assert!(!is_nameless(&image(&["mine:1"], &["127.0.0.1:5000/a@sha256:1"]), &names));
        assert!(!is_nameless(&image(&[], &["127.0.0.1:5000/b@sha256:1"]), &names));
    }
}
