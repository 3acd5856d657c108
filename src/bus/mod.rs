//! NATS: jobs in, statuses out.
//!
//! A [`Bus`] is a cheap handle on one connection that reconnects by itself. [`subjects`] builds and
//! parses subjects; [`streams`] creates and checks the JetStream streams; an [`Intake`] pulls jobs;
//! [`claims`] stores which agent holds a pool's job; [`settle`] acknowledges deliveries; [`publish`]
//! sends, with message ids from [`ids`]; [`find`] searches for a job, [`withdraw`] removes it from the
//! queue; [`nodes`] lists nodes, [`outbox`] is what two hubs share; [`watch`] reads statuses and logs, [`proplets`] live figures, [`events`] sends and reads events,
//! [`control`] asks agents.
//!
//! Invariants:
//! - a delivered job is handed out, or redelivered after its ack wait: dropping a future of this module
//!   half-way loses none;
//! - an existing stream or consumer is never changed;
//! - a message counts as stored only if the stream took it or holds an identical one: a duplicate id
//!   alone proves nothing;
//! - an ack goes only to the stream that delivered, never to one re-created under its name, where the
//!   same sequence number is another job;
//! - every request has a deadline; without a connection it fails at once instead of queueing up.

pub mod claims;
pub mod control;
pub mod events;
pub mod feed;
pub mod find;
pub mod ids;
pub mod intake;
pub mod nodes;
pub mod outbox;
pub mod proplets;
pub mod publish;
mod recall;
pub mod settle;
pub mod shortcomings;
mod stream_kind;
pub mod streams;
pub mod subjects;
mod usage;
pub mod watch;
pub mod withdraw;

mod authority;
mod connection;
mod consumers;
mod credentials;
mod servers;

use std::fmt;
use std::path::PathBuf;

use async_nats::jetstream::ErrorCode;

use crate::ids::Address;
use crate::job::claim;
use crate::report::BoxError;
use crate::secret::redact_url;

pub use claims::Found;
pub use connection::Bus;
pub use control::{ControlAnswers, ControlRequest, ControlRequests};
pub use credentials::{Credentials, Expiry, Kept, WARN_BEFORE};
pub use events::{EventStream, Sending, Start};
pub use feed::{Presences, Recorded, Records};
pub use find::Search;
pub use ids::MessageIds;
pub use intake::{Delivery, Intake};
pub use publish::Published;
pub use recall::{Hint, Recall};
pub use servers::is_url;
pub use settle::{AckHandle, Settle};
pub use shortcomings::Shortcoming;
pub use streams::DeliveryMode;
pub use subjects::{
    InvalidPoolName, InvalidTopic, MetricsTopic, PoolName, Source, Target, is_inbox,
};
pub use watch::{LogStream, StatusFilter, StatusMessage, StatusStream};

/// Where the NATS server is and how to connect to it.
#[derive(Clone)]
pub struct Config {
    /// One URL or a comma-separated list: `nats://host:4222`, `tls://…`. A `user:password@` or `token@`
    /// in it is used if [`Config::credentials`] is [`Credentials::None`].
    pub url: String,
    /// How to authenticate; takes precedence over credentials in the URL.
    pub credentials: Credentials,
    /// A PEM file of the certificate authorities to trust instead of the system's. Makes TLS mandatory.
    pub tls_ca: Option<PathBuf>,
    /// Whether to start TLS before the server's greeting, for servers with `handshake_first`.
    pub tls_first: bool,
    /// The connection's name in the server's listings.
    pub name: String,
    /// The prefix of this program's inbox subjects; `None` keeps the client library's default.
    pub inbox_prefix: Option<String>,
    /// Whether to create missing streams; `false` only checks them.
    pub manage_streams: bool,
    /// How jobs are delivered. The owner decides; nothing that a server reports changes it.
    pub mode: DeliveryMode,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &redact_urls(&self.url))
            .field("credentials", &self.credentials)
            .field("tls_ca", &self.tls_ca)
            .field("tls_first", &self.tls_first)
            .field("name", &self.name)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("manage_streams", &self.manage_streams)
            .field("mode", &self.mode)
            .finish()
    }
}

/// A comma-separated list of URLs, redacted.
fn redact_urls(urls: &str) -> String {
    urls.split(',').map(|url| redact_url(url.trim())).collect::<Vec<_>>().join(",")
}

/// Why a bus operation failed. The cause is in `source()`, not in the text. "Final" means that a retry
/// fails again until someone changes the settings or the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a NATS address. Final.
    #[error("`{url}` is no NATS address: nats://host:port or tls://host:port, or a comma list")]
    Url {
        /// The invalid part of the list, redacted.
        url: String,
    },
    /// A file named in the settings can't be read or is invalid. Final.
    #[error("{} can't be read", path.display())]
    File {
        /// The file of the credentials or of the certificate authority.
        path: PathBuf,
        /// What is wrong with the file.
        #[source]
        source: std::io::Error,
    },
    /// The server rejects our credentials, or requires some. Final.
    #[error("the NATS server at {server} refuses our credentials{what}")]
    Unauthorized {
        /// The server's address, redacted.
        server: String,
        /// The credentials' file and whether they expired, as the end of the sentence.
        what: String,
    },
    /// No server answers. Retry later.
    #[error("no NATS server answers at {server}")]
    Unreachable {
        /// The servers' addresses, redacted.
        server: String,
        /// The client library's error.
        #[source]
        source: BoxError,
    },
    /// The server's certificate isn't trusted. Retry later: the authorities are read again.
    #[error(
        "the NATS server at {server} is not believed: its certificate has to be for this name, and of \
         an authority in {authority}"
    )]
    Untrusted {
        /// The servers' addresses, redacted.
        server: String,
        /// Where the trusted authorities come from.
        authority: String,
        /// What is wrong with the certificate.
        #[source]
        source: BoxError,
    },
    /// The server closed the connection without a greeting. Retry later.
    #[error(
        "the NATS server at {server} hangs up without a greeting: where it wants TLS before that \
         (handshake_first), set NATS_TLS_HANDSHAKE=first"
    )]
    NoGreeting {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// The connection is down and being re-established. Retry later.
    #[error("there is no connection to the NATS server at {server} now")]
    Disconnected {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// [`Bus::drain`] was called. Final.
    #[error("the connection to NATS was closed by this program")]
    Closed,
    /// The server is too old: it would silently drop part of a consumer's configuration. Final.
    #[error(
        "nats-server {version} is too old: 2.10 or later is needed (earlier ones drop a consumer's \
         filter_subjects in silence)"
    )]
    TooOld {
        /// The version that the server reports.
        version: String,
    },
    /// A stream or consumer is missing or unsuitable. Only its owner may change it. Final.
    #[error("the stream {stream} can't be used: {problem}")]
    Stream {
        /// The name of the stream.
        stream: String,
        /// What is wrong with it, as a clause.
        problem: String,
    },
    /// The delivery's stream or consumer is gone or was re-created. Drop the handle: a job that is still
    /// in the stream is redelivered.
    #[error("the delivery belongs to a stream {stream} or consumer that is gone")]
    StaleAck {
        /// The name of the stream that delivered.
        stream: String,
    },
    /// JetStream is disabled on the server or unreachable. Retry later.
    #[error(
        "the NATS server at {server} has no JetStream now: start it with `-js`, or set \
         NATS_MODE=core to do without, where each job is delivered at most once"
    )]
    NoJetStream {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// There are no claims in [`DeliveryMode::Core`]: every job is delivered at most once.
    #[error("without JetStream there are no claims of pools' jobs")]
    NoClaims,
    /// A value in the bucket is not a claim that this version can read. It may belong to someone, such
    /// as a later version: the job is theirs until the key is removed. Treated as final.
    #[error("the claim {key} in the bucket JOB_CLAIMS can't be read")]
    InvalidClaim {
        /// The key in the bucket: `<pool>.<job_id>`.
        key: String,
        /// The revision of the value.
        revision: u64,
        /// Why the value isn't a claim.
        #[source]
        source: claim::Invalid,
    },
    /// No program is subscribed to the agent's control subject.
    #[error("the agent {agent} does not listen: it is not running, or not on this NATS server")]
    NoAgent {
        /// The agent that was asked.
        agent: Address,
    },
    /// The connected server reports that JetStream, or this stream, has no leader: no agent can be given
    /// a job. Retry.
    #[error("JetStream has no leader now that could: {what}")]
    Leaderless {
        /// The request, as a verb phrase.
        what: &'static str,
        /// The server's error response.
        #[source]
        source: BoxError,
    },
    /// No answer within the deadline: the request may or may not have taken effect. Retry.
    #[error("NATS gave no answer in time to: {what}")]
    Timeout {
        /// The request, as a verb phrase.
        what: &'static str,
    },
    /// The message is larger than the server accepts. Final.
    #[error("a message of {bytes} bytes is more than the NATS server takes ({bytes_max})")]
    TooLarge {
        /// The body's size in bytes.
        bytes: usize,
        /// The server's `max_payload`.
        bytes_max: usize,
    },
    /// The server rejected the request, such as a publish to a full stream. May succeed later.
    #[error("NATS refused: {what}")]
    Refused {
        /// The request, as a verb phrase.
        what: &'static str,
        /// The error of the server or the client library.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call may succeed later without a change of settings.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::NoGreeting { .. }
                | Self::Disconnected { .. }
                | Self::NoJetStream { .. }
                | Self::Leaderless { .. }
                | Self::Timeout { .. }
                | Self::Refused { .. }
        )
    }
}

impl Error {
    /// Whether the server itself reported a missing leader. A timeout doesn't count: this side may be
    /// the one that is cut off.
    pub fn is_leaderless(&self) -> bool {
        matches!(self, Self::Leaderless { .. })
    }

    /// The error for a negative JetStream response: [`Error::Leaderless`] or [`Error::Refused`].
    pub(crate) fn refused(what: &'static str, answer: async_nats::jetstream::Error) -> Self {
        let leaderless = [
            ErrorCode::CLUSTER_NOT_AVAILABLE,
            ErrorCode::CLUSTER_NOT_LEADER,
            ErrorCode::CLUSTER_INCOMPLETE,
            ErrorCode::STREAM_OFFLINE,
            ErrorCode::CONSUMER_OFFLINE,
        ];
        let is_leaderless = leaderless.contains(&answer.error_code());
        let source = Box::new(answer);
        if is_leaderless {
            Self::Leaderless { what, source }
        } else {
            Self::Refused { what, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn settings_print_without_their_secrets() {
        let config = Config {
            url: "nats://user:hunter2@a:4222, nats://t0ken@b:4222".to_owned(),
            credentials: Credentials::Token(Kept::Here(Secret::new("hunter3"))),
            tls_ca: None,
            tls_first: false,
            name: "node".to_owned(),
            inbox_prefix: None,
            manage_streams: true,
            mode: DeliveryMode::JetStream,
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("nats://a:4222,nats://b:4222"), "{shown}");
        for secret in ["hunter", "t0ken", "user:"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
