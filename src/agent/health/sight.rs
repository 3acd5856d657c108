//! Checks that the container engine sees this node's files and enforces containers' limits. The engine mounts
//! files by their paths, and if the engine is on another host, or the node in a container, the same path
//! leads to another file system.
//!
//! Invariants: no job's container is created before a file of the node was read back through the engine; the
//! check is repeated after the engine was away.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::container::{self, ContainerRuntime};
use crate::ids::Address;

/// The folder in the data folder for the engine to see, and the file in it.
const FOLDER: &str = "seen";
const FILE: &str = "nonce";

/// Shortest time between a failed check and the next: each check creates a container.
const AGAIN: Duration = Duration::from_secs(5);

/// Why no container may be created.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// The engine finds something else, or nothing, under the path of the node's file.
    #[error(
        "the engine sees another file system than this node: what lies in {} here is not what it \
         finds there; run both on one host, and where the node runs in a container, show it DATA_DIR \
         under the path that it has on the host",
        .0.display()
    )]
    Elsewhere(PathBuf),
    /// The last check failed a moment ago and is not repeated yet.
    #[error("the engine does not see this node's files")]
    Lately,
    /// The file to be read back could not be written.
    #[error("no file for the engine to read can be written")]
    Io(#[source] std::io::Error),
    /// The engine could not read the file, or does not enforce limits.
    #[error(transparent)]
    Engine(#[from] container::Error),
}

/// Whether the engine sees the node's files, if that is known.
#[derive(Debug)]
pub struct Sight {
    node: Address,
    data_dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    Nothing,
    Sees,
    /// The engine did not see the file at that moment.
    Not(Instant),
}

impl Sight {
    /// For this node and this data folder; nothing is known yet.
    pub fn new(node: Address, data_dir: PathBuf) -> Self {
        Self { node, data_dir, known: Mutex::new(Known::Nothing) }
    }

    /// Checks that the engine sees the node's files. A success holds until [`Sight::forget`].
    pub async fn of<R: ContainerRuntime>(&self, runtime: &R) -> Result<(), Unseen> {
        let mut known = self.known.lock().await;
        match *known {
            Known::Sees => return Ok(()),
            Known::Not(at) if at.elapsed() < AGAIN => return Err(Unseen::Lately),
            Known::Nothing | Known::Not(_) => {}
        }
        let looked = self.look(runtime).await;
        *known = match &looked {
            Ok(()) => Known::Sees,
            // No container was created, so the next caller may ask at once.
            Err(Unseen::Engine(_)) => Known::Nothing,
            Err(_) => Known::Not(Instant::now()),
        };
        looked
    }

    /// Forgets what is known, because the engine was away and another one may come back.
    pub async fn forget(&self) {
        *self.known.lock().await = Known::Nothing;
    }

    async fn look<R: ContainerRuntime>(&self, runtime: &R) -> Result<(), Unseen> {
        runtime.limits().await?;
        let folder = self.data_dir.join(FOLDER);
        let file = folder.join(FILE);
        let nonce = format!("{:032x}", fastrand::u128(..));
        let (at, text) = (file.clone(), nonce.clone());
        let write = move || std::fs::create_dir_all(folder).and_then(|()| std::fs::write(at, text));
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|err| Err(std::io::Error::other(err))).map_err(Unseen::Io)?;
        let read = runtime.read_back(self.node, &file).await?;
        if read.as_deref() == Some(nonce.as_bytes()) {
            Ok(())
        } else {
            Err(Unseen::Elsewhere(self.data_dir.clone()))
        }
    }
}
