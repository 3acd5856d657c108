//! Sending: jobs, statuses, logs, and what could not be run.
//!
//! Where a stream takes it, a publish returns once the stream has it; a stream that was lost
//! meanwhile is made again first. Live logs are the exception: they are dropped sooner than they
//! hold anybody up.

use std::time::Duration;

use async_nats::PublishErrorKind;
use async_nats::jetstream::context;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use tokio::time::timeout;

use super::connection::ANSWER;
use super::streams::StreamKind;
use super::{Bus, DeliveryMode, Error, Target, subjects};
use crate::job::JobId;
use crate::node::Address;

/// A line of a live log is not worth a longer wait.
const LOG_WAIT: Duration = Duration::from_millis(50);

/// What the stream said of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its number in the stream; `None` where there is no JetStream, and nobody knows whether
    /// anybody took it.
    pub stream_seq: Option<u64>,
    /// Whether the stream had a message of that id already and dropped this one.
    pub duplicate: bool,
}

impl Bus {
    /// Puts a job into the work queue. `msg_id` makes a repeat within two minutes harmless.
    pub async fn publish_job(
        &self,
        target: &Target,
        body: Bytes,
        msg_id: &str,
    ) -> Result<Published, Error> {
        self.publish_stored(StreamKind::Jobs, target.subject(), body, msg_id).await
    }

    /// Sends a status to the stream, and once it has it the same body to `agent.status`; that one is
    /// on its way once [`Bus::flush`] has returned. Can be repeated: the stream drops what it has.
    /// Many can be on their way at a time.
    pub async fn publish_status(
        &self,
        agent: Address,
        job: &JobId,
        seq: u64,
        body: Bytes,
    ) -> Result<(), Error> {
        let msg_id = format!("{agent}:{job}:{seq}");
        let subject = subjects::status(agent, job);
        self.publish_stored(StreamKind::Status, subject, body.clone(), &msg_id).await?;
        self.publish_plain(subjects::AGENT_STATUS.to_owned(), body).await
    }

    /// Says on `agent.status` alone once more what the stream has: the answer to a job that came
    /// a second time. On its way once [`Bus::flush`] has returned.
    pub async fn repeat_status(&self, body: Bytes) -> Result<(), Error> {
        self.online()?;
        self.publish_plain(subjects::AGENT_STATUS.to_owned(), body).await
    }

    /// Puts aside a job that could not be run, with its history.
    pub async fn publish_dead(
        &self,
        target: &Target,
        body: Bytes,
        msg_id: &str,
    ) -> Result<Published, Error> {
        self.publish_stored(StreamKind::Dead, target.dead_subject(), body, msg_id).await
    }

    /// Sends lines of a job's live log to whoever listens. Lossy by design: an error means that it
    /// was dropped, and is no reason to try again.
    pub async fn publish_log(&self, agent: Address, job: &JobId, body: Bytes) -> Result<(), Error> {
        self.online()?;
        let publish = self.publish_plain(subjects::log(agent, job), body);
        timeout(LOG_WAIT, publish).await.unwrap_or(Err(Error::Timeout { what: "send a log" }))
    }

    async fn publish_stored(
        &self,
        kind: StreamKind,
        subject: String,
        body: Bytes,
        msg_id: &str,
    ) -> Result<Published, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            self.publish_plain(subject, body).await?;
            self.flush().await?;
            return Ok(Published { stream_seq: None, duplicate: false });
        }
        let acked = match self.publish_acked(&subject, body.clone(), msg_id).await {
            Err(err) if err.kind() == context::PublishErrorKind::StreamNotFound => {
                if self.ensure_stream(kind).await?.is_none() {
                    return Err(kind.lost());
                }
                self.publish_acked(&subject, body.clone(), msg_id).await
            }
            other => other,
        };
        match acked {
            Ok(ack) => Ok(Published { stream_seq: Some(ack.sequence), duplicate: ack.duplicate }),
            Err(err) => Err(match err.kind() {
                context::PublishErrorKind::MaxPayloadExceeded => self.too_large(&body),
                context::PublishErrorKind::TimedOut => Error::Timeout { what: "publish" },
                _ => Error::Refused { what: "publish", source: Box::new(err) },
            }),
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
            _ => Error::Refused { what: "publish", source: Box::new(err) },
        })
    }

    /// Returns once everything that was published before has left this program, within five
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
