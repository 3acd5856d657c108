//! The bucket `JOB_CLAIMS`: which agent holds which pool's job. [`crate::job::claim`] decides what a claim
//! allows; this module reads claims and writes them by compare-and-set.
//!
//! A bucket is a stream named `KV_…`, so it is created and checked like the others. Each call is one
//! direct request: there is no state that a lost connection could void. Reads go to the stream's leader,
//! not to a replica that may lag behind.

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};

use super::stream_kind::StreamKind;
use super::streams::request_error_kind;
use super::{Bus, DeliveryMode, Error, PoolName};
use crate::ids::JobId;
use crate::job::Claim;

const READ: &str = "read a claim";
const WRITE: &str = "write a claim";

/// The header with which KV clients mark a key as removed.
const KV_OPERATION: &str = "KV-Operation";

/// The header of the marker that the server leaves when a key has expired.
const KV_MARKER: &str = "Nats-Marker-Reason";

/// A claim as stored in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The claim that was read.
    pub claim: Claim,
    /// Its revision, which [`Bus::put_claim`] may overwrite.
    pub revision: u64,
}

/// The last message of a key.
enum Last {
    Value(StreamMessage),
    /// A marker with this revision: the key was deleted, purged or expired.
    Removed(u64),
    None,
}

impl Bus {
    /// The claim of a pool's job; `None` if there is none or it was removed.
    ///
    /// [`Error::NoClaims`] without JetStream: go on without. [`Error::InvalidClaim`] if the value can't be
    /// read, such as one of a later version: it may belong to someone, so leave the job to them, report
    /// it once and ask again later. Removing the key frees the job.
    pub async fn claim(&self, pool: &PoolName, job: &JobId) -> Result<Option<Found>, Error> {
        self.claims_online()?;
        let Last::Value(message) = self.last(&key(pool, job)).await? else { return Ok(None) };
        let revision = message.sequence;
        match Claim::parse(&message.payload) {
            Ok(claim) => Ok(Some(Found { claim, revision })),
            Err(source) => Err(Error::InvalidClaim { key: key(pool, job), revision, source }),
        }
    }

    /// Writes a claim over the revision that was read; `over` is `None` if there was none or it was
    /// removed. Returns `false` if someone else was faster: read again.
    ///
    /// After [`Error::Timeout`] the claim may have been written: read again; if it was, the decision is
    /// [`crate::job::claim::Take::Mine`].
    pub async fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> Result<bool, Error> {
        self.claims_online()?;
        let key = key(pool, job);
        if self.put_over(&key, claim, over.unwrap_or(0)).await? {
            return Ok(true);
        }
        if over.is_some() {
            return Ok(false);
        }
        match self.last(&key).await? {
            Last::Removed(marker) => self.put_over(&key, claim, marker).await,
            Last::Value(_) | Last::None => Ok(false),
        }
    }

    fn claims_online(&self) -> Result<(), Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core { Err(Error::NoClaims) } else { Ok(()) }
    }

    async fn last(&self, key: &str) -> Result<Last, Error> {
        let stream = self.stream_unseen(StreamKind::Claims).await?;
        let message = match stream.get_last_raw_message_by_subject(&subject(key)).await {
            Ok(message) => message,
            Err(err) if is_empty(&err) => return Ok(Last::None),
            Err(err) if is_missing(&err) => {
                self.remake_claims().await?;
                return Ok(Last::None);
            }
            Err(err) => return Err(unread(READ, err)),
        };
        Ok(if is_removal(&message.headers) {
            Last::Removed(message.sequence)
        } else {
            Last::Value(message)
        })
    }

    async fn put_over(&self, key: &str, claim: &Claim, revision: u64) -> Result<bool, Error> {
        let written = match self.write(key, claim, revision).await {
            Err(err) if err.kind() == PublishErrorKind::StreamNotFound => {
                self.remake_claims().await?;
                self.write(key, claim, revision).await
            }
            other => other,
        };
        match written {
            Ok(()) => Ok(true),
            Err(err) if is_race(&err) => Ok(false),
            Err(err) if err.kind() == PublishErrorKind::TimedOut => {
                Err(Error::Timeout { what: WRITE })
            }
            Err(err) => Err(Error::Refused { what: WRITE, source: Box::new(err) }),
        }
    }

    async fn write(&self, key: &str, claim: &Claim, revision: u64) -> Result<(), PublishError> {
        let message = PublishMessage::build()
            .payload(claim.to_json().into())
            .expected_last_subject_sequence(revision);
        self.jetstream().send_publish(subject(key), message).await?.await.map(drop)
    }

    /// Creates the missing bucket; an error if this program may not.
    async fn remake_claims(&self) -> Result<(), Error> {
        self.ensure_stream(StreamKind::Claims).await.map(drop)
    }

    /// A handle on a stream that may not exist; makes no request.
    pub(super) async fn stream_unseen(&self, kind: StreamKind) -> Result<Stream<()>, Error> {
        let handle = self.jetstream().get_stream_no_info(kind.name()).await;
        handle.map_err(|err| Error::Refused { what: READ, source: Box::new(err) })
    }
}

/// `<pool>.<job_id>`; the types guarantee that each is one token of a subject.
fn key(pool: &PoolName, job: &JobId) -> String {
    format!("{pool}.{job}")
}

fn subject(key: &str) -> String {
    format!("$KV.JOB_CLAIMS.{key}")
}

/// Whether a message says that its key was deleted, purged or has expired.
pub(super) fn is_removal(headers: &HeaderMap) -> bool {
    headers.get(KV_OPERATION).is_some_and(|what| what.as_str() != "PUT")
        || headers.get(KV_MARKER).is_some()
}

/// Whether the stream exists but the message doesn't.
pub(super) fn is_empty(err: &RawMessageError) -> bool {
    err.kind() == RawMessageErrorKind::NoMessageFound
}

/// Whether the stream doesn't exist.
pub(super) fn is_missing(err: &RawMessageError) -> bool {
    matches!(
        err.kind(),
        RawMessageErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND
    )
}

/// The error of a read that failed for any other reason.
pub(super) fn unread(what: &'static str, err: RawMessageError) -> Error {
    match (request_error_kind(&err), err.kind()) {
        (Some(jetstream::context::RequestErrorKind::TimedOut), _) => Error::Timeout { what },
        (_, RawMessageErrorKind::JetStream(answer)) => Error::refused(what, answer),
        _ => Error::Refused { what, source: Box::new(err) },
    }
}

/// Whether someone else wrote the key first. A cluster that is still applying that write reports it with
/// a separate code.
pub(super) fn is_race(err: &PublishError) -> bool {
    let code = std::error::Error::source(err)
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    err.kind() == PublishErrorKind::WrongLastSequence
        || code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}
