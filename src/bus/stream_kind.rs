//! The streams and buckets of the protocol: their names, their subjects, and how each is made.
//!
//! Pure. Invariant: what is here is what docs/protocol.md says.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::node::presence;

const DAY: Duration = Duration::from_hours(24);
const GIB: i64 = 1 << 30;

/// The largest body of a job; a stream with a lower limit would silently drop some.
const JOB_BYTES_MAX: i32 = 256 * 1024;

/// The size of the queue, and of the claims bucket as a multiple of it. A claim must outlive every
/// delivery of its job, so the bucket must not fill up before the queue: a claim takes about 540 bytes
/// with subject and headers, a queued job hardly less than half of that. The bucket holds the claims of
/// a month at 1.5 jobs a second, or of the queue's week at six.
const JOBS_BYTES: i64 = GIB;
pub(super) const CLAIMS_TO_JOBS: i64 = 2;

/// The largest claim, with subject and headers, which count towards a stream's message limit.
const CLAIM_BYTES_MAX: i32 = 4 * 1024;

/// The largest presence, with subject and headers.
const NODE_BYTES_MAX: i32 = 17 * 1024;

/// The largest value that two hubs share, with subject and headers.
const OUTBOX_BYTES_MAX: i32 = 257 * 1024;

/// How long what a hub told is remembered: one that was away for longer may tell it again.
const OUTBOX_FOR: Duration = Duration::from_hours(7 * 24);

/// The largest event, with subject and headers.
const EVENT_BYTES_MAX: i32 = 17 * 1024;

/// How long events are kept.
const EVENTS_FOR: Duration = Duration::from_hours(7 * 24);

/// How long a job waits in its stream for an agent.
pub(super) const JOBS_FOR: Duration = Duration::from_hours(7 * 24);

/// The streams and buckets of the protocol (docs/protocol.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    Jobs,
    Status,
    Dead,
    /// Results that were published late; created with the first of them.
    Results,
    /// What jobs used; created with the first of it.
    Usage,
    /// Events of nodes; created with the first of them.
    Events,
    /// The bucket `JOB_CLAIMS`; needed only to serve a pool.
    Claims,
    /// The bucket `NODES`; optional.
    Nodes,
    /// The bucket `HUB_OUTBOX`; needed only by two hubs that share their alerts.
    Outbox,
}

impl StreamKind {
    /// What every agent needs. `Jobs` comes last: if the server has no room for the others, it must not
    /// accept jobs that no agent ever runs.
    pub(super) const BASIC: [Self; 3] = [Self::Status, Self::Dead, Self::Jobs];

    /// What an agent of a pool needs, `Jobs` last again.
    pub(super) const OF_POOLS: [Self; 4] = [Self::Status, Self::Dead, Self::Claims, Self::Jobs];

    /// All that reserve space on the server's disk, for a message to the server's owner.
    pub(super) const ON_DISK: [Self; 6] =
        [Self::Status, Self::Results, Self::Usage, Self::Events, Self::Claims, Self::Jobs];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "JOBS",
            Self::Status => "STATUS",
            Self::Dead => "DEAD",
            Self::Results => "RESULTS",
            Self::Usage => "USAGE",
            Self::Events => "EVENTS",
            Self::Claims => "KV_JOB_CLAIMS",
            Self::Nodes => "KV_NODES",
            Self::Outbox => "KV_HUB_OUTBOX",
        }
    }

    /// The configuration with which it is created if missing.
    pub(super) fn wanted(self) -> Config {
        let subjects: &[&str] = match self {
            Self::Jobs => &["jobs.dispatch.*", "jobs.pool.*"],
            Self::Status => &["jobs.status.*.*"],
            Self::Dead => &["jobs.dead.*"],
            Self::Results => &["jobs.results.*.*"],
            Self::Usage => &["usage.*.*"],
            Self::Events => &["events.*.*.*"],
            Self::Claims => &["$KV.JOB_CLAIMS.>"],
            Self::Nodes => &["$KV.NODES.>"],
            Self::Outbox => &["$KV.HUB_OUTBOX.>"],
        };
        let common = Config {
            name: self.name().to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            max_age: 30 * DAY,
            max_bytes: -1,
            num_replicas: 1,
            ..Config::default()
        };
        match self {
            // A full queue refuses new jobs, so that the submitter learns of it.
            Self::Jobs => Config {
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                max_age: JOBS_FOR,
                max_bytes: JOBS_BYTES,
                ..common
            },
            Self::Status | Self::Results => Config { max_bytes: GIB, ..common },
            Self::Usage => Config { max_bytes: GIB, max_age: 7 * DAY, ..common },
            Self::Dead => common,
            // The oldest go first: what happens now matters more.
            Self::Events => Config { max_age: EVENTS_FOR, max_bytes: GIB, ..common },
            // As KV clients create a bucket, except when it is full (after four million jobs in 30 days):
            // then the oldest claims, of jobs that ended long ago, are discarded, and the pools go on.
            // A claim must outlive every delivery of its job. It lives as long as a job id in a journal,
            // which tells a late repeat from a new job.
            Self::Claims => Config {
                max_messages_per_subject: 1,
                max_bytes: CLAIMS_TO_JOBS * JOBS_BYTES,
                allow_direct: true,
                allow_rollup: true,
                deny_delete: true,
                ..common
            },
            // A node that is gone expires after three missed updates. Memory will do: each node writes its
            // value again all the time.
            Self::Nodes => Config {
                max_messages_per_subject: 1,
                max_age: 3 * Duration::from_secs(presence::EVERY_S),
                max_bytes: GIB / 16,
                storage: StorageType::Memory,
                allow_direct: true,
                allow_rollup: true,
                deny_delete: true,
                ..common
            },
            // When it is full, the oldest go: what was told long ago.
            Self::Outbox => Config {
                max_messages_per_subject: 1,
                max_age: OUTBOX_FOR,
                max_bytes: GIB / 16,
                allow_direct: true,
                allow_rollup: true,
                deny_delete: true,
                ..common
            },
        }
    }

    /// The largest message that it must accept, in bytes.
    pub(super) const fn message_bytes_max(self) -> i32 {
        match self {
            Self::Claims => CLAIM_BYTES_MAX,
            Self::Nodes => NODE_BYTES_MAX,
            Self::Events => EVENT_BYTES_MAX,
            Self::Outbox => OUTBOX_BYTES_MAX,
            Self::Jobs | Self::Status | Self::Dead | Self::Results | Self::Usage => JOB_BYTES_MAX,
        }
    }
}
