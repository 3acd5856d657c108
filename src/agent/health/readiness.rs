//! Whether the node can really work: only then does it say on the chain that it lives.
//!
//! What must hold: a chain that calls this node active is right about it; every question here has
//! a deadline.

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

/// How long the engine may take to answer.
const ENGINE: Duration = Duration::from_secs(10);

/// What a job needs here besides the job itself.
#[derive(Debug)]
pub struct Readiness<R, G> {
    /// NATS.
    pub link: Link,
    /// The engine.
    pub runtime: Arc<R>,
    /// The driver; not asked where the node has no cards.
    pub gpu: Arc<G>,
    /// Whose containers are listed.
    pub node: Address,
    /// The cards that the node started with.
    pub cards: Vec<GpuUuid>,
    /// What jobs and probes met.
    pub board: Board,
    /// Whether the engine sees the node's files.
    pub sight: Arc<Sight>,
}

/// Why no job could be run now.
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
    /// Not one of the cards that the node started with is left.
    #[error("none of the {0} GPUs that this node started with is there any more")]
    NoCard(usize),
    /// What a container or the store was tried for, and did not give.
    #[error("{0}")]
    Lacking(Unfit),
    /// The node starts, and tries that first.
    #[error("{0}")]
    Untried(Unfit),
}

impl NotReady {
    /// What is the matter, without what is the matter with it.
    pub fn words(self) -> String {
        match self {
            Self::Engine(words) | Self::Driver(words) => words,
            other => other.to_string(),
        }
    }
}

impl<R: ContainerRuntime, G: GpuProbe> Readiness<R, G> {
    /// Asks all of them; the first that fails is told.
    pub async fn check(&self) -> Result<(), NotReady> {
        if !self.link.is_up() {
            return Err(NotReady::Bus);
        }
        self.engine().await?;
        // The driver's library answers also where no container gets a card.
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

    /// Whether the engine answers, and sees the node's files.
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

    /// The cards that the driver knows now; `None` where the node has none and nobody is asked.
    pub async fn driver(&self) -> Option<Result<BTreeSet<GpuUuid>, NotReady>> {
        if self.cards.is_empty() {
            return None;
        }
        // A probe keeps its own deadline: a driver that hangs is told like one that is down.
        let inventory = self.gpu.inventory().await;
        let inventory = inventory.map_err(|err| NotReady::Driver(causes(&err)));
        Some(inventory.map(|it| it.gpus.into_iter().map(|gpu| gpu.uuid).collect()))
    }
}
