//! How much a pull would download, by the manifest of the image, before anything is pulled.
//!
//! Must hold: it takes a bounded time, and a registry that does not say holds no job up; a manifest is a
//! stranger's word, so a size that it plays down is met by the disk's own limits later.

use std::time::Duration;

use serde::Deserialize;

use super::super::image::Reference;
use super::super::{Error, NotAllowed};
use super::registry::{RegistryError, Repository};
use super::{Docker, images, pull};

/// Time limit for one answer of the registry, and for all of them.
const IDLE: Duration = Duration::from_secs(3);
const TOTAL: Duration = Duration::from_secs(8);

/// A manifest, or a list of manifests by platform.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Listed {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Bytes that a pull of this image would download; `None` if it is here or if that is not known.
pub(super) async fn of(docker: &Docker, text: &str) -> Result<Option<u64>, Error> {
    let policy = &docker.config.images;
    let not_allowed =
        |reason: NotAllowed| Error::ImageNotAllowed { reference: text.to_owned(), reason };
    policy.check(text).map_err(not_allowed)?;
    let reference: Reference =
        text.parse().map_err(|reason| not_allowed(NotAllowed::Invalid(reason)))?;
    let name = reference.local_name();
    let known = docker.pulled.known(&name).map(|known| known.id);
    for here in [Some(name), known].into_iter().flatten() {
        if images::inspect(docker, &here).await?.is_some() {
            return Ok(None);
        }
    }
    if !policy.allows_pull(&reference) {
        return Ok(None);
    }
    let architecture = docker.call(docker.client().await?.version()).await?.arch;
    let Ok(account) = pull::account_at(docker, &reference).await else { return Ok(None) };
    let asked = async {
        let mut repository = Repository::of(&reference, account, IDLE)?;
        let manifest = repository.manifest(reference.version()).await?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest.bytes) else {
            return Ok(None);
        };
        let architecture = architecture.as_deref().unwrap_or_default();
        let Some(digest) = manifest.digest_for(architecture) else {
            return Ok(manifest.bytes());
        };
        let manifest = repository.manifest(digest).await?;
        let manifest = serde_json::from_slice::<Manifest>(&manifest.bytes).ok();
        Ok::<_, RegistryError>(manifest.and_then(|manifest| manifest.bytes()))
    };
    match tokio::time::timeout(TOTAL, asked).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(err)) => {
            let why = crate::report::causes(&err);
            tracing::debug!("the registry of {reference} does not say how large it is: {why}");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

impl Manifest {
    /// The manifest for this architecture, if this is a list.
    fn digest_for(&self, architecture: &str) -> Option<&str> {
        let fits = |listed: &&Listed| {
            let platform = listed.platform.as_ref();
            platform.is_some_and(|it| it.os == "linux" && it.architecture == architecture)
        };
        self.manifests.iter().find(fits).map(|listed| listed.digest.as_str())
    }

    /// All layers together; `None` if it lists none.
    fn bytes(&self) -> Option<u64> {
        let sum = self.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        (!self.layers.is_empty()).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_its_size_and_a_list_the_manifest_for_this_host() {
        let list = r#"{"manifests": [
            {"digest": "sha256:w", "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": "sha256:a", "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": "sha256:x", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "sha256:n"}
        ]}"#;
        let list: Manifest = serde_json::from_str(list).unwrap();
        assert_eq!((list.digest_for("amd64"), list.bytes()), (Some("sha256:x"), None));
        assert_eq!(list.digest_for("riscv64"), None);
        let one = r#"{"layers": [{"size": 7}, {"size": 18446744073709551615}], "config": {}}"#;
        let one: Manifest = serde_json::from_str(one).unwrap();
        assert_eq!((one.digest_for("amd64"), one.bytes()), (None, Some(u64::MAX)));
    }
}
