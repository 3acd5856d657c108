//! Receives jobs, never more than there is room for.
//!
//! With JetStream an intake keeps a pull outstanding at the durable consumer while a caller waits on
//! it, so that a job arrives without a round trip. A new pull asks only for what is missing to the
//! caller's `room`, and all answers arrive in one inbox. Every failure (of the connection, the
//! consumer's leader, the consumer or the stream) is handled the same way: the inbox is read to its end
//! and dropped, which voids its pulls at the server, and a new one is opened. Without JetStream an
//! intake is a subscription.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{Consumer, Info};
use async_nats::{Message, StatusCode, Subscriber, jetstream};
use bytes::Bytes;
use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::consumers::{ConsumerPlan, PULL, ROOM_MAX};
use super::stream_kind::StreamKind;
use super::streams::created_ns;
use super::{AckHandle, Bus, DeliveryMode, Error, Settle, Shortcoming, Target, shortcomings};
use crate::backoff::Backoff;

/// How often the server confirms that it still holds our pull. After twice this time in silence the
/// pull counts as lost.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// After this many failures in a row (a few seconds) the caller gets the error.
const FAILURES_MAX: u32 = 6;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A job as it was delivered: untrusted until parsed, and of any size that the server accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The subject it arrived on; [`Target::of_subject`] parses it.
    pub subject: String,
    /// The body of the message, unparsed.
    pub body: Bytes,
    /// How to settle it; `None` without JetStream, which expects no ack.
    pub ack: Option<AckHandle>,
    /// How often it has been delivered, including this time.
    pub delivered: u64,
}

/// A receiver of one source's jobs.
#[derive(Debug)]
pub struct Intake(Kind);

#[derive(Debug)]
enum Kind {
    Pull(Box<Pull>),
    Core(SelectAll<Subscriber>),
}

#[derive(Debug)]
struct Pull {
    bus: Bus,
    plan: ConsumerPlan,
    /// Whether the source is a pool.
    shared: bool,
    feed: Option<Feed>,
    /// Jobs that were delivered into a feed that was given up since.
    ready: VecDeque<Delivery>,
    failures: u32,
    retry_at: Option<Instant>,
    /// What keeps jobs back, as last logged.
    told: Vec<Shortcoming>,
}

/// One inbox with its pulls.
#[derive(Debug)]
struct Feed {
    jetstream: jetstream::Context,
    consumer: Consumer<Config>,
    stream_created_ns: i64,
    inbox: Subscriber,
    inbox_name: String,
    /// Messages that the server may still send on our pulls.
    asked: usize,
    connection: u64,
    heard_at: Instant,
    /// When the consumer was last checked: its administrator may change it.
    looked_at: Instant,
}

impl Bus {
    /// Receives the jobs of an agent or a pool; its consumer is created if missing. In
    /// [`DeliveryMode::Core`] each job of a pool goes to one of the agents that listen (a queue group).
    pub async fn intake(&self, source: &Target) -> Result<Intake, Error> {
        self.online()?;
        match (self.mode(), source) {
            (DeliveryMode::JetStream, _) => {
                let mut pull = Pull {
                    bus: self.clone(),
                    plan: ConsumerPlan::of(source),
                    shared: matches!(source, Target::Pool(_)),
                    feed: None,
                    ready: VecDeque::new(),
                    failures: 0,
                    retry_at: None,
                    told: Vec::new(),
                };
                pull.open().await?;
                Ok(Intake(Kind::Pull(Box::new(pull))))
            }
            (DeliveryMode::Core, Target::Agent(_)) => {
                Ok(Intake(Kind::Core(self.subscribe_all(source.subjects()).await?)))
            }
            (DeliveryMode::Core, Target::Pool(pool)) => {
                let subscribed =
                    self.client().queue_subscribe(source.subject(), pool.to_string()).await;
                let shared = subscribed
                    .map_err(|err| Error::Refused { what: "subscribe", source: Box::new(err) })?;
                self.flush().await?;
                Ok(Intake(Kind::Core(std::iter::once(shared).collect())))
            }
        }
    }
}

impl Intake {
    /// The next job. Keeps at most `room` jobs requested, up to a limit of 256. A call with more room
    /// requests the difference; a call with less takes nothing back, so that up to the earlier number
    /// may still arrive. Without JetStream jobs arrive as they are sent, whatever the room.
    ///
    /// Cancel-safe: dropping the future loses no job. An error reports lasting trouble; calling again
    /// keeps trying.
    pub async fn next(&mut self, room: usize) -> Result<Delivery, Error> {
        match &mut self.0 {
            Kind::Pull(pull) => pull.next(room.min(ROOM_MAX)).await,
            Kind::Core(jobs) => {
                let job = jobs.next().await.ok_or(Error::Closed)?;
                let subject = job.subject.to_string();
                Ok(Delivery { subject, body: job.payload, ack: None, delivered: 1 })
            }
        }
    }

    /// Stops requesting jobs, and returns those to the queue that were delivered but not handed out.
    pub async fn close(self) {
        let Kind::Pull(mut pull) = self.0 else { return };
        pull.give_up_feed();
        for delivery in pull.ready {
            if let Some(ack) = &delivery.ack
                && let Err(error) = pull.bus.settle(ack, Settle::Nak(Duration::ZERO)).await
            {
                debug!(%error, "a delivery was not given back: it comes again after its ack wait");
            }
        }
    }
}

impl Pull {
    async fn next(&mut self, room: usize) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(delivery);
            }
            match self.turn(room).await {
                Ok(Some(delivery)) => return Ok(delivery),
                Ok(None) => {}
                Err(err) => self.after(err)?,
            }
        }
    }

    /// Schedules a retry after a failure; returns the error if the caller should get it.
    fn after(&mut self, err: Error) -> Result<(), Error> {
        self.give_up_feed();
        self.failures += 1;
        self.retry_at = Some(Instant::now() + RETRY.jittered(self.failures));
        if err.is_transient() && self.failures < FAILURES_MAX {
            debug!(error = &err as &dyn std::error::Error, "the intake opens anew");
            return Ok(());
        }
        Err(err)
    }

    /// Waits for one event: a delivery, a message of the server, or a loss.
    async fn turn(&mut self, room: usize) -> Result<Option<Delivery>, Error> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        let Some(feed) = &mut self.feed else {
            self.open().await?;
            return Ok(None);
        };
        if self.bus.is_lost(feed.connection) {
            self.give_up_feed();
            return Ok(None);
        }
        if feed.looked_at.elapsed() > PULL {
            self.look_again().await?;
            return Ok(None);
        }
        feed.ask_for(room).await?;
        let silent_at = feed.heard_at + 2 * HEARTBEAT;
        let heard = tokio::select! {
            biased;
            message = feed.inbox.next() => feed.read(message.ok_or(Error::Closed)?),
            lost = self.bus.lost(feed.connection) => lost.map(|()| Heard::Disconnected)?,
            () = sleep_until(silent_at), if feed.asked > 0 => Heard::Lost("silence".to_owned()),
        };
        match heard {
            Heard::Delivery(delivery) => {
                self.failures = 0;
                Ok(Some(delivery))
            }
            Heard::Alive => {
                self.failures = 0;
                Ok(None)
            }
            Heard::Disconnected => {
                self.give_up_feed();
                Ok(None)
            }
            Heard::Lost(reason) => {
                // The consumer may be gone because its stream was re-created.
                self.bus.forget_streams();
                Err(Error::Refused { what: "pull jobs", source: reason.into() })
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.bus.connected().await?;
        let connection = self.bus.connection();
        let stream = self.bus.ensure_stream(StreamKind::Jobs).await?;
        // Otherwise only the first job would show that the claims bucket is missing.
        if self.shared {
            self.bus.ensure_stream(StreamKind::Claims).await?;
        }
        let consumer = self.bus.ensure_consumer(&stream, &self.plan).await?;
        self.tell(consumer.cached_info());
        let inbox_name = self.bus.client().new_inbox();
        let inbox = self.bus.subscribe(inbox_name.clone()).await?;
        self.feed = Some(Feed {
            jetstream: self.bus.jetstream().clone(),
            consumer,
            stream_created_ns: created_ns(stream.cached_info()),
            inbox,
            inbox_name,
            asked: 0,
            connection,
            heard_at: Instant::now(),
            looked_at: Instant::now(),
        });
        Ok(())
    }

    /// Checks the consumer again; an error if it has become unusable. Cancel-safe: dropped half-way, it
    /// has changed nothing.
    async fn look_again(&mut self) -> Result<(), Error> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        let stream = self.bus.stream_unseen(StreamKind::Jobs).await?;
        match self.bus.ensure_consumer(&stream, &self.plan).await {
            Ok(consumer) => {
                let info = consumer.cached_info().clone();
                feed.consumer = consumer;
                feed.looked_at = Instant::now();
                self.tell(&info);
                return Ok(());
            }
            // The pulls show sooner what can't be reached.
            Err(err) if err.is_transient() => {}
            Err(err) => return Err(err),
        }
        feed.looked_at = Instant::now();
        Ok(())
    }

    /// Logs what keeps jobs back, and when that ends: the server reports neither.
    fn tell(&mut self, consumer: &Info) {
        let found = shortcomings::of_consumer(consumer);
        for Shortcoming { what, remedy } in found.iter().filter(|one| !self.told.contains(one)) {
            warn!("{what}; ask whoever runs the NATS server: {remedy}");
        }
        for Shortcoming { what, .. } in self.told.iter().filter(|one| !found.contains(one)) {
            info!("no longer so: {what}");
        }
        self.told = found;
    }

    /// Ends the pulls, and keeps the jobs that they brought. After a lost connection this runs before
    /// the next one if possible: re-subscribing the inbox would revive its pulls next to the new ones.
    fn give_up_feed(&mut self) {
        let Some(mut feed) = self.feed.take() else { return };
        while let Some(Some(message)) = feed.inbox.next().now_or_never() {
            if let Heard::Delivery(delivery) = feed.read(message) {
                self.ready.push_back(delivery);
            }
        }
    }
}

/// What a message in the inbox means.
enum Heard {
    Delivery(Delivery),
    /// The server holds our pull, or let it expire as agreed.
    Alive,
    Disconnected,
    /// The pulls are void, for this reason.
    Lost(String),
}

impl Feed {
    /// Requests what is missing to `room`. Cancel-safe: dropped half-way, it has requested nothing.
    async fn ask_for(&mut self, room: usize) -> Result<(), Error> {
        let missing = room.saturating_sub(self.asked);
        if missing == 0 {
            return Ok(());
        }
        let pull = BatchConfig {
            batch: missing,
            expires: Some(PULL),
            idle_heartbeat: HEARTBEAT,
            ..BatchConfig::default()
        };
        let asked = self.consumer.request_batch(pull, self.inbox_name.clone().into()).await;
        asked.map_err(|err| Error::Refused { what: "pull jobs", source: Box::new(err) })?;
        // Silence counts only while a pull is outstanding.
        if self.asked == 0 {
            self.heard_at = Instant::now();
        }
        self.asked += missing;
        Ok(())
    }

    fn read(&mut self, message: Message) -> Heard {
        self.heard_at = Instant::now();
        match message.status {
            None => self.delivery(message),
            Some(StatusCode::IDLE_HEARTBEAT) => Heard::Alive,
            // A pull expired; a header counts the messages that it was still owed.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => match unserved(&message) {
                Some(unserved) => {
                    self.asked = self.asked.saturating_sub(unserved);
                    Heard::Alive
                }
                None => Heard::Lost("a pull ran out without a count".to_owned()),
            },
            Some(status) => {
                let words = message.description.unwrap_or_default();
                Heard::Lost(format!("{status}: {words}"))
            }
        }
    }

    fn delivery(&mut self, message: Message) -> Heard {
        // The consumer was switched to leave bodies out: the job would be rejected as malformed.
        let bytes = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size"));
        if message.payload.is_empty() && bytes.is_some_and(|bytes| bytes.as_str() != "0") {
            return Heard::Lost("jobs come without their bodies (headers_only)".to_owned());
        }
        let message = jetstream::Message { message, context: self.jetstream.clone() };
        let ack_wait = self.consumer.cached_info().config.ack_wait;
        let Some((ack, delivered)) = AckHandle::of(&message, self.stream_created_ns, ack_wait)
        else {
            // Not from JetStream: anyone may publish to an inbox whose name they guess.
            return Heard::Alive;
        };
        self.asked = self.asked.saturating_sub(1);
        let Message { subject, payload: body, .. } = message.message;
        Heard::Delivery(Delivery { subject: subject.to_string(), body, ack: Some(ack), delivered })
    }
}

/// How many messages an expired pull was still owed.
fn unserved(message: &Message) -> Option<usize> {
    let header = message.headers.as_ref()?.get("Nats-Pending-Messages")?;
    header.as_str().parse().ok()
}
