//! Publishes in the bucket `NODES` that this node is there, what it offers and whether it takes
//! jobs, and reads the same of other nodes.
//!
//! Invariants: a node that takes no jobs says so; nothing waits for what is published here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::jobs::board::Board;
use super::key::instance::Instance;
use super::key::sole::Sole;
use super::link::Link;
use crate::bus::{self, PoolName};
use crate::clock::Clock;
use crate::ids::Address;
use crate::node::presence::{EVERY_S, Presence};
use crate::report::causes;
use crate::supervise::Failure;

/// Time limit for one write or read of the bucket.
const ROUND: Duration = Duration::from_secs(10);

/// The service that publishes the presence of this node.
#[derive(Debug)]
pub(super) struct Crier<C> {
    /// The node's address.
    pub node: Address,
    /// The connection to NATS.
    pub link: Link,
    /// This run of the program, and whether it may use the key.
    pub me: (Instance, Sole),
    /// The state of the node's slots and GPUs.
    pub board: Board,
    /// The pools that the node serves.
    pub pools: Vec<PoolName>,
    /// The clock; tests use their own.
    pub clock: C,
}

impl<C: Clock> Crier<C> {
    /// Publishes at intervals and when the node becomes fit or unfit; a service that never ends.
    pub(super) async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let mut failed = false;
        // Before that another run of the program may speak for the node.
        self.me.1.known_sole().await;
        loop {
            let bus = self.link.bus().await;
            let fit = self.board.unfit().is_none();
            let said = self.presence();
            let put = timeout(ROUND, bus.put_presence(self.node, &said)).await;
            let put =
                put.unwrap_or(Err(bus::Error::Timeout { what: "say that this node is there" }));
            match put {
                Ok(()) => failed = false,
                Err(err) if !failed => {
                    failed = true;
                    // Also a node without pools says how it does: to whoever watches the fleet.
                    let whose = if self.pools.is_empty() {
                        "nobody can see in NODES how this node does"
                    } else {
                        "the nodes of the pools can't know of this one"
                    };
                    tracing::warn!("{whose}: {}", causes(&err));
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.board.becomes_fit(!fit) => {}
                () = self.clock.sleep(Duration::from_secs(EVERY_S)) => {}
            }
        }
    }

    fn presence(&self) -> Presence {
        let pools = self.pools.iter().map(ToString::to_string).collect();
        let (offer, out) = self.board.offered();
        let why = if self.board.is_draining() {
            Some("it is being drained".to_owned())
        } else {
            self.board.unfit().map(|why| why.told())
        };
        let said = Presence::new(pools, &offer, &out).said_by(self.me.0.as_str());
        let said = if self.board.is_strict() { said.strict() } else { said };
        said.standing(self.board.free_slots(), why.as_deref())
    }
}

/// The nodes that are there, as last read.
#[derive(Debug, Default)]
pub(super) struct Neighbours(tokio::sync::Mutex<Option<(Instant, Vec<Presence>)>>);

/// How long a read stays valid: every delivery of a pool's job that this node can't run asks.
const GOOD_FOR: Duration = Duration::from_secs(5);

impl Neighbours {
    /// The nodes that serve this pool, this one among them.
    pub(super) async fn of(
        &self,
        pool: &PoolName,
        bus: &bus::Bus,
    ) -> Result<Vec<Presence>, bus::Error> {
        let mut known = self.0.lock().await;
        let fresh = known.take().filter(|(at, _)| at.elapsed() < GOOD_FOR);
        let all = if let Some(fresh) = fresh {
            fresh
        } else {
            let read = timeout(ROUND, bus.presences()).await;
            let read = read.unwrap_or(Err(bus::Error::Timeout { what: "read who is there" }))?;
            (Instant::now(), read)
        };
        let (_, presences) = known.insert(all);
        let serves = |one: &&Presence| one.pools.iter().any(|name| *name == pool.to_string());
        Ok(presences.iter().filter(serves).cloned().collect())
    }
}
