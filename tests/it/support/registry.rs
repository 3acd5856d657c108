//! An image registry inside an engine's network, at [`ADDRESS`].

use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::crafted::{Crafted, digest};
use super::engine::Engine;
use super::tools::{Running, tool};

/// Its address for the engine, which accepts a loopback address without TLS.
pub(crate) const ADDRESS: &str = "127.0.0.1:5000";
/// The port of [`ADDRESS`].
pub(crate) const PORT: u16 = 5000;

/// User and password of a private registry. In plain base64 the password has a character that the
/// URL-safe alphabet, which the engine reads, does not have.
pub(crate) const ACCOUNT: (&str, &str) = ("worker", "pw>?~pw>?~pw>?~");
/// Its line in the registry's password file: bcrypt of the password above.
const HTPASSWD: &str = "worker:$2a$05$5Yv14cCuRd1HzVwgnngrB.tMQPVfg76Ejx/WttFvkRpST9/ke2bn2\n";

/// A registry; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    dir: TempDir,
    _running: Running,
}

impl Registry {
    /// Starts a public one.
    pub(crate) fn start(engine: &Engine) -> Self {
        Self::start_with(engine, "")
    }

    /// Starts one that requires [`ACCOUNT`].
    pub(crate) fn start_private(engine: &Engine) -> Self {
        Self::start_with(engine, "auth: {htpasswd: {realm: test, path: PASSWORDS}}\n")
    }

    fn start_with(engine: &Engine, auth: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("passwords"), HTPASSWD).expect("the passwords");
        let auth = auth.replace("PASSWORDS", &at("passwords").display().to_string());
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {ADDRESS}}}\n{auth}",
            at("data").display()
        );
        std::fs::write(at("config.yml"), config).expect("the settings");
        let running = Running::start(
            engine
                .command(&tool("docker-registry"))
                .arg("serve")
                .arg(at("config.yml"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        engine.wait_for_port(PORT);
        Self { dir, _running: running }
    }

    /// Moves `busybox:test` from the engine to the registry as `name:tag`, so that a pull fetches all of it;
    /// returns the manifest's digest.
    pub(crate) async fn take_busybox(&self, engine: &Engine, name: &str, tag: &str) -> String {
        let client = engine.client().with_request_modifier(|mut request| {
            // The client encodes accounts in plain base64, and the engine reads the URL-safe alphabet.
            if let Some(account) = request.headers_mut().get_mut("X-Registry-Auth") {
                let text = account.to_str().expect("base64").replace('+', "-").replace('/', "_");
                *account = text.parse().expect("a header");
            }
            request
        });
        let repository = format!("{ADDRESS}/{name}");
        let image = format!("{repository}:{tag}");
        let target = bollard::query_parameters::TagImageOptionsBuilder::default()
            .repo(&repository)
            .tag(tag)
            .build();
        client.tag_image("busybox:test", Some(target)).await.expect("a tag");
        let (username, password) = ACCOUNT;
        let account = bollard::auth::DockerCredentials {
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            ..Default::default()
        };
        let options =
            bollard::query_parameters::PushImageOptionsBuilder::default().tag(tag).build();
        let push = client.push_image(&repository, Some(options), Some(account));
        push.try_for_each(|_| async { Ok(()) }).await.expect("a push");
        let pushed = client.inspect_image(&image).await.expect("the image");
        let digests = pushed.repo_digests.expect("digests");
        let digest = digests
            .iter()
            .find_map(|entry| entry.strip_prefix(&format!("{repository}@")).map(str::to_owned));
        for name in [image.as_str(), "busybox:test"] {
            let force =
                bollard::query_parameters::RemoveImageOptionsBuilder::default().force(true).build();
            client.remove_image(name, Some(force), None).await.expect("the image is removed");
        }
        digest.expect("a digest of this registry")
    }

    /// Lays an image down in the registry as `name:tag` without an engine, which would refuse to have it.
    pub(crate) fn put(&self, image: Crafted, name: &str, tag: &str) {
        const KIND: &str = "application/vnd.docker";
        let (layers, config) = image.parts();
        let top = self.dir.path().join("data/docker/registry/v2");
        let write = |path: PathBuf, content: &[u8]| {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            std::fs::write(path, content).expect("a file of the registry");
        };
        let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
        let blob = |content: &[u8]| {
            let digest = digest(content);
            let hex = hex(&digest);
            write(top.join("blobs/sha256").join(&hex[..2]).join(hex).join("data"), content);
            digest
        };
        let repository = top.join("repositories").join(name);
        let part = |kind: &str, content: &[u8]| {
            let digest = blob(content);
            let link = repository.join("_layers/sha256").join(hex(&digest)).join("link");
            write(link, digest.as_bytes());
            json!({"mediaType": format!("{KIND}.{kind}"), "size": content.len(), "digest": digest})
        };
        let config = part("container.image.v1+json", &config);
        let layer = |layer: &Vec<u8>| part("image.rootfs.diff.tar.gzip", layer);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{KIND}.distribution.manifest.v2+json"),
            "config": config, "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = blob(manifest.to_string().as_bytes());
        let manifests = repository.join("_manifests");
        let revision = manifests.join("revisions/sha256").join(hex(&manifest));
        for folder in [revision, manifests.join("tags").join(tag).join("current")] {
            write(folder.join("link"), manifest.as_bytes());
        }
    }

    /// Moves `tag` of this repository to the image of `other`, as a push from elsewhere does.
    pub(crate) fn move_tag(&self, name: &str, tag: &str, other: &str) {
        let tags = self.dir.path().join("data/docker/registry/v2/repositories").join(name);
        let link = |tag: &str| tags.join("_manifests/tags").join(tag).join("current/link");
        std::fs::copy(link(other), link(tag)).expect("the tag is moved");
    }

    /// Puts a signature, in base64, of `payload` to the image with this digest, where cosign puts it.
    pub(crate) fn put_signature(&self, name: &str, digest: &str, payload: &[u8], signature: &str) {
        let root = self.dir.path().join("data/docker/registry/v2");
        let repository = root.join("repositories").join(name);
        let put = |path: PathBuf, content: &[u8]| {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, content).expect("it is written");
        };
        let blob = |content: &[u8]| {
            let hex = format!("{:x}", Sha256::digest(content));
            let folder = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
            put(folder.join("data"), content);
            let link = repository.join("_layers/sha256").join(&hex).join("link");
            put(link, format!("sha256:{hex}").as_bytes());
            hex
        };
        let (config, layer) = (blob(b"{}"), blob(payload));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": 2, "digest": format!("sha256:{config}"),
            },
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "size": payload.len(), "digest": format!("sha256:{layer}"),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }],
        });
        let hex = blob(manifest.to_string().as_bytes());
        let link = format!("sha256:{hex}");
        let manifests = repository.join("_manifests");
        let tag = manifests.join("tags").join(format!("{}.sig", digest.replace(':', "-")));
        for path in [
            manifests.join("revisions/sha256").join(&hex).join("link"),
            tag.join("current/link"),
            tag.join("index/sha256").join(&hex).join("link"),
        ] {
            put(path, link.as_bytes());
        }
    }

    /// Corrupts every layer, but no manifest and no configuration: a pull begins well and then fails.
    pub(crate) fn spoil_layers(&self) {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs");
        let layers: Vec<PathBuf> = files(&blobs).into_iter().filter(|file| is_gzip(file)).collect();
        assert!(!layers.is_empty(), "no layer in {}", blobs.display());
        for layer in layers {
            let mut bytes = std::fs::read(&layer).expect("a layer");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(layer, bytes).expect("a spoilt layer");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn is_gzip(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.starts_with(&[0x1f, 0x8b]))
}
