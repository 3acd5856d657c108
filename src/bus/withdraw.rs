//! Removes a published job from the queue.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::DeleteMessageErrorKind;

use super::claims::{is_empty, is_missing, unread};
use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error, Target};
use crate::ids::JobId;
use crate::job::spec;

const WHAT: &str = "withdraw a job";

impl Bus {
    /// Deletes the message with this number if it is on the target's subject and holds this job. Returns
    /// `false` if there is no such message (any more), or no JetStream. Doesn't check whether an agent
    /// holds the job: the caller reads the claim first, and an agent that gets the job in that moment
    /// runs it.
    pub async fn withdraw(
        &self,
        stream_seq: u64,
        target: &Target,
        job: &JobId,
    ) -> Result<bool, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(false);
        }
        let stream = self.stream_unseen(StreamKind::Jobs).await?;
        let message = match stream.get_raw_message(stream_seq).await {
            Ok(message) => message,
            Err(err) if is_empty(&err) || is_missing(&err) => return Ok(false),
            Err(err) => return Err(unread(WHAT, err)),
        };
        // In a re-created stream the number may be another job's.
        let same_target = Target::of_subject(&message.subject).as_ref() == Some(target);
        if !same_target || id_of(&message.payload) != *job {
            return Ok(false);
        }
        match stream.delete_message(stream_seq).await {
            Ok(deleted) => Ok(deleted),
            Err(err) => match err.kind() {
                // Acknowledged or deleted since the message was read.
                DeleteMessageErrorKind::JetStream(answer) if is_gone(answer.error_code()) => {
                    Ok(false)
                }
                DeleteMessageErrorKind::TimedOut => Err(Error::Timeout { what: WHAT }),
                _ => Err(Error::Refused { what: WHAT, source: Box::new(err) }),
            },
        }
    }
}

/// The id used in statuses, also for invalid bodies.
pub(super) fn id_of(body: &[u8]) -> JobId {
    match spec::parse(body) {
        Ok(parsed) => parsed.spec.id,
        Err(refused) => refused.id,
    }
}

fn is_gone(code: ErrorCode) -> bool {
    [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND]
        .contains(&code)
}
