//! Observes jobs: statuses from the stream or as they are sent, and live logs.

use async_nats::Subscriber;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::debug;

use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, subjects};
use crate::ids::{Address, JobId};

/// Which statuses to receive; `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct StatusFilter {
    /// Only the statuses of this agent.
    pub agent: Option<Address>,
    /// Only the statuses of this job.
    pub job: Option<JobId>,
}

/// One status, as it was sent. Anyone on the server could have sent it: its subject proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusMessage {
    /// The agent that the subject names.
    pub agent: Address,
    /// The job that the subject names.
    pub job: JobId,
    /// The body of the message, unparsed.
    pub body: Bytes,
}

/// Statuses in the order in which they were sent.
pub struct StatusStream(Statuses);

enum Statuses {
    Replayed(Box<pull::Ordered>),
    Live(Subscriber),
}

impl std::fmt::Debug for StatusStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0 {
            Statuses::Replayed(_) => "Replayed",
            Statuses::Live(_) => "Live",
        };
        f.debug_tuple("StatusStream").field(&kind).finish()
    }
}

/// The live log of a job.
#[derive(Debug)]
pub struct LogStream(Subscriber);

impl Bus {
    /// Statuses that match. With `replay`: all that the stream holds, then new ones, each once. Without
    /// it, or without JetStream: only new ones.
    pub async fn statuses(
        &self,
        filter: &StatusFilter,
        replay: bool,
    ) -> Result<StatusStream, Error> {
        const WHAT: &str = "read the statuses";
        self.online()?;
        let subject = subjects::status_filter(filter.agent, filter.job.as_ref());
        if !replay || self.mode() == DeliveryMode::Core {
            let live = self.subscribe(subject).await?;
            self.flush().await?;
            return Ok(StatusStream(Statuses::Live(live)));
        }
        let stream = self.ensure_stream(StreamKind::Status).await?;
        let config = pull::OrderedConfig {
            filter_subject: subject,
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await;
        let consumer =
            consumer.map_err(|err| Error::Refused { what: WHAT, source: Box::new(err) })?;
        let messages = consumer.messages().await;
        let messages =
            messages.map_err(|err| Error::Refused { what: WHAT, source: Box::new(err) })?;
        Ok(StatusStream(Statuses::Replayed(Box::new(messages))))
    }

    /// The output that a job writes from now on, on one agent or any.
    pub async fn logs(&self, agent: Option<Address>, job: &JobId) -> Result<LogStream, Error> {
        self.online()?;
        let lines = self.subscribe(subjects::log_filter(agent, job)).await?;
        self.flush().await?;
        Ok(LogStream(lines))
    }
}

impl StatusStream {
    /// The next status. Cancel-safe: can be dropped and called again, also after a transient error.
    pub async fn next(&mut self) -> Result<StatusMessage, Error> {
        loop {
            let message = match &mut self.0 {
                Statuses::Live(live) => live.next().await.ok_or(Error::Closed)?,
                Statuses::Replayed(messages) => {
                    let message = messages.next().await.ok_or(Error::Closed)?;
                    message
                        .map_err(|err| Error::Refused {
                            what: "read the statuses",
                            source: Box::new(err),
                        })?
                        .message
                }
            };
            if let Some((agent, job)) = subjects::parse_status(&message.subject) {
                return Ok(StatusMessage { agent, job, body: message.payload });
            }
            debug!(subject = %message.subject, "skipped what is no agent's status");
        }
    }
}

impl LogStream {
    /// The next piece of the log. Cancel-safe: can be dropped and called again.
    pub async fn next(&mut self) -> Result<Bytes, Error> {
        self.0.next().await.map(|message| message.payload).ok_or(Error::Closed)
    }
}
