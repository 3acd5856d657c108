//! Speaks to the original side car's service as the original does: each record of a log as an event, and figures of
//! the chain.
//!
//! Invariants: a record is queued in the commit that takes it in, and leaves the queue when the service took it; one
//! post is on its way at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::gswarm::{Blockchain, IngestEvent, Metrics, Refused, Service};
use crate::seldom::Seldom;
use crate::sidecar::probe::Programs;
use crate::sidecar::store::{Error, Store};
use crate::supervise::Failure;
use crate::watch::line::Record;

/// The receiver's name in the queue.
pub const EVENTS: &str = "original.events";

/// How often what waits is sent: the original's `batch_flush_interval`.
const EVERY: Duration = Duration::from_secs(10);

/// How often figures of the chain are sent: the original's `send_interval`.
const FIGURES_EVERY: Duration = Duration::from_mins(5);

/// Most events of one post.
const AT_ONCE_MAX: u32 = 200;

/// The longest that a service which refuses is left alone.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(15));

const REMEDY: &str = "look at the disk under SIDECAR_DB";

/// The event of a record, for the queue.
pub fn event(node: &str, record: &Record, now: Timestamp) -> Option<(&'static str, String)> {
    let at = record.at.unwrap_or(now);
    let event = match record.level {
        Some(level) => {
            IngestEvent::record(node, at, level.as_str(), (&record.logger, &record.text))
        }
        None => IngestEvent::raw(node, at, &record.text),
    };
    Some((EVENTS, serde_json::to_string(&event).ok()?))
}

/// Sends what waits. One service.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The service.
    pub service: Arc<Service>,
    /// The database, with the queue.
    pub store: Store,
    /// What is watched: figures of the chain are those of the first program.
    pub programs: Programs,
}

impl Sender {
    /// Sends events until it is aborted.
    pub async fn events(self) -> Result<(), Failure> {
        let hourly = || Seldom::within(1, Duration::from_hours(1));
        let (clock, said, said_never) = (SystemClock, hourly(), hourly());
        let mut failures = 0_u32;
        loop {
            let wait =
                match self.send(&said_never).await.map_err(|err| Failure::again(err, REMEDY))? {
                    Sent::All => EVERY,
                    Sent::Some => Duration::ZERO,
                    Sent::Not(refused) => {
                        failures = failures.saturating_add(1);
                        if let Some(more) = said.line() {
                            tracing::warn!("the ingest service takes no events: {refused}{more}");
                        }
                        let wait =
                            refused.retry_after.unwrap_or_else(|| BACKOFF.jittered(failures));
                        clock.sleep(wait.min(Duration::from_hours(1))).await;
                        continue;
                    }
                };
            failures = 0;
            clock.sleep(wait).await;
        }
    }

    async fn send(&self, said_never: &Seldom) -> Result<Sent, Error> {
        let waiting = self.store.reports(EVENTS, AT_ONCE_MAX).await?;
        let events: Vec<IngestEvent> =
            waiting.iter().filter_map(|it| serde_json::from_str(&it.body).ok()).collect();
        let Some(last) = waiting.last().map(|it| it.id) else { return Ok(Sent::All) };
        let fitting = Service::fitting(&events).max(1).min(events.len());
        let is_whole = fitting == events.len();
        let now = events.get(..fitting).unwrap_or(&events);
        // What can't be read any more goes with those that can.
        let up_to = if is_whole {
            last
        } else {
            waiting.get(fitting.saturating_sub(1)).map_or(last, |it| it.id)
        };
        if now.is_empty() {
            self.store.reported(EVENTS, up_to).await?;
            return Ok(Sent::Some);
        }
        match self.service.ingest(now).await {
            Ok(_) => {
                self.store.reported(EVENTS, up_to).await?;
                let is_full = waiting.len() == AT_ONCE_MAX as usize || !is_whole;
                Ok(if is_full { Sent::Some } else { Sent::All })
            }
            Err(refused) if refused.is_final => {
                if let Some(more) = said_never.line() {
                    let count = now.len();
                    tracing::error!(
                        "the ingest service will never take {count} events: {refused}{more}"
                    );
                }
                self.store.reported(EVENTS, up_to).await?;
                Ok(Sent::Some)
            }
            Err(refused) => Ok(Sent::Not(refused)),
        }
    }

    /// Sends figures of the chain until it is aborted.
    pub async fn figures(self) -> Result<(), Failure> {
        let (clock, said) = (SystemClock, Seldom::within(1, Duration::from_hours(1)));
        loop {
            clock.sleep(FIGURES_EVERY).await;
            let Some(program) = self.programs.first() else { continue };
            let known = program.look();
            let Some(chain) = &known.state.chain else { continue };
            let figures = Blockchain {
                block_number: Some(chain.last.block),
                participation: chain.last.votes,
                total_rewards: chain.last.rewards.as_ref().and_then(|it| it.parse().ok()),
                total_wins: chain.last.wins,
                ..Blockchain::default()
            };
            let sent = self.service.metrics(chain.at, &Metrics::Blockchain(figures)).await;
            if let Err(refused) = sent
                && let Some(more) = said.line()
            {
                tracing::warn!(
                    "the metrics service takes no figures of the chain: {refused}{more}"
                );
            }
        }
    }
}

/// What became of what waited.
enum Sent {
    /// All was taken.
    All,
    /// Some of it was; there is more.
    Some,
    /// None of it.
    Not(Refused),
}
