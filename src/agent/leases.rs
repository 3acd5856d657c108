//! Tells the server that the jobs in hand are being worked on, so that it gives them to nobody
//! else.
//!
//! What must hold: this runs beside everything else, so that no slow step lets a lease run out.

use std::time::Duration;

use super::board::Board;
use super::link::Link;
use crate::bus::{self, Settle};
use crate::clock::Clock;
use crate::supervise::{Failure, chain};

/// A third of the shorter ack wait (30 s, for an agent's own queue).
const EVERY: Duration = Duration::from_secs(10);

/// Renews every lease at each tick; a service that never ends.
pub async fn run<C: Clock>(board: Board, link: Link, clock: C) -> Result<(), Failure> {
    loop {
        clock.sleep(EVERY).await;
        let (bus, _) = link.bus().await;
        for (id, delivery) in board.deliveries() {
            match bus.settle(&delivery, Settle::Progress).await {
                // The job is acknowledged already, or its stream was lost: it goes on all the same.
                Ok(()) | Err(bus::Error::StaleAck { .. }) => {}
                Err(err) => {
                    let text = chain(&err);
                    tracing::debug!(job.id = %id, "the lease of job {id} was not renewed: {text}");
                }
            }
        }
    }
}
