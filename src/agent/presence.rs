//! Says in the bucket `NODES` that this node is there, what it offers and whether it takes jobs; and
//! knows who else is.
//!
//! What must hold: a node that takes no jobs says so; nothing waits for what is said here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::jobs::board::Board;
use super::link::Link;
use crate::bus::{self, PoolName};
use crate::clock::Clock;
use crate::ids::Address;
use crate::node::presence::{EVERY_S, Presence};
use crate::report::causes;
use crate::supervise::Failure;

/// How long one round may take.
const ROUND: Duration = Duration::from_secs(10);

/// Who says it.
#[derive(Debug)]
pub struct Crier<C> {
    /// This node.
    pub node: Address,
    /// NATS.
    pub link: Link,
    /// How it stands.
    pub board: Board,
    /// What it serves.
    pub pools: Vec<PoolName>,
    /// The time.
    pub clock: C,
}

impl<C: Clock> Crier<C> {
    /// Says it again and again; a service that never ends.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let mut failed = false;
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
                    tracing::warn!(
                        "the nodes of the pools can't know of this one: {}",
                        causes(&err)
                    );
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
        let (offer, aside) = self.board.offered();
        let why = if self.board.is_draining() {
            Some("it is being drained".to_owned())
        } else {
            self.board.unfit().map(|why| why.told())
        };
        Presence::new(pools, &offer, &aside).standing(self.board.free_slots(), why.as_deref())
    }
}

/// Who is there, as it was read last.
#[derive(Debug, Default)]
pub struct Neighbours(tokio::sync::Mutex<Option<(Instant, Vec<Presence>)>>);

/// What was read is good for so long: every delivery of a job that fits nobody here asks.
const GOOD_FOR: Duration = Duration::from_secs(5);

impl Neighbours {
    /// Who serves this pool.
    pub async fn of(&self, pool: &PoolName, bus: &bus::Bus) -> Result<Vec<Presence>, bus::Error> {
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
