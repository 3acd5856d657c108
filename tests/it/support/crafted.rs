//! Images as a hostile author makes them: any settings, any files, any number of layers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::engine::{Engine, busybox_root};
use super::tools::tool;

/// An image with busybox's commands.
#[derive(Debug)]
pub(crate) struct Crafted {
    config: Value,
    layers: Vec<Vec<u8>>,
}

impl Crafted {
    /// With these settings, as in an image's `config`.
    pub(crate) fn new(config: Value) -> Self {
        Self { config, layers: vec![busybox_root("")] }
    }

    /// With one more layer, of these files: path, mode, content.
    pub(crate) fn with(mut self, files: &[(&str, u32, &[u8])]) -> Self {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, mode, content) in files {
            let mut file = tar::Header::new_gnu();
            file.set_mode(*mode);
            file.set_size(content.len() as u64);
            layer.append_data(&mut file, path, *content).expect("a file");
        }
        self.layers.push(layer.into_inner().expect("an archive"));
        self
    }

    /// With as many layers in all as this.
    pub(crate) fn of_layers(mut self, count: usize) -> Self {
        while self.layers.len() < count {
            let name = format!("layer-{}", self.layers.len());
            self = self.with(&[(&name, 0o644, b"x")]);
        }
        self
    }

    /// The layers, and the image's description that names them.
    pub(crate) fn parts(self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let digests: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        (self.layers, config.to_string().into_bytes())
    }

    /// Loads it into the engine under this name.
    pub(crate) async fn load(self, engine: &Engine, name: &str) {
        let (layers, config) = self.parts();
        let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
        let manifest = manifest.to_string().into_bytes();
        let files = names.into_iter().zip(layers);
        let files = files.chain([("config.json".to_owned(), config)]);
        engine.load(files.chain([("manifest.json".to_owned(), manifest)]).collect()).await;
        engine.client().inspect_image(name).await.expect("it is there");
    }
}

/// `sha256:` and the hash.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// The static program of tests/support-c/attacks.c.
pub(crate) fn attacks() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("attacks");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support-c/attacks.c");
    let built = Command::new(tool("cc"))
        .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror"])
        .args(["-o".as_ref(), program.as_os_str(), source.as_os_str()])
        .output()
        .expect("cc runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(program).expect("a program")
}
