//! Publishes jobs, statuses, late results, live logs and dead letters.
//!
//! A publish to a stream returns once the stream has stored the message; a stream that was lost is
//! created again first. A duplicate reported by the stream proves nothing, since ids count per stream and
//! anyone may have used one: the message is read back, and sent under another id if it differs. Live
//! logs are the exception: they are dropped rather than delay anything.

use std::time::Duration;

use async_nats::PublishErrorKind;
use async_nats::jetstream::context;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::ANSWER;
use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, MessageIds, MetricsTopic, Target, ids, subjects};
use crate::ids::{Address, JobId};
use crate::report::BoxError;
use crate::usage::watch::Attempt;

/// Lines of a live log are dropped rather than wait longer.
const LOG_WAIT: Duration = Duration::from_millis(50);

/// How many ids are tried for a message if other messages have used them.
const IDS_MAX: u32 = 4;

const WHAT: &str = "publish";

/// The stream's answer to a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its sequence number in the stream; `None` without JetStream, where it is unknown whether anyone
    /// received it.
    pub stream_seq: Option<u64>,
    /// Whether the stream already held this message under the same id.
    pub duplicate: bool,
}

impl Bus {
    /// Puts a job into the work queue. `msg_id` makes a repeat within two minutes harmless while the job
    /// is in the queue; otherwise the queue may hold it twice, and it still runs once.
    pub async fn publish_job(
        &self,
        target: &Target,
        body: Bytes,
        msg_id: &str,
    ) -> Result<Published, Error> {
        let id = |round| match round {
            0 => Ok(msg_id.to_owned()),
            _ => ids::random().map_err(|err| refused(err.into())),
        };
        self.publish_stored(StreamKind::Jobs, target.subject(), body, id).await
    }

    /// Publishes a status to the stream and, once that has stored it, to `agent.status`; the latter has
    /// left once [`Bus::flush`] returns. Repeatable: the stream drops duplicates. Calls may overlap.
    pub async fn publish_status(
        &self,
        ids: &MessageIds,
        agent: Address,
        job: &JobId,
        seq: u64,
        body: Bytes,
    ) -> Result<(), Error> {
        let (name, subject) = (format!("{agent}:{job}:{seq}"), subjects::status(agent, job));
        let id = |round| Ok(ids.of(&name, round));
        self.publish_stored(StreamKind::Status, subject, body.clone(), id).await?;
        self.publish_plain(subjects::AGENT_STATUS.to_owned(), body).await
    }

    /// Announces an output that was published after its job's terminal status. Repeatable.
    pub async fn publish_result(
        &self,
        ids: &MessageIds,
        agent: Address,
        job: &JobId,
        body: Bytes,
    ) -> Result<(), Error> {
        let (name, subject) = (format!("result:{agent}:{job}"), subjects::result(agent, job));
        let id = |round| Ok(ids.of(&name, round));
        self.publish_stored(StreamKind::Results, subject, body, id).await.map(drop)
    }

    /// Stores a batch of what an attempt of a job used. Repeatable.
    pub async fn publish_usage(
        &self,
        ids: &MessageIds,
        agent: Address,
        attempt: &Attempt,
        number: u32,
        body: Bytes,
    ) -> Result<(), Error> {
        let Attempt { job, number: tries } = attempt;
        let name = format!("usage:{agent}:{job}:{tries}:{number}");
        let id = |round| Ok(ids.of(&name, round));
        let subject = subjects::usage(agent, job);
        self.publish_stored(StreamKind::Usage, subject, body, id).await.map(drop)
    }

    /// Sends what a job uses now to both subjects on which readers of other systems wait for it. Lossy by design, as
    /// a live log is.
    pub async fn publish_metrics(&self, topic: &MetricsTopic, body: Bytes) -> Result<(), Error> {
        self.online()?;
        for subject in topic.of_jobs() {
            let publish = self.publish_plain(subject, body.clone());
            let late = Error::Timeout { what: "send live figures" };
            timeout(LOG_WAIT, publish).await.unwrap_or(Err(late))?;
        }
        Ok(())
    }

    /// Sends a beat of the node itself. Lossy by design, as a live log is.
    pub async fn publish_beat(
        &self,
        topic: &MetricsTopic,
        kind: &str,
        body: Bytes,
    ) -> Result<(), Error> {
        self.online()?;
        let publish = self.publish_plain(topic.of_node(kind), body);
        timeout(LOG_WAIT, publish).await.unwrap_or(Err(Error::Timeout { what: "send a beat" }))
    }

    /// Repeats a stored status on `agent.status` alone: the answer to a job that arrives a second time.
    /// It has left once [`Bus::flush`] returns.
    pub async fn repeat_status(&self, body: Bytes) -> Result<(), Error> {
        self.online()?;
        self.publish_plain(subjects::AGENT_STATUS.to_owned(), body).await
    }

    /// Stores a job that could not be run, with its history, as a dead letter. `name` must be unique to
    /// this letter; its message id is derived from it.
    pub async fn publish_dead(
        &self,
        ids: &MessageIds,
        target: &Target,
        body: Bytes,
        name: &str,
    ) -> Result<Published, Error> {
        let id = |round| Ok(ids.of(name, round));
        self.publish_stored(StreamKind::Dead, target.dead_subject(), body, id).await
    }

    /// Sends lines of a job's live log to all listeners. Lossy by design: after an error they are dropped
    /// and need no retry.
    pub async fn publish_log(&self, agent: Address, job: &JobId, body: Bytes) -> Result<(), Error> {
        self.online()?;
        let publish = self.publish_plain(subjects::log(agent, job), body);
        timeout(LOG_WAIT, publish).await.unwrap_or(Err(Error::Timeout { what: "send a log" }))
    }

    /// Stores a message once, provided that no other message uses its ids. `id` gives the id of each round.
    async fn publish_stored(
        &self,
        kind: StreamKind,
        subject: String,
        body: Bytes,
        id: impl Fn(u32) -> Result<String, Error>,
    ) -> Result<Published, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            self.publish_plain(subject, body).await?;
            self.flush().await?;
            return Ok(Published { stream_seq: None, duplicate: false });
        }
        for round in 0..IDS_MAX {
            let ack = self.publish_once(kind, &subject, &body, &id(round)?).await?;
            if !ack.duplicate || self.is_there(kind, ack.sequence, &subject, &body).await {
                return Ok(Published { stream_seq: Some(ack.sequence), duplicate: ack.duplicate });
            }
            let (stream, number) = (kind.name(), ack.sequence);
            warn!(
                subject,
                "the stream {stream} dropped a message to {subject} for another one (number \
                 {number}) that had its id: sending it under another id. Somebody on the server \
                 may mean to suppress it"
            );
        }
        Err(refused(format!("other messages have all of its {IDS_MAX} ids").into()))
    }

    async fn publish_once(
        &self,
        kind: StreamKind,
        subject: &str,
        body: &Bytes,
        msg_id: &str,
    ) -> Result<PublishAck, Error> {
        let acked = match self.publish_acked(subject, body.clone(), msg_id).await {
            Err(err) if err.kind() == context::PublishErrorKind::StreamNotFound => {
                self.ensure_stream(kind).await?;
                self.publish_acked(subject, body.clone(), msg_id).await
            }
            other => other,
        };
        acked.map_err(|err| match err.kind() {
            context::PublishErrorKind::MaxPayloadExceeded => self.too_large(body),
            context::PublishErrorKind::TimedOut => Error::Timeout { what: WHAT },
            _ => refused(err.into()),
        })
    }

    /// Whether the message with this number is this one; `false` if that can't be found out: to store it
    /// twice does less harm than to lose it.
    async fn is_there(&self, kind: StreamKind, number: u64, subject: &str, body: &Bytes) -> bool {
        let Ok(stream) = self.stream_unseen(kind).await else { return false };
        match stream.get_raw_message(number).await {
            Ok(message) => message.subject.as_str() == subject && message.payload == *body,
            Err(err) => {
                debug!("message {number} of {} can't be read back: {err}", kind.name());
                false
            }
        }
    }

    async fn publish_acked(
        &self,
        subject: &str,
        body: Bytes,
        msg_id: &str,
    ) -> Result<PublishAck, context::PublishError> {
        let message = PublishMessage::build().payload(body).message_id(msg_id);
        self.jetstream().send_publish(subject.to_owned(), message).await?.await
    }

    pub(super) async fn publish_plain(&self, subject: String, body: Bytes) -> Result<(), Error> {
        let publish = self.client().publish(subject, body.clone()).await;
        publish.map_err(|err| match err.kind() {
            PublishErrorKind::MaxPayloadExceeded => self.too_large(&body),
            _ => refused(err.into()),
        })
    }

    /// Returns once everything that was published before has left this program; fails after five
    /// seconds.
    pub async fn flush(&self) -> Result<(), Error> {
        match timeout(ANSWER, self.client().flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(Error::Refused { what: "flush", source: Box::new(err) }),
            Err(_) => Err(Error::Timeout { what: "flush" }),
        }
    }

    fn too_large(&self, body: &Bytes) -> Error {
        Error::TooLarge { bytes: body.len(), bytes_max: self.client().max_payload() }
    }
}

fn refused(source: BoxError) -> Error {
    Error::Refused { what: WHAT, source }
}
