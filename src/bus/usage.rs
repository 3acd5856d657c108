//! Reads what jobs used from the stream `USAGE`.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, subjects};
use crate::ids::{Address, JobId};
use crate::report::BoxError;

const WHAT: &str = "read what jobs used";

/// Most batches of one job that are read: weeks of one a minute.
const BATCHES_MAX: u64 = 50_000;

/// How long the next batch may take; the server has it already.
const NEXT: Duration = Duration::from_secs(10);

impl Bus {
    /// The batches of this job that the stream holds, on one agent or any, in the order in which they were sent, with
    /// the agent that the subject names. Anyone on the server could have sent one. None without JetStream.
    pub async fn usage(
        &self,
        agent: Option<Address>,
        job: &JobId,
    ) -> Result<Vec<(Address, Bytes)>, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(Vec::new());
        }
        let refused = |source: BoxError| Error::Refused { what: WHAT, source };
        let Some(stream) = self.find_stream(StreamKind::Usage.name()).await? else {
            return Ok(Vec::new());
        };
        let config = pull::OrderedConfig {
            filter_subject: subjects::usage_filter(agent, job),
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|err| refused(err.into()))?;
        let waiting = consumer.cached_info().num_pending.min(BATCHES_MAX);
        let mut messages = consumer.messages().await.map_err(|err| refused(err.into()))?;
        let mut batches = Vec::new();
        for _ in 0..waiting {
            let next = timeout(NEXT, messages.next()).await;
            let message = next.map_err(|_| Error::Timeout { what: WHAT })?.ok_or(Error::Closed)?;
            let message = message.map_err(|err| refused(err.into()))?.message;
            if let Some((agent, _)) = subjects::parse_usage(&message.subject) {
                batches.push((agent, message.payload));
            }
        }
        Ok(batches)
    }
}
