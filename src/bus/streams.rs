//! The streams and the buckets of claims and nodes: which must exist, and whether they are usable.
//!
//! Must hold: an existing stream is never changed. A missing one is created; one that differs where it
//! matters is refused with a message that says how; the rest of its settings are its owner's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, RequestErrorKind};
use async_nats::jetstream::stream::{Config, Info};
use async_nats::jetstream::{ErrorCode, stream};
use tokio::time::Instant;

use super::stream_kind::{JOBS_FOR, StreamKind};
use super::subjects::covers;
use super::{Bus, Error, subjects};

/// How jobs are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryMode {
    /// From a durable work queue, at least once.
    JetStream,
    /// By plain subscriptions, at most once and without claims (`NATS_MODE=core`).
    Core,
}

/// The oldest server whose consumers keep more than one filter subject.
const SERVER_MIN: (u64, u64) = (2, 10);

/// Subjects that no stream of ours may capture: the stream would answer requests in the agent's place,
/// and traffic that is lossy by design would fill it.
const NEVER_CAPTURED: [&str; 4] =
    [subjects::AGENT_STATUS, "jobs.control.x", "jobs.holds.x", "jobs.logs.x.x"];

/// What was last learned about a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// When it was created, in Unix nanoseconds; `None` if there is no stream of that name.
    pub(super) created_ns: Option<i64>,
    connection: u64,
    at: Instant,
}

/// How long [`Known`] is trusted. The intake notices at once when an administrator re-creates a stream,
/// everyone else after this time.
const KNOWN_FOR: Duration = Duration::from_secs(10);

impl Bus {
    /// Checks the server's version, then creates the missing streams and checks the others (in
    /// [`DeliveryMode::Core`] only the version). Repeatable, and repeated at each reconnect: the server
    /// may be another one, or have lost its streams.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.prepare_all(&StreamKind::BASIC).await
    }

    /// [`Bus::prepare`] for an agent that serves pools: the claims bucket must exist before a job does.
    pub async fn prepare_pools(&self) -> Result<(), Error> {
        self.prepare_all(&StreamKind::OF_POOLS).await
    }

    async fn prepare_all(&self, kinds: &[StreamKind]) -> Result<(), Error> {
        self.online()?;
        let version = self.version();
        if !is_new_enough(&version) {
            return Err(Error::TooOld { version });
        }
        if self.mode() == DeliveryMode::Core {
            return Ok(());
        }
        for kind in kinds {
            self.ensure_stream(*kind).await?;
        }
        Ok(())
    }

    /// The stream, created if missing; an error if it is unusable.
    pub(super) async fn ensure_stream(&self, kind: StreamKind) -> Result<stream::Stream, Error> {
        let wanted = kind.wanted();
        let found = match self.find_stream(kind.name()).await? {
            Some(stream) => stream,
            None => self.create_stream(&wanted).await?,
        };
        let info = found.cached_info();
        self.remember(kind.name(), Some(created_ns(info)));
        match difference(kind, &info.config) {
            None => Ok(found),
            Some(problem) => Err(Error::Stream { stream: wanted.name, problem }),
        }
    }

    /// The stream of this name, if it exists.
    pub(super) async fn find_stream(&self, name: &str) -> Result<Option<stream::Stream>, Error> {
        let error = match self.jetstream().get_stream(name).await {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) => error,
        };
        match error.kind() {
            GetStreamErrorKind::JetStream(answer) => match answer.error_code() {
                ErrorCode::STREAM_NOT_FOUND => Ok(None),
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    Err(self.no_jetstream())
                }
                _ => Err(Error::refused(FIND, answer)),
            },
            _ => match request_error_kind(&error) {
                Some(RequestErrorKind::NoResponders) => Err(self.no_jetstream()),
                Some(RequestErrorKind::TimedOut) => Err(Error::Timeout { what: FIND }),
                _ => Err(Error::Refused { what: FIND, source: Box::new(error) }),
            },
        }
    }

    async fn create_stream(&self, wanted: &Config) -> Result<stream::Stream, Error> {
        let unusable = |problem: String| Error::Stream { stream: wanted.name.clone(), problem };
        if !self.manage_streams() {
            return Err(unusable("it does not exist, and this program may not make it".into()));
        }
        let error = match self.jetstream().create_stream(wanted).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            // Someone else created it first, with other settings; theirs decide.
            CreateStreamErrorKind::JetStream(answer)
                if answer.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                let found = self.find_stream(&wanted.name).await?;
                found.ok_or_else(|| Error::Refused { what: CREATE, source: Box::new(answer) })
            }
            CreateStreamErrorKind::JetStream(answer) if is_full(&answer) => {
                Err(unusable(format!("it can't be made: {answer}; {}", room_needed(wanted))))
            }
            // Below 500 the server's owner has to act: a retry would get the same answer.
            CreateStreamErrorKind::JetStream(answer) if answer.code() < 500 => {
                Err(unusable(format!("it can't be made: {answer}")))
            }
            CreateStreamErrorKind::TimedOut => Err(Error::Timeout { what: CREATE }),
            _ => Err(Error::Refused { what: CREATE, source: Box::new(error) }),
        }
    }

    /// When the stream of this name was created, in Unix nanoseconds. The answer is cached for
    /// `KNOWN_FOR` within one connection.
    pub(super) async fn stream_created(&self, name: &str) -> Result<Option<i64>, Error> {
        let known = lock(self.streams()).get(name).copied();
        let connection = self.connection();
        match known {
            Some(known) if known.connection == connection && known.at.elapsed() < KNOWN_FOR => {
                Ok(known.created_ns)
            }
            _ => {
                let found = self.find_stream(name).await?;
                let created = found.map(|stream| created_ns(stream.cached_info()));
                self.remember(name, created);
                Ok(created)
            }
        }
    }

    fn remember(&self, name: &str, created_ns: Option<i64>) {
        let known = Known { created_ns, connection: self.connection(), at: Instant::now() };
        lock(self.streams()).insert(name.to_owned(), known);
    }

    /// Clears the cache, so that the next lookup asks the server.
    pub(super) fn forget_streams(&self) {
        lock(self.streams()).clear();
    }
}

const FIND: &str = "find a stream";
const CREATE: &str = "make a stream";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn created_ns(info: &Info) -> i64 {
    i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default()
}

pub(super) fn request_error_kind(
    error: &(dyn std::error::Error + 'static),
) -> Option<RequestErrorKind> {
    let request = error.source()?.downcast_ref::<async_nats::jetstream::context::RequestError>()?;
    Some(request.kind())
}

/// Whether the server lacks the space that a stream reserves: its owner has to act.
fn is_full(answer: &async_nats::jetstream::Error) -> bool {
    let code = answer.error_code();
    // The last one is an account's own limit, which is reported with status 400.
    let ours = [ErrorCode::STORAGE_RESOURCES_EXCEEDED, ErrorCode::INSUFFICIENT_RESOURCES];
    ours.contains(&code) || code == ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
}

/// The disk space that this stream and all streams of a node need, in words.
fn room_needed(wanted: &Config) -> String {
    let mib = |bytes: i64| bytes.max(0) / (1 << 20);
    let all = StreamKind::ON_DISK.map(|kind| (kind.name(), kind.wanted().max_bytes));
    let parts = all.map(|(name, bytes)| format!("{name} {}", mib(bytes))).join(", ");
    let sum = mib(all.iter().map(|(_, bytes)| bytes).sum());
    format!(
        "it reserves {} MiB, and all streams of a node reserve {sum} MiB ({parts}): give JetStream \
         as much (max_file_store, or the account's max_disk), or make smaller ones before the node \
         starts",
        mib(wanted.max_bytes)
    )
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SERVER_MIN,
        _ => false,
    }
}

/// What makes `found` unusable, in words.
fn difference(kind: StreamKind, found: &Config) -> Option<String> {
    let wanted = kind.wanted();
    let captures = |subject: &str| found.subjects.iter().any(|pattern| covers(pattern, subject));
    if found.retention != wanted.retention {
        let (is, must) = (found.retention, wanted.retention);
        return Some(format!("its retention is {is:?}, it must be {must:?}"));
    }
    if let Some(missing) = wanted.subjects.iter().find(|subject| !captures(subject)) {
        return Some(format!("it does not capture {missing}"));
    }
    if let Some(extra) = NEVER_CAPTURED.iter().find(|subject| captures(subject)) {
        return Some(format!("it captures {extra}, which must stay outside of every stream"));
    }
    if found.no_ack {
        return Some("it acknowledges no publish".to_owned());
    }
    let max = found.max_message_size;
    if max > 0 && max < kind.message_bytes_max() {
        return Some(format!("it drops messages over {max} bytes in silence"));
    }
    if kind == StreamKind::Claims {
        return bucket_difference(found);
    }
    None
}

/// What would make a bucket lose claims, in words.
fn bucket_difference(found: &Config) -> Option<String> {
    if found.max_messages_per_subject < 1 {
        return Some(
            "it is a plain stream, not a bucket: it keeps every value of a key".to_owned(),
        );
    }
    if !found.max_age.is_zero() && found.max_age < JOBS_FOR {
        let (hours, min) = (found.max_age.as_secs() / 3600, JOBS_FOR.as_secs() / 3600);
        return Some(format!("it forgets claims after {hours} h, jobs may wait for {min} h"));
    }
    None
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn servers_before_2_10_are_too_old_and_so_is_what_has_no_version() {
        for version in ["2.10.0", "2.10", "2.15.1", "v2.11.0-RC.1", "3.0.0"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["2.9.25", "1.4.1", "", "x", "2"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn a_stream_is_refused_for_what_breaks_us_and_for_nothing_else() {
        let with = |change: fn(&mut Config)| {
            let mut found = StreamKind::Jobs.wanted();
            change(&mut found);
            difference(StreamKind::Jobs, &found)
        };
        assert_eq!(with(|found| found.num_replicas = 3), None);
        assert_eq!(with(|found| found.max_bytes = 5), None);
        for (change, said) in [
            ((|found| found.retention = RetentionPolicy::Limits) as fn(&mut Config), "retention"),
            (|found| found.subjects = vec!["jobs.pool.*".into()], "jobs.dispatch.*"),
            (|found| found.subjects = vec!["jobs.>".into()], "jobs.control.x"),
            (|found| found.max_message_size = 1000, "1000 bytes"),
            (|found| found.no_ack = true, "acknowledges"),
        ] {
            let problem = with(change).expect(said);
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn a_bucket_is_refused_where_it_would_lose_claims() {
        let with = |change: fn(&mut Config)| {
            let mut found = StreamKind::Claims.wanted();
            change(&mut found);
            difference(StreamKind::Claims, &found)
        };
        assert_eq!(with(|found| found.max_messages_per_subject = 64), None);
        assert_eq!(with(|found| found.max_age = Duration::ZERO), None);
        assert_eq!(with(|found| found.discard = DiscardPolicy::New), None);
        for (change, said) in [
            ((|found| found.max_messages_per_subject = -1) as fn(&mut Config), "not a bucket"),
            (|found| found.max_age = 6 * DAY, "after 144 h"),
            (|found| found.max_message_size = 100, "100 bytes"),
        ] {
            let problem = with(change).expect(said);
            assert!(problem.contains(said), "{problem}");
        }
    }
}
