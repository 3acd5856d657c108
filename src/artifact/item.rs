//! A folder's content by name, and how it is looked at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file, or a folder with its entries by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<T> {
    File(T),
    Directory(BTreeMap<String, Item<T>>),
}

impl<T> Item<T> {
    /// All files, each with its path as a list of names.
    pub(super) fn files(&self) -> Vec<(Vec<&str>, &T)> {
        let mut files = Vec::new();
        let mut open = vec![(Vec::new(), self)];
        while let Some((path, item)) = open.pop() {
            match item {
                Item::File(file) => files.push((path, file)),
                Item::Directory(items) => open.extend(items.iter().rev().map(|(name, item)| {
                    let mut path = path.clone();
                    path.push(name.as_str());
                    (path, item)
                })),
            }
        }
        files
    }
}

/// A file of an object: its size and location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    bytes: u64,
    /// Real path below the root, if the file is reached through a link.
    lies_at: Option<Vec<String>>,
}

impl Leaf {
    /// A file at its own path.
    pub(super) const fn plain(bytes: u64) -> Self {
        Self { bytes, lies_at: None }
    }

    /// A file that is reached through a link and really lies at `lies_at`.
    pub(super) const fn behind(bytes: u64, lies_at: Vec<String>) -> Self {
        Self { bytes, lies_at: Some(lies_at) }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn lies_at(&self) -> Option<&[String]> {
        self.lies_at.as_deref()
    }
}

/// How a file or folder is read: what its absolute links mean, and how large it may be. The same
/// folder under the same view gives the same tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Path under which the links' author saw it; absolute links that begin with it lead into it.
    pub seen_as: String,
    /// Maximum bytes of its files; the copies that links add may have as many again.
    pub bytes_max: u64,
}
