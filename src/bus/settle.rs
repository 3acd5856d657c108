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
    /// The consumer that delivered it.
    pub consumer: String,
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
    /// Never to be delivered again, though nothing was done.
    Term,
}

impl AckHandle {
    /// From a delivered message; `None` where it did not come from JetStream.
    pub(super) fn of(message: &jetstream::Message, stream_created_ns: i64) -> Option<(Self, u64)> {
        let info = message.info().ok()?;
        let handle = Self {
            reply: message.reply.as_ref()?.to_string(),
            stream: info.stream.to_owned(),
            stream_created_ns,
            stream_seq: info.stream_sequence,
            consumer: info.consumer.to_owned(),
        };
        Some((handle, u64::try_from(info.delivered).unwrap_or(1)))
    }
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
                self.forget_streams();
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
            Self::Term => AckKind::Term,
        }
        .into()
    }
}
