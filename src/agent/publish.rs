//! Statuses on their way to the world: taken from the journal in order, published, marked.
//!
//! What must hold: a status is marked as sent only after the server has it; the order per job is
//! the journal's; a message that is sent twice is the same byte for byte.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Desk;
use super::effects::Effects;
use crate::bus;
use crate::clock::Clock;
use crate::failpoint;
use crate::supervise::{Failure, chain};

/// Statuses that are read from the journal at once.
const BATCH: u32 = 64;

/// While NATS is away it is looked for this often: statuses leave soon after it is back.
const AWAY: Duration = Duration::from_millis(250);

/// Publishes statuses as they come; a service that ends only when it fails.
pub async fn run<E: Effects, C: Clock>(desk: Desk<C>, effects: Arc<E>) -> Result<(), Failure> {
    let mut away = false;
    loop {
        // Registered before the look, so that a status between the two is not missed.
        let more = desk.outbox.notified();
        match flush(&desk, effects.as_ref()).await {
            Ok(0) => more.await,
            Ok(_) => away = false,
            Err(Error::Bus(err)) if err.is_transient() => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!("statuses wait in the journal: {}", chain(&err));
                }
                desk.clock.sleep(AWAY).await;
            }
            Err(err) => return Err(Failure::Again(err.into())),
        }
    }
}

/// Publishes one batch of what waits; how many there were.
async fn flush<E: Effects, C>(desk: &Desk<C>, effects: &E) -> Result<usize, Error> {
    let waiting = desk.journal.unsent(BATCH).await?;
    for status in &waiting {
        failpoint::hit("say", ".before");
        effects.say(status).await?;
        failpoint::hit("say", ".after");
        desk.journal.sent(vec![status.row]).await?;
    }
    Ok(waiting.len())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the outbox can't be read or marked")]
    Journal(#[from] crate::journal::Error),
    #[error("statuses can't be published")]
    Bus(#[from] bus::Error),
}
