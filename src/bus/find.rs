//! Searches for one job: its message in the queue, and its last status.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageError;
use tokio::time::timeout;

use super::claims::{is_empty, is_missing, unread};
use super::stream_kind::StreamKind;
use super::withdraw::id_of;
use super::{AckHandle, Bus, DeliveryMode, Error, StatusMessage, Target, subjects};
use crate::ids::JobId;

/// The queue has no index by job: its messages are read one by one, up to this number and for up to
/// [`SEARCH_MAX`].
const MESSAGES_MAX: usize = 20_000;
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// The result of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The sequence number of the job's message in the stream.
    Found(u64),
    /// The queue holds no such job.
    Absent,
    /// Unknown: the search ended before the queue did, or there is no JetStream to look up a delivery.
    GivenUp,
}

impl Bus {
    /// Searches a queue for a job's message, oldest first, whether it is in hand or not.
    pub async fn find_job(&self, target: &Target, job: &JobId) -> Result<Search, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(Search::Absent);
        }
        let search = timeout(SEARCH_MAX, self.search(target, job));
        search.await.unwrap_or(Ok(Search::GivenUp))
    }

    /// Finds the message of a job that was delivered before: at its sequence number or, if the stream was
    /// re-created or restored, in the whole queue. Numbers aren't reused: at an empty one the message was
    /// removed or has expired, and a search would find nothing.
    pub async fn find_delivered(
        &self,
        delivery: &AckHandle,
        target: &Target,
        job: &JobId,
    ) -> Result<Search, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(Search::GivenUp);
        }
        if self.stream_created(&delivery.stream).await? == Some(delivery.stream_created_ns) {
            let stream = self.stream_unseen(StreamKind::Jobs).await?;
            let message = present(stream.get_raw_message(delivery.stream_seq).await)?;
            match message {
                Some(message) if id_of(&message.payload) == *job => {
                    return Ok(Search::Found(delivery.stream_seq));
                }
                None => return Ok(Search::Absent),
                Some(_) => {}
            }
        }
        self.find_job(target, job).await
    }

    async fn search(&self, target: &Target, job: &JobId) -> Result<Search, Error> {
        let stream = self.stream_unseen(StreamKind::Jobs).await?;
        let mut left = MESSAGES_MAX;
        for subject in target.subjects() {
            let mut from = 1;
            while let Some(message) =
                present(stream.get_first_raw_message_by_subject(&subject, from).await)?
            {
                if id_of(&message.payload) == *job {
                    return Ok(Search::Found(message.sequence));
                }
                from = message.sequence + 1;
                left -= 1;
                if left == 0 {
                    return Ok(Search::GivenUp);
                }
            }
        }
        Ok(Search::Absent)
    }

    /// The last status of a job, from any agent. Anyone on the server could have sent it.
    pub async fn last_status(&self, job: &JobId) -> Result<Option<StatusMessage>, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(None);
        }
        let stream = self.stream_unseen(StreamKind::Status).await?;
        let subject = subjects::status_filter(None, Some(job));
        let Some(message) = present(stream.get_last_raw_message_by_subject(&subject).await)? else {
            return Ok(None);
        };
        let said = subjects::parse_status(&message.subject);
        Ok(said.map(|(agent, job)| StatusMessage { agent, job, body: message.payload }))
    }
}

/// The message that was read; `None` if it or its stream doesn't exist.
fn present(read: Result<StreamMessage, RawMessageError>) -> Result<Option<StreamMessage>, Error> {
    match read {
        Ok(message) => Ok(Some(message)),
        Err(err) if is_empty(&err) || is_missing(&err) => Ok(None),
        Err(err) => Err(unread("look for a job", err)),
    }
}
