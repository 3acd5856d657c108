//! Carries events, and what the GPUs do, to Redis as the seed's dashboards read them.
//!
//! Must hold: while Redis is away or turned off, nothing waits for it but its own ring.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::{Inner, Redis, gpus};
use crate::backoff::Backoff;
use crate::fleet::seed_view::commands;
use crate::push::redis::{Connection, Error};
use crate::report::causes;
use crate::supervise::Failure;

/// The wait before the next try to connect.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The time between two reports of the GPUs.
const GPUS_EVERY: Duration = Duration::from_secs(5);

/// A service that never ends.
pub(super) async fn run(inner: Arc<Inner>) -> Result<(), Failure> {
    let Some(redis) = &inner.redis else { return std::future::pending().await };
    let mut on = redis.is_on.subscribe();
    let mut log = Log::default();
    loop {
        // The sender lives as long as `inner`.
        on.wait_for(|on| *on).await.ok();
        tokio::select! {
            never = serve(&inner, redis, &mut log) => match never {},
            () = turned_off(&mut on) => {}
        }
        redis.sink.ring.clear();
    }
}

async fn turned_off(on: &mut watch::Receiver<bool>) {
    on.wait_for(|on| !*on).await.ok();
}

/// What was logged of the server, so that nothing is said twice.
#[derive(Default)]
struct Log {
    is_away: bool,
    failures: u32,
}

async fn serve(inner: &Inner, redis: &Redis, log: &mut Log) -> std::convert::Infallible {
    loop {
        match redis.config.connect().await {
            Ok(connection) => {
                if log.failures == 0 || std::mem::take(&mut log.is_away) {
                    tracing::info!("connected to the Redis at {}", redis.config.server());
                }
                inner_leans(inner, true);
                let begun = Instant::now();
                let err = carry(inner, redis, connection).await;
                // One that refuses what is written is no reason to connect again and again.
                let has_worked =
                    begun.elapsed() > AGAIN.max && !matches!(err, Error::Refused { .. });
                if has_worked {
                    log.failures = 0;
                }
                failed(inner, log, &err);
            }
            Err(err) => failed(inner, log, &err),
        }
        tokio::time::sleep(AGAIN.jittered(log.failures)).await;
    }
}

fn inner_leans(inner: &Inner, answers: bool) {
    let mut services = inner.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    services.insert("redis".to_owned(), answers);
}

fn failed(inner: &Inner, log: &mut Log, err: &Error) {
    inner_leans(inner, false);
    log.failures = log.failures.saturating_add(1);
    let text = causes(err);
    if std::mem::replace(&mut log.is_away, true) {
        tracing::debug!("{text}");
    } else {
        tracing::warn!("{text}; events for it wait meanwhile, the newest of them");
    }
}

/// Writes batches until one fails.
async fn carry(inner: &Inner, redis: &Redis, mut connection: Connection) -> Error {
    let mut gpus_due = interval(GPUS_EVERY);
    gpus_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = redis.sink.ring.next(redis.flush) => {
                let events = batch.items().iter().flat_map(|(_, event)| commands(event));
                let all: Vec<_> = events.collect();
                match connection.write(&all).await {
                    Ok(()) => {
                        batch.sent();
                        redis.sink.tell_drops(inner);
                    }
                    Err(err) => return err,
                }
            }
            _ = gpus_due.tick() => {
                let report = gpus::report(inner);
                if let Err(err) = connection.write(&report).await {
                    return err;
                }
            }
        }
    }
}
