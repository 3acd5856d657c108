//! Carries events, and what the GPUs do, to Redis as the seed's dashboards read them.
//!
//! Must hold: while Redis is away or turned off, nothing waits for it but its own ring.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

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
        redis.sink.is_working(false);
    }
}

async fn turned_off(on: &mut watch::Receiver<bool>) {
    on.wait_for(|on| !*on).await.ok();
}

/// What was logged of the server, so that nothing is said twice.
#[derive(Default)]
struct Log {
    is_away: bool,
    /// It is there, and takes nothing.
    is_refusal: bool,
    is_partial: bool,
    failures: u32,
}

impl Log {
    /// It can be reached. Whether one that refused takes anything now is not known before something is written.
    fn connected(&mut self, inner: &Inner, redis: &Redis) {
        if self.is_refusal {
            return;
        }
        redis.sink.is_working(true);
        leans(inner, true);
        let server = redis.config.server();
        if std::mem::take(&mut self.is_away) {
            tracing::info!("the Redis at {server} answers again");
        } else {
            tracing::info!("connected to the Redis at {server}");
        }
    }

    /// Something was written, all of it or a part.
    fn wrote(&mut self, inner: &Inner, redis: &Redis, partly: Option<&Error>) {
        self.failures = 0;
        self.is_refusal = false;
        if std::mem::take(&mut self.is_away) {
            leans(inner, true);
            tracing::info!("the Redis at {} takes events again", redis.config.server());
        }
        match partly {
            Some(err) if !std::mem::replace(&mut self.is_partial, true) => {
                tracing::warn!("{}", causes(err));
            }
            _ => {}
        }
    }

    fn failed(&mut self, inner: &Inner, redis: &Redis, err: &Error) {
        redis.sink.is_working(false);
        leans(inner, false);
        self.is_refusal = matches!(err, Error::Refused { .. });
        self.failures = self.failures.saturating_add(1);
        let text = causes(err);
        if std::mem::replace(&mut self.is_away, true) {
            tracing::debug!("{text}");
        } else {
            tracing::warn!("{text}; events for it wait meanwhile, the newest of them");
        }
    }
}

fn leans(inner: &Inner, answers: bool) {
    let mut services = inner.services.lock().unwrap_or_else(PoisonError::into_inner);
    services.insert("redis".to_owned(), answers);
}

async fn serve(inner: &Inner, redis: &Redis, log: &mut Log) -> Infallible {
    loop {
        let err = match redis.config.connect().await {
            Ok(connection) => {
                log.connected(inner, redis);
                carry(inner, redis, connection, log).await
            }
            Err(err) => err,
        };
        log.failed(inner, redis, &err);
        tokio::time::sleep(AGAIN.jittered(log.failures)).await;
    }
}

/// Writes batches until one fails.
async fn carry(inner: &Inner, redis: &Redis, mut connection: Connection, log: &mut Log) -> Error {
    let mut sampled = None;
    let mut gpus_due = interval(GPUS_EVERY);
    gpus_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = redis.sink.ring.next(redis.flush) => {
                let events = batch.items().iter().flat_map(|(_, event)| commands(event));
                let all: Vec<_> = events.collect();
                let written = connection.write(&all).await;
                if let Err(err) = put(inner, redis, written, log) {
                    return err;
                }
                batch.sent();
                redis.sink.is_working(true);
                redis.sink.tell_drops(inner);
            }
            _ = gpus_due.tick() => {
                let Some((at, report)) = gpus::report(inner, sampled) else { continue };
                let written = connection.write(&report).await;
                if let Err(err) = put(inner, redis, written, log) {
                    return err;
                }
                sampled = Some(at);
            }
        }
    }
}

/// Notes what became of a write. One that arrived in part is done: to write it again would repeat the rest of it on
/// all other names, and what did not arrive would not arrive then either.
fn put(
    inner: &Inner,
    redis: &Redis,
    written: Result<(), Error>,
    log: &mut Log,
) -> Result<(), Error> {
    let partly = match written {
        Ok(()) => None,
        Err(err @ Error::Partly { .. }) => Some(err),
        Err(err) => return Err(err),
    };
    log.wrote(inner, redis, partly.as_ref());
    Ok(())
}
