//! `POST /pinning/pinFileToIPFS`, as Pinata documents it.
//!
//! Invariants: the whole upload is on disk before it is hashed; a call that fails leaves nothing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::super::item::Item;
use super::super::unixfs::{LEGACY, NODE, Profile, cid};
use super::super::{ENTRIES_MAX, NAME_BYTES_MAX, names, task};
use super::objects::{Batch, Objects, Stored};
use super::{Error, HttpProblem, authorize};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::ids::Cid;
use crate::web::Json;
use crate::web::extract::State;
use crate::web::extract::multipart::{Field, Multipart, MultipartError};
use crate::web::http::{HeaderMap, StatusCode};

/// Bytes of one file received between two checks of the free disk space.
const SPACE_CHECK_BYTES: u64 = 32 * 1024 * 1024;
/// Files received between two checks of the free disk space.
const FILES_A_CHECK: usize = 100;
const OPTIONS_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    #[serde(rename = "cidVersion")]
    cid_version: u8,
}

/// The answer to a successful upload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pinned {
    ipfs_hash: Cid,
    pin_size: u64,
    timestamp: Timestamp,
}

/// `POST /pinning/pinFileToIPFS`: stores the uploaded file or folder.
pub(super) async fn pin(
    State(objects): State<Arc<Objects>>,
    headers: HeaderMap,
    mut form: Multipart,
) -> Result<Json<Pinned>, HttpProblem> {
    authorize(&headers)?;
    let mut batch = objects.batch()?;
    let (mut options, mut files) = (Options::default(), Vec::new());
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("file") if files.len() >= ENTRIES_MAX => return Err(refuse("too many files")),
            Some("file") => {
                if files.len() % FILES_A_CHECK == 0 {
                    objects.check_space()?;
                }
                let name = names::read(field.file_name().unwrap_or("file")).into_owned();
                let path = batch.folder().join(files.len().to_string());
                receive(&objects, &mut field, &path).await?;
                files.push((name, path));
            }
            Some("pinataOptions") => options = read_options(&mut field).await?,
            // Metadata and unknown fields don't affect the bytes.
            _ => {}
        }
    }
    let profile = match options.cid_version {
        0 => LEGACY,
        1 => NODE,
        _ => return Err(refuse("cidVersion is 0 or 1")),
    };
    let item = arrange(files).map_err(refuse)?;
    let stored = task::blocking(move |_| {
        let stored = keep(&mut batch, &item, &profile)?;
        batch.commit()?;
        Ok(stored)
    });
    let stored = stored.await?;
    Ok(Json(Pinned {
        ipfs_hash: cid(stored.summary.id, profile.version)?,
        pin_size: stored.summary.dag_bytes,
        timestamp: SystemClock.now(),
    }))
}

async fn receive(objects: &Objects, field: &mut Field<'_>, path: &Path) -> Result<(), HttpProblem> {
    // A file that arrives in one piece is written in one go: folders hold many such files.
    let first = field.chunk().await.map_err(broken)?.unwrap_or_default();
    let second = field.chunk().await.map_err(broken)?;
    let (to, mut unchecked) = (path.to_owned(), 0_u64);
    let file = task::blocking(move |_| {
        let mut file = std::fs::File::create_new(to)?;
        file.write_all(&first)?;
        Ok(file)
    });
    let mut file = tokio::fs::File::from_std(file.await?);
    let mut next = second;
    while let Some(piece) = next {
        unchecked += piece.len() as u64;
        if unchecked >= SPACE_CHECK_BYTES {
            objects.check_space()?;
            unchecked = 0;
        }
        file.write_all(&piece).await.map_err(Error::from)?;
        next = field.chunk().await.map_err(broken)?;
    }
    file.flush().await.map_err(|err| Error::from(err).into())
}

async fn read_options(field: &mut Field<'_>) -> Result<Options, HttpProblem> {
    let mut text = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        text.extend_from_slice(&piece);
        if text.len() > OPTIONS_BYTES_MAX {
            return Err(refuse("pinataOptions are too long"));
        }
    }
    serde_json::from_slice(&text).map_err(|_| refuse("pinataOptions can't be read"))
}

/// Builds the tree of an upload: one plain name is a file, names with a common first folder are
/// that folder.
fn arrange(files: Vec<(String, PathBuf)>) -> Result<Item<PathBuf>, &'static str> {
    if let [(name, _)] = files.as_slice()
        && !name.contains('/')
    {
        let only = files.into_iter().next().ok_or("no file")?;
        return Ok(Item::File(only.1));
    }
    let mut roots = BTreeMap::new();
    for (name, path) in files {
        let mut names: Vec<_> = name.trim_start_matches('/').split('/').collect();
        let hostile = |name: &&str| matches!(*name, "" | "." | "..") || name.contains('\0');
        // The first name is the object's own.
        if names::check_path(names.get(1..).unwrap_or_default()).is_err()
            || names.iter().any(|name| hostile(name) || name.len() > NAME_BYTES_MAX)
        {
            return Err("a name that no file can have");
        }
        let last = names.pop().ok_or("a file without a name")?;
        let mut folder = &mut roots;
        for name in names {
            let below = folder.entry(name.to_owned());
            let below = below.or_insert_with(|| Item::Directory(BTreeMap::new()));
            let Item::Directory(below) = below else {
                return Err("a file and a folder of one name");
            };
            folder = below;
        }
        if folder.insert(last.to_owned(), Item::File(path)).is_some() {
            return Err("two files of one name");
        }
    }
    let mut roots = roots.into_values();
    match (roots.next(), roots.next()) {
        (Some(root @ Item::Directory(_)), None) => Ok(root),
        (None, _) => Err("no file"),
        _ => Err("several files without a common folder"),
    }
}

fn keep(batch: &mut Batch, item: &Item<PathBuf>, profile: &Profile) -> Result<Stored, Error> {
    match item {
        Item::File(path) => batch.add_file(path, profile),
        Item::Directory(items) => {
            let mut entries = BTreeMap::new();
            for (name, item) in items {
                entries.insert(name.clone(), keep(batch, item, profile)?);
            }
            batch.add_directory(&entries, profile.version)
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err takes")]
fn broken(err: MultipartError) -> HttpProblem {
    HttpProblem::new(err.status(), "BAD_REQUEST", err.body_text())
}

fn refuse(details: &str) -> HttpProblem {
    HttpProblem::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", details)
}
