//! Carries what waits in a ring to Redis.
//!
//! Invariants: while Redis is away nothing waits for it but the ring; the owner is told once that it is away, and how
//! much was dropped meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::Sinks;
use crate::backoff::Backoff;
use crate::clock::{Clock as _, SystemClock};
use crate::fleet::seed_view::llama::Told;
use crate::push::Ring;
use crate::push::redis::{Connection, Error};
use crate::report::causes;
use crate::seldom::Seldom;
use crate::sidecar::settings::RedisLink;
use crate::supervise::Failure;

/// The wait before the next try to connect.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// Carries one of the rings. One service.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    pub(super) link: RedisLink,
    pub(super) sinks: Arc<Sinks>,
    pub(super) is_lines: bool,
}

/// What was said of the server.
#[derive(Debug)]
struct Log {
    is_away: bool,
    failures: u32,
    /// How many drops were told.
    dropped: u64,
    partly: Seldom,
}

impl Carrier {
    /// Carries until it is aborted.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let ring = if self.is_lines { &self.sinks.lines } else { &self.sinks.events };
        let partly = Seldom::within(1, Duration::from_hours(1));
        let mut log = Log { is_away: false, failures: 0, dropped: ring.counts().dropped, partly };
        loop {
            let Err(err) = self.serve(ring, &mut log).await;
            log.failures = log.failures.saturating_add(1);
            let text = causes(&err);
            if std::mem::replace(&mut log.is_away, true) {
                tracing::debug!("{text}");
            } else {
                tracing::warn!("{text}; what is for it waits meanwhile, the newest of it");
            }
            SystemClock.sleep(AGAIN.jittered(log.failures)).await;
        }
    }

    async fn serve(&self, ring: &Ring<Told>, log: &mut Log) -> Result<Infallible, Error> {
        let mut connection: Connection = self.link.redis.connect().await?;
        loop {
            let batch = ring.next(self.link.flush).await;
            let commands: Vec<_> =
                batch.items().iter().flat_map(|(_, told)| told.commands()).collect();
            match connection.write(&commands).await {
                Ok(()) => {}
                // What did not arrive would not arrive by a repetition either.
                Err(err @ Error::Partly { .. }) => {
                    if let Some(more) = log.partly.line() {
                        tracing::warn!("{}{more}", causes(&err));
                    }
                }
                Err(err) => return Err(err),
            }
            batch.sent();
            log.wrote(ring, &self.link.redis.server(), self.is_lines);
        }
    }
}

impl Log {
    fn wrote(&mut self, ring: &Ring<Told>, server: &str, is_lines: bool) {
        self.failures = 0;
        if std::mem::take(&mut self.is_away) {
            tracing::info!("the Redis at {server} answers again");
        }
        let dropped = ring.counts().dropped;
        let missed = dropped.saturating_sub(self.dropped);
        if missed > 0 && ring.counts().queued == 0 {
            self.dropped = dropped;
            let what = if is_lines { "lines" } else { "events" };
            tracing::warn!(
                "{missed} {what} were dropped while the Redis at {server} was away or slow"
            );
        }
    }
}
