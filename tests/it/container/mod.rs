//! Containers: one contract suite for the fake and the real engine, and what only a real engine can show.

mod cache;
#[cfg(test)]
mod contract;
mod copy;
mod gpu;
mod image;
mod network;
mod pull;
mod sandbox;
mod signed;
mod tool;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{
    ContainerId, ContainerRuntime, ContainerSpec, Error, Exit, ImagePolicy, Launched, Limits,
    LogChunk, LogStream, Mount, Network, Sandbox,
};
use lamda_node::ids::Address;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::engine::Engine;

/// The node that owns these containers.
fn node() -> Address {
    Address::new([0xa1; 20])
}

/// The spec of a container on `image_id` that runs `true`.
fn spec(name: &str, image_id: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        node: node(),
        job_id: name.parse().expect("the name is a job's id, too"),
        attempt: 3,
        image_id: image_id.to_owned(),
        entrypoint: None,
        command: Some(vec!["true".to_owned()]),
        env: Vec::new(),
        mounts: Vec::new(),
        volumes: std::env::temp_dir().join(format!("lamda-volumes-{name}")),
        gpus: Vec::new(),
        limits: Limits {
            memory_bytes: 64 << 20,
            nano_cpus: 1_000_000_000,
            pids: 32,
            shm_bytes: 1 << 20,
            disk_bytes: 1 << 30,
        },
        network: Network::None,
        sandbox: Sandbox::Standard,
    }
}

/// The mounts of a job: input and output.
fn mounts(folder: &TempDir) -> Vec<Mount> {
    let at = |name: &str| folder.path().join(name);
    for name in ["in", "out"] {
        std::fs::create_dir(at(name)).expect("a folder");
    }
    vec![
        Mount { host: at("in"), target: "/input".to_owned(), read_only: true },
        Mount { host: at("out"), target: "/output".to_owned(), read_only: false },
    ]
}

/// A real engine with busybox.
struct Bench {
    engine: Engine,
    docker: Docker,
    image_id: String,
    jobs: AtomicU32,
}

impl Bench {
    async fn start() -> Self {
        Self::on(Engine::start()).await
    }

    async fn on(engine: Engine) -> Self {
        let image_id = engine.import_busybox().await;
        Self { docker: engine.docker(), engine, image_id, jobs: AtomicU32::new(0) }
    }

    /// The adapter with these registries and local images allowed.
    fn docker_of(&self, registries: &[&str], local: &[&str]) -> Docker {
        let images = ImagePolicy::new(registries, local).expect("a policy");
        let config = Config { images, ..Config::new(self.engine.host()) };
        Docker::connect(&config).expect("an address")
    }

    /// The spec of a container with a new name that runs `script` in a shell.
    fn shell(&self, script: &str) -> ContainerSpec {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            ..spec(&format!("job-{number}"), &self.image_id)
        }
    }

    /// Runs a container to its end.
    async fn finish(&self, spec: &ContainerSpec) -> (ContainerId, Ending) {
        let id = run(&self.docker, spec).await.expect("it is started").id;
        let ending = watch(&self.docker, &id).await.expect("it ends");
        (id, ending)
    }
}

/// Creates the container and starts it.
async fn run(runtime: &impl ContainerRuntime, spec: &ContainerSpec) -> Result<Launched, Error> {
    let id = runtime.create(spec).await?;
    runtime.start(&id).await
}

/// A container's exit and all its output.
#[derive(Debug)]
struct Ending {
    exit: Exit,
    stdout: String,
    stderr: String,
}

/// Follows a container to its end.
async fn watch(runtime: &impl ContainerRuntime, id: &ContainerId) -> Result<Ending, Error> {
    let (sink, mut chunks) = mpsc::channel::<LogChunk>(4);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async {
        while let Some(chunk) = chunks.recv().await {
            match chunk.stream {
                LogStream::Stdout => stdout.extend_from_slice(&chunk.bytes),
                LogStream::Stderr => stderr.extend_from_slice(&chunk.bytes),
            }
        }
    };
    let (exit, ()) = tokio::join!(runtime.follow(id, sink, &|| ()), read);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ok(Ending { exit: exit?, stdout: text(stdout), stderr: text(stderr) })
}

/// The sorted names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}
