//! Answering for a delivery, by the subject that came with it.
//!
//! The subject is kept in the journal, so that an agent that was killed answers for what it held
//! as soon as it is back. It names a stream and a number in it; where the stream was lost and made
//! anew, the number is another job. So an answer goes out only while the stream is the one that
//! delivered.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::connection::ANSWER;
use super::{Bus, Error};

/// What it takes to answer for a delivery, now or after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckHandle {
    /// The subject that answers go to.
    pub reply: String,
    /// The stream that the job lies in.
    pub stream: String,
    /// When that stream was made, in Unix nanoseconds: its identity.
    pub stream_created_ns: i64,
    /// The job's number in the stream.
    pub stream_seq: u64,
    /// How often the job had been delivered, this time included; 0 in journals of before.
    #[serde(default)]
    pub delivered: u64,
    /// The consumer that delivered it.
    pub consumer: String,
    /// How long the delivery stays ours without a sign of life, as the consumer has it.
    #[serde(default = "ack_wait_ms_of_before")]
    pub ack_wait_ms: u64,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Done with: the job leaves the stream.
    Ack,
    /// Not now: it is delivered again, to anybody, after this long.
    Nak(Duration),
    /// Still at it: the ack wait begins anew.
    Progress,
}

impl AckHandle {
    /// From a delivered message; `None` where it did not come from JetStream.
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

    /// How long the delivery stays ours without a sign of life.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms)
    }
}

/// Handles in journals of before say nothing of it: the shorter of the protocol's two.
const fn ack_wait_ms_of_before() -> u64 {
    30_000
}

impl Bus {
    /// Answers for a delivery and waits until the server has taken the answer. Can be repeated.
    /// [`Error::StaleAck`] where the stream or the consumer is gone: nothing was sent, or nobody
    /// took it.
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
                // The consumer is gone, or nobody leads it now: only the first is an answer.
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
