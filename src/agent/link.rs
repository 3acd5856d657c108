//! The connection to NATS that the rest of the agent shares and waits for.
//!
//! Invariants: there is one connection, made by [`Link::keep`]; everybody else waits here until it
//! is there and prepared, and keeps the same handle over reconnects. Only the owner decides how
//! jobs come in: a server without `JetStream` is waited for like one that is away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::bus::{self, Bus, DeliveryMode, Shortcoming};
use crate::clock::{Clock as _, SystemClock};
use crate::report::causes;
use crate::supervise::Failure;

/// Time between two warnings of credentials that are about to expire.
const WARN_EVERY: Duration = Duration::from_hours(12);

/// A handle on the bus, which may not be connected yet; clones share it.
#[derive(Debug, Clone)]
pub struct Link {
    online: Arc<watch::Sender<Option<Bus>>>,
}

impl Default for Link {
    fn default() -> Self {
        Self { online: Arc::new(watch::Sender::new(None)) }
    }
}

impl Link {
    /// Connects and prepares the streams, with `shared` also those of pools, and prepares them
    /// again after each reconnect; a service that ends only when the connection is closed, or when
    /// it fails.
    pub async fn keep(self, config: Arc<bus::Config>, shared: bool) -> Result<(), Failure> {
        let bus = match self.now() {
            Some(bus) => bus,
            None => Bus::connect(&config).await.map_err(again)?,
        };
        loop {
            let connection = bus.connection_number();
            let prepared = if shared { bus.prepare_pools().await } else { bus.prepare().await };
            match prepared {
                Ok(()) => {}
                Err(err) => return Err(again(err)),
            }
            if self.now().is_none() {
                tell(&bus);
                self.online.send_replace(Some(bus.clone()));
                warn(&bus).await;
            }
            let again_there = async {
                tokio::select! {
                    there = bus.connected_again(connection) => there,
                    never = tell_absence(&bus, &config) => match never {},
                }
            };
            match beside_warnings(&config, again_there).await {
                Ok(()) => {}
                Err(bus::Error::Closed) => return Ok(()),
                Err(err) => return Err(again(err)),
            }
        }
    }

    /// The bus; waits until there is one.
    pub async fn bus(&self) -> Bus {
        let mut online = self.online.subscribe();
        loop {
            if let Some(bus) = online.borrow_and_update().clone() {
                return bus;
            }
            // `self` holds the sender, so the channel is open.
            online.changed().await.ok();
        }
    }

    /// The bus; `None` until it was connected for the first time.
    pub fn now(&self) -> Option<Bus> {
        self.online.borrow().clone()
    }

    /// The number of connections that were made so far.
    pub fn connection(&self) -> u64 {
        self.now().map_or(0, |bus| bus.connection())
    }

    /// Whether jobs can reach this node now.
    pub fn is_up(&self) -> bool {
        self.now().is_some_and(|bus| bus.is_connected())
    }
}

/// A failure after which the service is restarted, with a hint for the owner.
fn again(err: bus::Error) -> Failure {
    match &err {
        bus::Error::Unreachable { .. } | bus::Error::Disconnected { .. } => {
            Failure::again(err, "is nats-server 2.10 or later running? NATS_URL says where it is")
        }
        bus::Error::Unauthorized { .. } => {
            Failure::again(err, "see NATS_CREDS or its like; a file is read again at each try")
        }
        bus::Error::Stream { .. } => Failure::again(err, "ask whoever runs the NATS server"),
        // Their own words say what to do, or that it passes.
        _ => Failure::Again(err.into()),
    }
}

/// Logs once why the connection stays away; never returns.
async fn tell_absence(bus: &Bus, config: &bus::Config) -> Infallible {
    match bus.absence(config).await {
        // The connection itself logs the first refusal.
        Ok(bus::Error::Unauthorized { .. }) | Err(_) => {}
        Ok(err) => tracing::warn!("NATS stays away: {}; it is tried again", causes(&err)),
    }
    std::future::pending().await
}

/// Does `work`, and warns at intervals of credentials that are about to expire.
async fn beside_warnings<T>(config: &bus::Config, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        let own = config.credentials.clone();
        let told = tokio::task::spawn_blocking(move || own.warning(SystemClock.now())).await;
        if let Ok(Some(warning)) = told {
            tracing::warn!("{warning}");
        }
        if let Ok(done) = tokio::time::timeout(WARN_EVERY, &mut work).await {
            return done;
        }
    }
}

fn tell(bus: &Bus) {
    let server = bus.server();
    match bus.mode() {
        DeliveryMode::JetStream => tracing::info!(server, "connected to NATS at {server}"),
        DeliveryMode::Core => tracing::warn!(
            server,
            "connected to NATS at {server} with NATS_MODE=core: jobs come at most once, pools have \
             no claims, and what is sent while this node is away is lost"
        ),
    }
}

/// Warns of shortcomings of the server that don't keep jobs from running.
async fn warn(bus: &Bus) {
    for Shortcoming { what, remedy } in bus.shortcomings(&[]).await.unwrap_or_default() {
        tracing::warn!("{what}; ask whoever runs the NATS server: {remedy}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_owner_is_told_to_look_at_fits_what_went_wrong() {
        let server = || "nats://h".to_owned();
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for (err, says) in [
            (
                bus::Error::Unreachable { server: server(), source: refused().into() },
                "is nats-server 2.10 or later running?",
            ),
            (
                bus::Error::Unauthorized { server: server(), what: ": they expired".to_owned() },
                "see NATS_CREDS or its like",
            ),
            (
                bus::Error::Stream { stream: "JOBS".to_owned(), problem: "no room".to_owned() },
                "ask whoever runs the NATS server",
            ),
            (bus::Error::NoGreeting { server: server() }, "NATS_TLS_HANDSHAKE=first"),
        ] {
            let is_away = matches!(err, bus::Error::Unreachable { .. });
            let Failure::Again(err) = again(err) else { panic!("{says}: it ends the program") };
            let told = err.to_string();
            assert!(told.contains(says), "{told}");
            assert_eq!(told.contains("is nats-server"), is_away, "{told}");
        }
    }
}
