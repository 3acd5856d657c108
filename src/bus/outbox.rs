//! The bucket `HUB_OUTBOX`: what two hubs of one account share of their alerts. [`crate::fleet::pair`] reads and writes its
//! values; this module moves them.
//!
//! `send.<channel>` is written by compare-and-set only, so that its revision is the fence: who writes it knows that nobody
//! else has done so since. `told.<channel>.<message>` are facts, which either hub may add. Reads go to the stream's
//! leader.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageError;
use bytes::Bytes;

use super::claims::{is_empty, is_missing, is_race, is_removal, unread};
use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error};

const READ: &str = "read what the other hub told";
const WRITE: &str = "write down what this hub tells";

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its revision, over which the next one may be written.
    pub revision: u64,
    /// The value; `None` if the key was removed.
    pub body: Option<Bytes>,
}

impl Bus {
    /// Who sends over this channel; `None` if nobody ever did. The bucket is created if missing.
    pub async fn sender(&self, channel: &str) -> Result<Option<Value>, Error> {
        self.shares()?;
        let stream = self.stream_unseen(StreamKind::Outbox).await?;
        match stream.get_last_raw_message_by_subject(&sender_subject(channel)).await {
            Ok(message) => {
                let body = (!is_removal(&message.headers)).then_some(message.payload);
                Ok(Some(Value { revision: message.sequence, body }))
            }
            Err(err) if is_missing(&err) => {
                self.ensure_stream(StreamKind::Outbox).await?;
                Ok(None)
            }
            other => none(other),
        }
    }

    /// Writes who sends over this channel over the revision that was read (0: none). Returns the new revision; `None` if
    /// somebody else was faster.
    ///
    /// After [`Error::Timeout`] it may have been written: read again.
    pub async fn put_sender(
        &self,
        channel: &str,
        body: String,
        over: u64,
    ) -> Result<Option<u64>, Error> {
        self.shares()?;
        let message =
            PublishMessage::build().payload(body.into()).expected_last_subject_sequence(over);
        match self.put(sender_subject(channel), message).await {
            Ok(revision) => Ok(Some(revision)),
            Err(err) if is_race(&err) => Ok(None),
            Err(err) => Err(unwritten(err)),
        }
    }

    /// Adds that a message was told, or may have been. Repeatable.
    pub async fn put_told(&self, channel: &str, message: &str, body: String) -> Result<(), Error> {
        self.shares()?;
        let built = PublishMessage::build().payload(body.into());
        self.put(told_subject(channel, message), built).await.map(drop).map_err(unwritten)
    }

    /// Whether this message is known to have been told.
    pub async fn is_told(&self, channel: &str, message: &str) -> Result<bool, Error> {
        self.shares()?;
        let stream = self.stream_unseen(StreamKind::Outbox).await?;
        let found = stream.get_last_raw_message_by_subject(&told_subject(channel, message)).await;
        match found {
            Ok(message) => Ok(!is_removal(&message.headers)),
            Err(err) if is_missing(&err) => Ok(false),
            other => none::<(), _>(other).map(|_| false),
        }
    }

    /// The next message over this channel that was told, after this number of the stream; `None` if there is none yet.
    pub async fn told_after(&self, channel: &str, after: u64) -> Result<Option<Value>, Error> {
        self.shares()?;
        let stream = self.stream_unseen(StreamKind::Outbox).await?;
        let all = format!("{TOLD}{channel}.>");
        match stream.get_first_raw_message_by_subject(all, after.saturating_add(1)).await {
            Ok(message) => {
                let body = (!is_removal(&message.headers)).then_some(message.payload);
                Ok(Some(Value { revision: message.sequence, body }))
            }
            Err(err) if is_missing(&err) => Ok(None),
            other => none(other),
        }
    }

    async fn put(&self, subject: String, message: PublishMessage) -> Result<u64, PublishError> {
        let sent = self.jetstream().send_publish(subject, message).await?;
        sent.await.map(|stored| stored.sequence)
    }

    fn shares(&self) -> Result<(), Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core { Err(Error::NoClaims) } else { Ok(()) }
    }
}

const TOLD: &str = "$KV.HUB_OUTBOX.told.";

fn sender_subject(channel: &str) -> String {
    format!("$KV.HUB_OUTBOX.send.{channel}")
}

fn told_subject(channel: &str, message: &str) -> String {
    format!("{TOLD}{channel}.{message}")
}

/// `None` if there is no such message.
fn none<T, M>(read: Result<M, RawMessageError>) -> Result<Option<T>, Error> {
    match read {
        Err(err) if !is_empty(&err) => Err(unread(READ, err)),
        _ => Ok(None),
    }
}

fn unwritten(err: PublishError) -> Error {
    if err.kind() == PublishErrorKind::TimedOut {
        Error::Timeout { what: WRITE }
    } else {
        Error::Refused { what: WRITE, source: Box::new(err) }
    }
}
