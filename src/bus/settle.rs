//! Settles deliveries (ack, nak, in progress) through the reply subject that came with each.
//!
//! The reply subject is kept in the journal, so that an agent that was killed settles what it held as
//! soon as it is back. The subject names a stream and a sequence number, which is another job if the
//! stream was re-created. Must hold: a delivery is settled only while its stream is the one that
//! delivered it.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::connection::ANSWER;
use super::{Bus, Error};

/// What is needed to settle a delivery, now or after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckHandle {
    /// The reply subject of the delivery.
    pub reply: String,
    /// The name of the stream that holds the job.
    pub stream: String,
    /// When that stream was created, in Unix nanoseconds: its identity.
    pub stream_created_ns: i64,
    /// The sequence number of the job in the stream.
    pub stream_seq: u64,
    /// How often the job had been delivered, including this time; 0 in journals of earlier versions.
    #[serde(default)]
    pub delivered: u64,
    /// The consumer that delivered it.
    pub consumer: String,
    /// The consumer's ack wait: how long the delivery stays ours without being renewed.
    #[serde(default = "ack_wait_ms_of_before")]
    pub ack_wait_ms: u64,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Done: the job leaves the stream.
    Ack,
    /// Not now: the job is redelivered, to any agent, after this delay.
    Nak(Duration),
    /// Still working on it: the ack wait starts again.
    Progress,
}

impl AckHandle {
    /// From a delivered message; `None` if it did not come from JetStream.
    pub(super) fn of(
        message: &jetstream::Message,
        stream_created_ns: i64,
        ack_wait: Duration,
    ) -> Option<(Self, u64)> {
        let info = message.info().ok()?;
        let delivered = u64::try_from(info.delivered).unwrap_or(1);
        let handle = Self {
            reply: message.reply.as_ref()?.to_string(),
            stream: info.stream.to_owned(),
            stream_created_ns,
            stream_seq: info.stream_sequence,
            delivered,
            consumer: info.consumer.to_owned(),
            ack_wait_ms: u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX),
        };
        Some((handle, delivered))
    }

    /// How long the delivery stays ours without being renewed.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms)
    }
}

/// For handles in journals of earlier versions, which lack the value: the shorter of the protocol's two.
const fn ack_wait_ms_of_before() -> u64 {
    30_000
}

impl Bus {
    /// Settles a delivery and waits until the server confirms it. Repeatable. [`Error::StaleAck`] if the
    /// stream or the consumer is gone: nothing was sent, or no one received it.
    pub async fn settle(&self, ack: &AckHandle, how: Settle) -> Result<(), Error> {
        const WHAT: &str = "settle a delivery";
        self.online()?;
        self.check_stream(ack).await?;
        let request = Request::new().payload(how.payload()).timeout(Some(ANSWER));
        let Err(err) = self.client().send_request(ack.reply.clone(), request).await else {
            return Ok(());
        };
        match err.kind() {
            RequestErrorKind::NoResponders => {
                // The consumer is gone or has no leader. A missing leader fails the second check with a
                // transient error; only a consumer that is gone makes the handle stale.
                self.forget_streams();
                self.check_stream(ack).await?;
                Err(Error::StaleAck { stream: ack.stream.clone() })
            }
            RequestErrorKind::TimedOut => Err(Error::Timeout { what: WHAT }),
            _ => Err(Error::Refused { what: WHAT, source: Box::new(err) }),
        }
    }

    async fn check_stream(&self, ack: &AckHandle) -> Result<(), Error> {
        if self.stream_created(&ack.stream).await? == Some(ack.stream_created_ns) {
            Ok(())
        } else {
            Err(Error::StaleAck { stream: ack.stream.clone() })
        }
    }
}

impl Settle {
    fn payload(self) -> Bytes {
        match self {
            Self::Ack => AckKind::Ack,
            Self::Nak(delay) => AckKind::Nak((!delay.is_zero()).then_some(delay)),
            Self::Progress => AckKind::Progress,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_in_a_journal_of_before_is_read_with_the_shorter_ack_wait() {
        let before = r#"{"reply":"$JS.ACK.x","stream":"JOBS","stream_created_ns":5,
            "stream_seq":7,"consumer":"agent-0x"}"#;
        let handle: AckHandle = serde_json::from_str(before).unwrap();
        assert_eq!(handle.ack_wait(), Duration::from_secs(30));
        let shared = AckHandle { ack_wait_ms: 120_000, ..handle };
        let stored = serde_json::to_string(&shared).unwrap();
        assert_eq!(serde_json::from_str::<AckHandle>(&stored).unwrap(), shared);
    }
}
