//! The record of what was pulled for jobs: the engine's image id by the name in the job, and when its
//! registry was last asked what the name means.
//!
//! The id is a hash of the image, so whatever the owner does to the name later, the image with this id is
//! what the registry gave a stranger. Must hold: losing this record costs one question to a registry, never a
//! job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::record;

/// Most names kept. A stranger who makes up more costs every other name one question to its registry.
const NAMES_MAX: usize = 2048;
/// Most bytes that are read of the file; a name with its id takes under 700.
const FILE_BYTES_MAX: u64 = 2 << 20;

type Names = BTreeMap<String, Known>;

/// What was pulled under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The engine's id of the image.
    pub(super) id: String,
    /// Whether the engine has the tag because a job pulled it, so that a pull may move it. Otherwise the tag
    /// is the owner's.
    pub(super) is_tag_ours: bool,
    /// The fingerprint of the owner's key that signed it, if that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed_by: Option<String>,
}

/// A registry's answer to what a tag means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It means the image that was pulled last.
    Confirmed,
    /// The registry did not answer.
    Away,
}

/// The record; its file is read at the first use.
#[derive(Debug, Default)]
pub(super) struct Record {
    path: Option<PathBuf>,
    names: OnceLock<Mutex<Names>>,
    asked: Mutex<BTreeMap<String, (Instant, Asked)>>,
}

impl Record {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, names: OnceLock::new(), asked: Mutex::default() }
    }

    /// The image that was pulled under this name.
    pub(super) fn known(&self, name: &str) -> Option<Known> {
        self.names().lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Notes what the registry answered just now.
    pub(super) fn asked(&self, name: String, said: Asked) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(name, (Instant::now(), said));
        while asked.len() > NAMES_MAX {
            asked.pop_first();
        }
    }

    /// The registry's answer, if it is younger than `ago`.
    pub(super) fn last_asked(&self, name: &str, ago: Duration) -> Option<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, said) = asked.get(name).filter(|(at, _)| at.elapsed() < ago)?;
        Some(*said)
    }

    /// Records what was pulled. A failed write is only a debug line, since losing the record is harmless.
    pub(super) async fn remember(&self, name: String, known: Known) {
        let text = {
            let mut names = self.names().lock().unwrap_or_else(PoisonError::into_inner);
            if names.insert(name, known.clone()).is_some_and(|before| before == known) {
                return;
            }
            while names.len() > NAMES_MAX {
                names.pop_first();
            }
            serde_json::to_vec(&*names).unwrap_or_default()
        };
        let Some(path) = self.path.clone() else { return };
        record::write(path, text, "pulled images").await;
    }

    fn names(&self) -> &Mutex<Names> {
        self.names.get_or_init(|| {
            Mutex::new(
                self.path
                    .as_deref()
                    .map(|path| record::read(path, FILE_BYTES_MAX))
                    .unwrap_or_default(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_record_outlives_the_process_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.json");
        let record = || Record::new(Some(path.clone()));
        let first = record();
        let known = |id: &str| Known { id: id.to_owned(), is_tag_ours: true, signed_by: None };
        first.remember("busybox:latest".to_owned(), known("sha256:1")).await;
        assert_eq!(record().known("busybox:latest"), Some(known("sha256:1")));
        for number in 0..=NAMES_MAX {
            let names = first.names();
            names.lock().unwrap().insert(format!("a{number}"), known("sha256:2"));
        }
        first.remember("z:1".to_owned(), known("sha256:3")).await;
        assert_eq!(record().names().lock().unwrap().len(), NAMES_MAX);
        // A broken file, or one of an older version, only costs a question to the registry.
        for text in ["{ broken", r#"{"z:1": "sha256:3"}"#] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(record().known("z:1"), None);
        }
    }
}
