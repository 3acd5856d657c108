//! The tool image: one program of ours (`probe/`, embedded by `build.rs`) and some empty folders. The node
//! makes its own containers of it (docs/adr/0031-tool-image.md).
//!
//! Must hold: the node imports it and never pulls it. Its tag is a hash of its content, so an engine that has
//! the tag has this node's image; other versions are removed once no container is made of them.

use std::path::Path;
use std::sync::LazyLock;

use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::super::Error;
use super::{Docker, fault, within};

/// The path of the image's one program, for a container's command; its subcommands are in
/// `probe/src/main.rs`.
pub const PROGRAM: &str = "/lamda-probe";

/// The name of all versions of the image.
const IMAGE: &str = "lamda-node/probe";
/// How many hex digits of the content's hash make the tag.
const TAG_DIGITS: usize = 16;
/// Folders that NVIDIA's toolkit writes to while it prepares a container.
const FOLDERS: [&str; 4] = ["etc/", "tmp/", "usr/", "usr/lib/"];
/// The folder in the image at which a host folder is mounted.
pub(super) const SHOWN: &str = "/tmp";

static EMBEDDED: &[u8] = include_bytes!(env!("LAMDA_PROBE"));

/// The tag of this node's version of the image.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut content = Sha256::new();
    for part in FOLDERS.iter().map(|folder| folder.as_bytes()).chain([EMBEDDED]) {
        content.update(part);
        content.update([0]);
    }
    let digest = data_encoding::HEXLOWER.encode(&content.finalize());
    digest.chars().take(TAG_DIGITS).collect()
});

impl Docker {
    /// The id of the tool image; imports the image if the engine doesn't have this version of it.
    pub async fn tool_image(&self) -> Result<String, Error> {
        let client = self.client().await?;
        let name = format!("{IMAGE}:{}", *TAG);
        let call = within(self.config.call_timeout, client.inspect_image(&name));
        match call.await {
            Ok(ImageInspect { id: Some(id), .. }) => return Ok(id),
            Err(err) if fault::status(&err) != Some(404) => return Err(self.fault(err)),
            _ => {}
        }
        let options =
            CreateImageOptionsBuilder::default().from_src("-").repo(IMAGE).tag(&TAG).build();
        let root = bollard::body_full(root().map_err(Error::Io)?);
        let import = client.create_image(Some(options), Some(root), None);
        self.call(import.try_for_each(|_| async { Ok(()) })).await?;
        let imported = self.call(client.inspect_image(&name)).await?;
        self.remove_others(&name).await?;
        Ok(imported.id.unwrap_or(name))
    }

    /// Removes the other versions of the image. A version with a container stays until the next import.
    async fn remove_others(&self, name: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let filters = std::collections::HashMap::from([("reference", vec![IMAGE])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let listed = self.call(client.list_images(Some(options))).await?;
        for old in listed.into_iter().flat_map(|image| image.repo_tags).filter(|tag| tag != name) {
            let removal = client.remove_image(&old, None::<RemoveImageOptions>, None);
            if let Err(err) = within(self.config.call_timeout, removal).await {
                tracing::debug!("{old} stays: {}", fault::one_line(&err.to_string()));
            }
        }
        Ok(())
    }
}

/// The image's root file system as a tar archive.
fn root() -> std::io::Result<Bytes> {
    let mut archive = Builder::new(Vec::new());
    add_folders(&mut archive, FOLDERS.iter().map(Path::new), 0o755)?;
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(EMBEDDED.len() as u64);
    archive.append_data(&mut header, PROGRAM.trim_start_matches('/'), EMBEDDED)?;
    archive.into_inner().map(Bytes::from)
}

/// A tar archive of these folders, without content and with this mode.
pub(super) fn folders<'a>(
    folders: impl Iterator<Item = &'a Path>,
    mode: u32,
) -> std::io::Result<Bytes> {
    let mut archive = Builder::new(Vec::new());
    add_folders(&mut archive, folders, mode)?;
    archive.into_inner().map(Bytes::from)
}

fn add_folders<'a>(
    archive: &mut Builder<Vec<u8>>,
    folders: impl Iterator<Item = &'a Path>,
    mode: u32,
) -> std::io::Result<()> {
    for folder in folders {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        archive.append_data(&mut header, folder, std::io::empty())?;
    }
    Ok(())
}
