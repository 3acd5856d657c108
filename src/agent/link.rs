//! The connection to NATS, as far as the rest of the agent waits for it.
//!
//! What must hold: there is one connection, made by [`Link::keep`]; everybody else waits here until
//! it is there, and goes on with the same handle over reconnects.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bus::{self, Bus, DeliveryMode};
use crate::supervise::Failure;

/// The bus once it is there.
#[derive(Debug, Clone)]
pub struct Link {
    online: Arc<watch::Sender<Option<(Bus, DeliveryMode)>>>,
}

impl Default for Link {
    fn default() -> Self {
        Self { online: Arc::new(watch::Sender::new(None)) }
    }
}

impl Link {
    /// Connects and prepares the streams, once. Run as a service: tried again until it succeeds.
    pub async fn keep(self, config: Arc<bus::Config>) -> Result<(), Failure> {
        let again = |err: bus::Error| {
            Failure::again(err, "is nats-server 2.10 or later running? NATS_URL says where it is")
        };
        let bus = Bus::connect(&config).await.map_err(again)?;
        let mode = bus.prepare().await.map_err(again)?;
        let server = bus.server();
        match mode {
            DeliveryMode::JetStream => tracing::info!(server, "connected to NATS at {server}"),
            DeliveryMode::Core => tracing::warn!(
                server,
                "the NATS server at {server} has no JetStream: jobs come at most once, and what is \
                 sent while this node is away is lost. Start it with JetStream (`-js`)"
            ),
        }
        self.online.send_replace(Some((bus, mode)));
        Ok(())
    }

    /// The bus; waits until there is one.
    pub async fn bus(&self) -> (Bus, DeliveryMode) {
        let mut online = self.online.subscribe();
        loop {
            if let Some(pair) = online.borrow_and_update().clone() {
                return pair;
            }
            // The sender lives in `self`: it can't be gone.
            online.changed().await.ok();
        }
    }

    /// The bus, where there is one now.
    pub fn now(&self) -> Option<Bus> {
        self.online.borrow().as_ref().map(|(bus, _)| bus.clone())
    }

    /// How many connections there have been.
    pub fn connection(&self) -> u64 {
        self.now().map_or(0, |bus| bus.connection())
    }

    /// Whether jobs can reach this node now.
    pub fn is_up(&self) -> bool {
        self.now().is_some_and(|bus| bus.is_connected())
    }
}
