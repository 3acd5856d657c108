//! The embedded store, gateways that misbehave, and another implementation of CIDs.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use lamda_node::artifact::{self, Config, Gateways, Pinata};
use lamda_node::secret::Secret;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::tools::tool;

/// Settings for these gateways and this pinning service, with short timeouts.
pub(crate) fn config(gateways: &[&str], pinata: &str) -> Config {
    Config {
        gateways: gateways.iter().map(|url| (*url).to_owned()).collect(),
        gateway_token: None,
        pinata_url: pinata.to_owned(),
        pinata_jwt: Secret::new("test-jwt"),
        pinata_rate_per_min: 600,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(10),
    }
}

/// The store of `lamda-node store`, served from this process.
pub(crate) struct Store {
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinSet<()>,
}

impl Store {
    /// Serves `dir` on a free port.
    pub(crate) async fn start(dir: &Path) -> Self {
        lamda_node::http::install_crypto();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let (dir, mut serving) = (dir.to_owned(), JoinSet::new());
        serving.spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            artifact::store::serve(&dir, listener, shutdown).await.unwrap();
        });
        Self { url, stop: Some(stop), serving }
    }

    pub(crate) fn gateways(&self) -> Gateways {
        Gateways::new(&config(&[&self.url], &self.url)).unwrap()
    }

    pub(crate) fn pinata(&self) -> Pinata {
        Pinata::new(&config(&[&self.url], &self.url)).unwrap()
    }

    /// Shuts it down as a signal would.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.serving.join_next().await.unwrap().unwrap();
    }
}

/// An HTTP server that answers every request with the result of `answer`.
pub(crate) struct Scripted {
    pub(crate) url: String,
    _serving: JoinSet<()>,
}

impl Scripted {
    pub(crate) async fn start<A: Future<Output = Response> + Send + 'static>(
        answer: impl Fn(Request) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
        Self { url, _serving: serving }
    }
}

/// The lines that the JavaScript implementation in tests/oracle prints.
pub(crate) fn oracle(command: &[&str], paths: &[PathBuf]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let missing = "ipfs-unixfs-importer is missing in tests/oracle/node_modules: scripts/test \
                   installs it (npm ci)";
    assert!(folder.join("node_modules/ipfs-unixfs-importer").is_dir(), "{missing}");
    let script = folder.join("cid.mjs");
    let run = Command::new(tool("node")).arg(script).args(command).args(paths).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap().lines().map(str::to_owned).collect()
}
