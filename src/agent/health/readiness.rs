//! Checks whether the node can really work. Only then does it send heartbeats.
//!
//! Invariants: a node that the chain calls active can work; every check has a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::sight::Sight;
use crate::agent::jobs::board::Board;
use crate::agent::link::Link;
use crate::container::ContainerRuntime;
use crate::gpu::GpuProbe;
use crate::ids::Address;
use crate::node::GpuUuid;
use crate::node::fitness::Unfit;
use crate::report::causes;

/// Time limit for the engine's answer.
const ENGINE: Duration = Duration::from_secs(10);

/// What every job needs from this node.
#[derive(Debug)]
pub struct Readiness<R, G> {
    /// The connection to NATS.
    pub link: Link,
    /// The container engine.
    pub runtime: Arc<R>,
    /// The GPU driver; not asked if the node has no GPUs.
    pub gpu: Arc<G>,
    /// The node whose containers are listed to test the engine.
    pub node: Address,
    /// The GPUs that the node started with.
    pub cards: Vec<GpuUuid>,
    /// The board, which knows the findings of jobs and probes.
    pub board: Board,
    /// Whether the engine sees the node's files.
    pub sight: Arc<Sight>,
}

/// Why no job could run now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No job can reach the node.
    #[error("NATS can't be reached, so no job could reach this node")]
    Bus,
    /// No container can be started.
    #[error("the container engine can't be used: {0}")]
    Engine(String),
    /// The driver does not answer.
    #[error("the GPUs can't be used: {0}")]
    Driver(String),
    /// None of the GPUs that the node started with is left.
    #[error("none of the {0} GPUs that this node started with is there any more")]
    NoCard(usize),
    /// A trial of a container or of the store failed, or jobs did.
    #[error("{0}")]
    Lacking(Unfit),
    /// The node is starting and has not finished its trials.
    #[error("{0}")]
    Untried(Unfit),
}

impl NotReady {
    /// The cause alone, without the words about the engine or the GPUs.
    pub fn words(self) -> String {
        match self {
            Self::Engine(words) | Self::Driver(words) => words,
            other => other.to_string(),
        }
    }
}

impl<R: ContainerRuntime, G: GpuProbe> Readiness<R, G> {
    /// Checks NATS, the engine, the GPUs and the board's trials; returns the first failure.
    pub async fn check(&self) -> Result<(), NotReady> {
        if !self.link.is_up() {
            return Err(NotReady::Bus);
        }
        self.engine().await?;
        // The driver's library answers even if no container gets a GPU.
        let lacking = match self.board.lacks() {
            Some(Unfit::Driver(why)) => return Err(NotReady::Driver(why)),
            lacking => lacking,
        };
        if let Some(found) = self.driver().await
            && found?.is_disjoint(&self.cards.iter().cloned().collect())
        {
            return Err(NotReady::NoCard(self.cards.len()));
        }
        match lacking {
            None => Ok(()),
            Some(why @ Unfit::Untried(_)) => Err(NotReady::Untried(why)),
            Some(why) => Err(NotReady::Lacking(why)),
        }
    }

    /// Checks that the engine answers and sees the node's files.
    pub async fn engine(&self) -> Result<(), NotReady> {
        let answers = self.engine_answers().await;
        if answers.is_err() {
            self.sight.forget().await;
        }
        answers?;
        let sees = self.sight.of(self.runtime.as_ref()).await;
        sees.map_err(|err| NotReady::Engine(causes(&err)))
    }

    async fn engine_answers(&self) -> Result<(), NotReady> {
        match tokio::time::timeout(ENGINE, self.runtime.list(self.node)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(err)) => Err(NotReady::Engine(causes(&err))),
            Err(_) => {
                let text = format!("no answer in {} s", ENGINE.as_secs());
                Err(NotReady::Engine(text))
            }
        }
    }

    /// The GPUs that the driver reports now; `None` if the node has none, in which case the driver is not
    /// asked.
    pub async fn driver(&self) -> Option<Result<BTreeSet<GpuUuid>, NotReady>> {
        if self.cards.is_empty() {
            return None;
        }
        // `inventory` has its own deadline: a driver that hangs is reported like one that is down.
        let inventory = self.gpu.inventory().await;
        let inventory = inventory.map_err(|err| NotReady::Driver(causes(&err)));
        Some(inventory.map(|it| it.gpus.into_iter().map(|gpu| gpu.uuid).collect()))
    }
}
