//! Tells when the connection to NATS is lost, and when it is back.

use super::Events;
use crate::agent::link::Link;
use crate::bus;
use crate::fleet::kinds;
use crate::supervise::Failure;

/// A service that ends only when the connection is closed for good.
pub(super) async fn run(events: Events, link: Link) -> Result<(), Failure> {
    let bus = link.bus().await;
    loop {
        let connection = bus.connection_number();
        let server = bus.server();
        events.leans_on("nats", true);
        events.tell(kinds::LINK_CONNECTED, &format!("connected to NATS at {server}"), |event| {
            event.with("connection", connection)
        });
        if let Err(bus::Error::Closed) = bus.lost(connection).await {
            return Ok(());
        }
        events.leans_on("nats", false);
        events.tell(kinds::LINK_LOST, "the connection to NATS is gone", |event| {
            event.with("connection", connection)
        });
        if let Err(bus::Error::Closed) = bus.connected().await {
            return Ok(());
        }
    }
}
