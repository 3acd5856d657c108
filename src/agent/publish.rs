//! Statuses on their way to the world: taken from the journal in order, published, marked.
//!
//! What must hold: a status is marked as sent only after the server has it; the order per job is
//! the journal's; a message that is sent twice is the same byte for byte.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::link::Link;
use crate::bus::{self, Bus};
use crate::clock::Clock;
use crate::journal::{Journal, Outgoing, OutgoingKind};
use crate::node::Address;
use crate::supervise::{Failure, chain};

/// Statuses that are read from the journal at once.
const BATCH: u32 = 64;

/// While NATS is away it is looked for this often: statuses leave soon after it is back.
const AWAY: Duration = Duration::from_millis(250);

/// Publishes statuses as they come; a service that ends only when it fails.
pub async fn run<C: Clock>(
    journal: Journal,
    link: Link,
    node: Address,
    outbox: Arc<Notify>,
    clock: C,
) -> Result<(), Failure> {
    let (bus, _) = link.bus().await;
    let mut away = false;
    loop {
        // Registered before the look, so that a status between the two is not missed.
        let more = outbox.notified();
        match flush(&journal, &bus, node).await {
            Ok(0) => more.await,
            Ok(_) => away = false,
            Err(Error::Bus(err)) if err.is_transient() => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!("statuses wait in the journal: {}", chain(&err));
                }
                clock.sleep(AWAY).await;
            }
            Err(err) => return Err(Failure::Again(err.into())),
        }
    }
}

/// Publishes one batch of what waits; how many there were.
async fn flush(journal: &Journal, bus: &Bus, node: Address) -> Result<usize, Error> {
    let waiting = journal.unsent(BATCH).await?;
    let count = waiting.len();
    for outgoing in waiting {
        let row = outgoing.row;
        send(bus, node, outgoing).await?;
        journal.sent(vec![row]).await?;
    }
    Ok(count)
}

async fn send(bus: &Bus, node: Address, outgoing: Outgoing) -> Result<(), bus::Error> {
    let body = outgoing.body.into();
    match outgoing.kind {
        OutgoingKind::New => bus.publish_status(node, &outgoing.job_id, outgoing.seq, body).await,
        OutgoingKind::Again => bus.repeat_status(body).await,
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the outbox can't be read or marked")]
    Journal(#[from] crate::journal::Error),
    #[error("statuses can't be published")]
    Bus(#[from] bus::Error),
}
