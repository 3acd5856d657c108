//! Carries every event to the stream `EVENTS`.
//!
//! Must hold: an event that can't be stored holds up no other for long; a server that takes none is asked seldom, with
//! one event at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::agent::link::Link;
use crate::backoff::Backoff;
use crate::bus::{self, Bus, MessageIds, Sending};
use crate::ids::Address;
use crate::push::Fate;
use crate::report::{causes, one_line};
use crate::supervise::Failure;

/// How long an event waits for others.
const FLUSH: Duration = Duration::from_millis(20);

/// The wait before events are sent again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_mins(1));

/// The same where the server says nothing at all, as it does to who may not publish.
const UNHEARD: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_mins(10));

/// An event is given up once it has failed so often while others were stored.
const TRIES_MAX: u32 = 3;

/// After so many failures in a row the owner is told, whatever they were.
const PATIENCE: u32 = 3;

/// The most characters of the server's words in the log.
const WORDS_MAX: usize = 300;

/// A service that ends only when the connection is closed for good.
pub(super) async fn run(inner: Arc<Inner>, link: Link, ids: MessageIds) -> Result<(), Failure> {
    let (sink, begun) = (&inner.nats, inner.begun.unix_ms());
    let bus = link.bus().await;
    let mut state = State::default();
    loop {
        // Without a connection events wait in the ring, where they can be counted.
        if let Err(bus::Error::Closed) = bus.connected().await {
            return Ok(());
        }
        let connection = bus.connection();
        sink.is_working(state.failures == 0);
        let batch = sink.ring.next(FLUSH).await;
        if !bus.is_connected() {
            sink.is_working(false);
            continue;
        }
        let batch = match state.failures {
            0 => batch,
            // Not always the same one: it may be the only one that is refused.
            failures => batch.one(failures as usize),
        };
        let named = batch.items().iter();
        let named = named.map(|(number, event)| (format!("event:{begun}:{number}"), &**event));
        let events: Vec<_> = named.collect();
        let sent = bus.publish_events(&ids, &events).await;
        let numbers: Vec<_> = batch.items().iter().map(|(number, _)| *number).collect();
        let (fates, failure) = state.judge(&numbers, sent);
        batch.settle(&fates);
        if bus.is_connected() {
            if let Some(failure) = failure {
                state.failed(&failure, inner.node);
            }
        } else {
            state.failures = 0;
        }
        sink.is_working(state.failures == 0);
        match state.failures {
            0 => sink.tell_drops(&inner),
            failures => pause(&bus, connection, state.wait(failures)).await,
        }
        if bus.connection() != connection {
            // The account may have other rights now.
            state.failures = 0;
        }
    }
}

/// Waits that long, but not beyond the connection.
async fn pause(bus: &Bus, connection: u64, wait: Duration) {
    tokio::time::timeout(wait, bus.lost(connection)).await.ok();
}

/// What was seen of the server.
#[derive(Debug, Default)]
struct State {
    /// Goes in a row after which nothing was stored, on a connection that was there.
    failures: u32,
    /// Whether the last of them had no answer.
    is_unheard: bool,
    /// Whether the owner was told, since something was stored last.
    is_warned: bool,
    /// How often each event was refused while others were stored.
    tries: BTreeMap<u64, u32>,
}

impl State {
    /// What becomes of each of these events, and why if none was stored.
    fn judge(
        &mut self,
        numbers: &[u64],
        sent: Result<Vec<Sending>, bus::Error>,
    ) -> (Vec<Fate>, Option<bus::Error>) {
        let sent = match sent {
            Ok(sent) => sent,
            Err(err) => return (Vec::new(), Some(err)),
        };
        let is_any = sent.iter().any(|sent| matches!(sent, Sending::Done | Sending::Never(_)));
        if is_any {
            (self.failures, self.is_warned) = (0, false);
        }
        let (mut fates, mut failure) = (Vec::with_capacity(sent.len()), None);
        let mut tries = std::mem::take(&mut self.tries);
        for (number, sent) in numbers.iter().zip(sent) {
            let err = match sent {
                Sending::Done => {
                    fates.push(Fate::Sent);
                    continue;
                }
                Sending::Never(err) => {
                    tracing::debug!("an event is dropped: {}", told(&err));
                    fates.push(Fate::Dropped);
                    continue;
                }
                Sending::NoStream => bus::Error::Timeout { what: "make the stream EVENTS" },
                Sending::Failed(err) => err,
            };
            let before = tries.remove(number).unwrap_or_default();
            let now = before + u32::from(is_any);
            if now >= TRIES_MAX {
                tracing::debug!("an event is given up: {}", told(&err));
                fates.push(Fate::Dropped);
            } else {
                self.tries.insert(*number, now);
                fates.push(Fate::Again);
            }
            failure = failure.or(Some(err));
        }
        (fates, failure.filter(|_| !is_any))
    }

    /// Nothing was stored.
    fn failed(&mut self, err: &bus::Error, node: Address) {
        self.failures = self.failures.saturating_add(1);
        self.is_unheard = matches!(err, bus::Error::Timeout { .. });
        let text = told(err);
        let is_due = !err.is_transient() || self.failures >= PATIENCE;
        if self.is_warned || !is_due {
            tracing::debug!("events are not sent: {text}");
            return;
        }
        self.is_warned = true;
        if err.is_transient() {
            tracing::warn!(
                "events are not sent: {text}; may this account publish events.{node}.*.*?"
            );
        } else {
            tracing::warn!("events are not sent: {text}");
        }
    }

    fn wait(&self, failures: u32) -> Duration {
        let backoff = if self.is_unheard { UNHEARD } else { AGAIN };
        backoff.jittered(failures)
    }
}

fn told(err: &bus::Error) -> String {
    one_line(&causes(err), WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Sending {
        Sending::Failed(bus::Error::Timeout { what: "x" })
    }

    #[test]
    fn an_event_that_alone_is_refused_is_given_up_and_the_others_are_sent() {
        let mut state = State::default();
        for turn in 1..=TRIES_MAX {
            let (fates, failure) = state.judge(&[1, 2], Ok(vec![failed(), Sending::Done]));
            let fate = if turn == TRIES_MAX { Fate::Dropped } else { Fate::Again };
            assert_eq!(fates, [fate, Fate::Sent], "{turn}");
            assert!(failure.is_none(), "the sink works");
        }
        assert!(state.tries.is_empty(), "{state:?}");
    }

    #[test]
    fn while_the_server_takes_nothing_no_event_is_given_up_and_the_owner_is_told_once() {
        let mut state = State::default();
        for turn in 1..10 {
            let (fates, failure) = state.judge(&[1], Ok(vec![failed()]));
            assert_eq!(fates, [Fate::Again]);
            state.failed(&failure.unwrap(), Address::new([1; 20]));
            assert_eq!(state.is_warned, turn >= PATIENCE, "{turn}");
        }
        state.judge(&[1], Ok(vec![Sending::Done]));
        assert!(!state.is_warned && state.failures == 0, "{state:?}");
    }
}
