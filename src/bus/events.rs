//! Sends events of this node, and reads those of all.
//!
//! Must hold: an event counts as sent only once the stream has stored it, whatever becomes of those beside it; a
//! repeated one is stored once if it comes within the stream's two minutes.

use async_nats::Subscriber;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tracing::debug;

use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, MessageIds, subjects};
use crate::fleet::Event;
use crate::ids::Address;

const SEND: &str = "send events";
const READ: &str = "read the events";

/// Events in the order in which the server got them.
pub struct EventStream {
    events: Events,
    last: Option<u64>,
}

enum Events {
    Replayed { messages: Box<pull::Ordered>, left: Option<u64> },
    Live(Subscriber),
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the next event that is sent.
    New,
    /// With the oldest event that the stream holds.
    Oldest,
    /// With the event after this number of the stream.
    After(u64),
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl Bus {
    /// Sends events, each with a name by which its message id is made: the same for a repetition. Returns what
    /// became of each; an error concerns all of them.
    pub async fn publish_events(
        &self,
        ids: &MessageIds,
        events: &[(String, &Event)],
    ) -> Result<Vec<Sending>, Error> {
        self.online()?;
        let messages = events.iter().map(|(name, event)| {
            (subjects::event(event), Bytes::from(event.to_json()), ids.of(name, 0))
        });
        let messages: Vec<_> = messages.collect();
        if self.mode() == DeliveryMode::Core {
            return self.send_plain(messages).await;
        }
        let mut sent = self.store(&messages).await;
        if sent.iter().any(|sent| matches!(sent, Sending::NoStream)) {
            self.ensure_stream(StreamKind::Events).await?;
            sent = self.store(&messages).await;
        }
        if let Some(failed) = sent.iter_mut().find(|sent| matches!(sent, Sending::Failed(_)))
            // A stream that can't be used has a sentence of its own.
            && self.is_connected()
            && let Err(err @ Error::Stream { .. }) = self.ensure_stream(StreamKind::Events).await
        {
            *failed = Sending::Failed(err);
        }
        Ok(sent)
    }

    async fn send_plain(
        &self,
        messages: Vec<(String, Bytes, String)>,
    ) -> Result<Vec<Sending>, Error> {
        let mut sent = Vec::with_capacity(messages.len());
        for (subject, body, _) in messages {
            sent.push(match self.publish_plain(subject, body).await {
                Ok(()) => Sending::Done,
                Err(err @ Error::TooLarge { .. }) => Sending::Never(err),
                Err(err) => Sending::Failed(err),
            });
        }
        self.flush().await?;
        Ok(sent)
    }

    /// Sends all of them, then waits for all answers.
    async fn store(&self, messages: &[(String, Bytes, String)]) -> Vec<Sending> {
        let mut answers = Vec::with_capacity(messages.len());
        for (subject, body, id) in messages {
            let message = PublishMessage::build().payload(body.clone()).message_id(id);
            let sent = self.jetstream().send_publish(subject.clone(), message).await;
            answers.push(async move { sent?.await });
        }
        let answers = join_all(answers).await;
        answers.into_iter().map(|answer| answer.map_or_else(sending, |_| Sending::Done)).collect()
    }

    /// Events of this node, or of all; with `follow` also those that are yet to come. Without `JetStream` there
    /// are only those.
    pub async fn events(
        &self,
        node: Option<Address>,
        start: Start,
        follow: bool,
    ) -> Result<EventStream, Error> {
        self.online()?;
        let subject = subjects::event_filter(node);
        let deliver_policy = match start {
            Start::Oldest => DeliverPolicy::All,
            Start::After(last) => {
                DeliverPolicy::ByStartSequence { start_sequence: last.saturating_add(1) }
            }
            Start::New => DeliverPolicy::New,
        };
        if start == Start::New || self.mode() == DeliveryMode::Core {
            let live = self.subscribe(subject).await?;
            self.flush().await?;
            return Ok(EventStream { events: Events::Live(live), last: None });
        }
        let refused = |err| Error::Refused { what: READ, source: err };
        let stream = self.ensure_stream(StreamKind::Events).await?;
        let config = pull::OrderedConfig {
            filter_subject: subject,
            deliver_policy,
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|err| refused(err.into()))?;
        let left = (!follow).then(|| consumer.cached_info().num_pending);
        let messages = consumer.messages().await.map_err(|err| refused(err.into()))?;
        let events = Events::Replayed { messages: Box::new(messages), left };
        Ok(EventStream { events, last: None })
    }
}

/// What became of an event that was to be sent.
#[derive(Debug)]
pub enum Sending {
    /// The stream has it; without `JetStream`: it has left.
    Done,
    /// It can never be stored: it is larger than the server or the stream takes.
    Never(Error),
    /// There is no stream for it, and none could be made in time.
    NoStream,
    /// It was not stored, or nobody knows: it may be sent again.
    Failed(Error),
}

fn sending(err: PublishError) -> Sending {
    match err.kind() {
        PublishErrorKind::StreamNotFound => Sending::NoStream,
        PublishErrorKind::TimedOut => Sending::Failed(Error::Timeout { what: SEND }),
        PublishErrorKind::MaxPayloadExceeded => {
            Sending::Never(Error::Refused { what: SEND, source: Box::new(err) })
        }
        _ => {
            let answer = std::error::Error::source(&err)
                .and_then(|it| it.downcast_ref::<async_nats::jetstream::Error>());
            match answer.map(async_nats::jetstream::Error::error_code) {
                Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => {
                    Sending::Never(Error::Refused { what: SEND, source: Box::new(err) })
                }
                _ => Sending::Failed(Error::Refused { what: SEND, source: Box::new(err) }),
            }
        }
    }
}

impl EventStream {
    /// The number of the event that was read last, from which another stream can go on.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// The next event and its body; `None` once all that were there are read and no others are to follow.
    /// What is no event, or names another subject, is left out. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<(Event, Bytes)>, Error> {
        loop {
            let message = match &mut self.events {
                Events::Live(live) => live.next().await.ok_or(Error::Closed)?,
                Events::Replayed { left: Some(0), .. } => return Ok(None),
                Events::Replayed { messages, left } => {
                    let message = messages.next().await.ok_or(Error::Closed)?;
                    let refused = |err| Error::Refused { what: READ, source: err };
                    let message = message.map_err(|err| refused(Box::new(err)))?;
                    // Counted by the server, so that messages which are deleted meanwhile hold nothing up.
                    let info = message.info().map_err(refused)?;
                    let pending = info.pending;
                    self.last = Some(info.stream_sequence);
                    if let Some(left) = left {
                        *left = left.saturating_sub(1).min(pending);
                    }
                    message.message
                }
            };
            match read(&message.subject, &message.payload) {
                Ok(event) => return Ok(Some((event, message.payload))),
                Err(why) => debug!(subject = %message.subject, "skipped what is no event: {why}"),
            }
        }
    }
}

fn read(subject: &str, body: &[u8]) -> Result<Event, String> {
    let event = Event::parse(body).map_err(|err| err.to_string())?;
    let names = (event.node, event.component.clone(), event.event_type.clone());
    if subjects::parse_event(subject) == Some(names) {
        Ok(event)
    } else {
        Err("it names another subject".to_owned())
    }
}
