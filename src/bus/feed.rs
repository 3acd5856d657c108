//! What all nodes say, for whoever keeps it: statuses from where an earlier reader left off, and presences as they
//! are told.
//!
//! Must hold: a reader that comes back with its last number gets what was sent meanwhile, as far as the stream
//! keeps it, and learns when the stream has begun anew.

use async_nats::Subscriber;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::debug;

use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, subjects};
use crate::clock::Timestamp;
use crate::ids::{Address, JobId};
use crate::node::presence::Presence;

const READ: &str = "read what nodes say";

/// The subjects of presences.
const PRESENCES: &str = "$KV.NODES.";

/// A status or batch with its place in the stream. Its subject proves nothing: anyone on the server could have sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The agent that the subject names.
    pub agent: Address,
    /// The job that the subject names.
    pub job: JobId,
    /// Its number in the stream.
    pub seq: u64,
    /// When the server stored it.
    pub at: Timestamp,
    /// The body, unparsed.
    pub body: Bytes,
}

/// Messages of all nodes' jobs in the order in which they were sent.
pub struct Records {
    messages: Box<pull::Ordered>,
    /// Whose a subject is.
    whose: fn(&str) -> Option<(Address, JobId)>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Presences of all nodes from now on.
#[derive(Debug)]
pub struct Presences(Subscriber);

impl Bus {
    /// The statuses after this number of the stream, and those to come. If the stream begins at a higher number or
    /// was made anew, from its first one.
    ///
    /// # Errors
    /// Without `JetStream` nothing is kept.
    pub async fn records(&self, after: u64) -> Result<Records, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Err(Error::Refused {
                what: READ,
                source: "NATS_MODE=core keeps no statuses".into(),
            });
        }
        let refused = |err| Error::Refused { what: READ, source: err };
        let stream = self.ensure_stream(StreamKind::Status).await?;
        let config = pull::OrderedConfig {
            filter_subject: subjects::status_filter(None, None),
            deliver_policy: start(after, stream.cached_info().state.last_sequence),
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|err| refused(err.into()))?;
        let messages = consumer.messages().await.map_err(|err| refused(err.into()))?;
        Ok(Records { messages: Box::new(messages), whose: subjects::parse_status })
    }

    /// The batches of what jobs used, as [`Bus::records`]; `None` while no node has sent one, since the stream is made
    /// by the first that does.
    pub async fn usage_records(&self, after: u64) -> Result<Option<Records>, Error> {
        self.online()?;
        let refused = |err| Error::Refused { what: READ, source: err };
        let Some(stream) = self.find_stream(StreamKind::Usage.name()).await? else {
            return Ok(None);
        };
        let config = pull::OrderedConfig {
            filter_subject: subjects::ALL_USAGE.to_owned(),
            deliver_policy: start(after, stream.cached_info().state.last_sequence),
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|err| refused(err.into()))?;
        let messages = consumer.messages().await.map_err(|err| refused(err.into()))?;
        Ok(Some(Records { messages: Box::new(messages), whose: subjects::parse_usage }))
    }

    /// The number of the newest event that the stream holds, if there is one.
    pub async fn last_event(&self) -> Result<u64, Error> {
        self.online()?;
        let stream = self.ensure_stream(StreamKind::Events).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// The presences that nodes tell from now on; each does so every few seconds.
    pub async fn presence_feed(&self) -> Result<Presences, Error> {
        self.online()?;
        let live = self.subscribe(format!("{PRESENCES}*")).await?;
        self.flush().await?;
        Ok(Presences(live))
    }
}

/// Where to begin: after a number, or with the oldest if the stream never got so far.
fn start(after: u64, last: u64) -> DeliverPolicy {
    if after == 0 || after > last {
        return DeliverPolicy::All;
    }
    DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) }
}

impl Records {
    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<Recorded, Error> {
        loop {
            let message = self.messages.next().await.ok_or(Error::Closed)?;
            let refused = |err| Error::Refused { what: READ, source: err };
            let message = message.map_err(|err| refused(Box::new(err)))?;
            let info = message.info().map_err(refused)?;
            let (seq, nanos) = (info.stream_sequence, info.published.unix_timestamp_nanos());
            if let Some((agent, job)) = (self.whose)(&message.subject) {
                let ms = u64::try_from(nanos / 1_000_000).unwrap_or_default();
                let (at, body) = (Timestamp::from_unix_ms(ms), message.payload.clone());
                return Ok(Recorded { agent, job, seq, at, body });
            }
            debug!(subject = %message.subject, "skipped what is of no agent");
        }
    }
}

impl Presences {
    /// The next presence, and whose it is. What is none is left out. Cancel-safe.
    pub async fn next(&mut self) -> Result<(Address, Presence), Error> {
        loop {
            let message = self.0.next().await.ok_or(Error::Closed)?;
            let node = message.subject.strip_prefix(PRESENCES).and_then(|node| node.parse().ok());
            match (node, Presence::parse(&message.payload)) {
                (Some(node), Ok(presence)) => return Ok((node, presence)),
                (_, Err(err)) => {
                    debug!(subject = %message.subject, "skipped what is no presence: {err}");
                }
                (None, _) => debug!(subject = %message.subject, "skipped a presence of nobody"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_made_anew_is_read_from_its_beginning() {
        assert_eq!(start(0, 100), DeliverPolicy::All);
        assert_eq!(start(200, 100), DeliverPolicy::All);
        assert_eq!(start(100, 100), DeliverPolicy::ByStartSequence { start_sequence: 101 });
    }
}
