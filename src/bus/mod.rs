//! NATS: jobs in, statuses out.
//!
//! A [`Bus`] is a cheap handle on one connection that comes back by itself. [`subjects`] names
//! what is spoken on; [`streams`] makes and checks the JetStream side; an [`Intake`] pulls jobs;
//! [`claims`] says who has a pool's; [`settle`] answers for them; [`publish`] sends, under the ids of
//! [`ids`], [`find`] looks for a job, [`nodes`] for nodes, [`withdraw`] takes it back; [`watch`] and [`control`] are the other ends.
//!
//! What must hold:
//! - a job that was delivered is handed out, or comes again after its ack wait: no future of this
//!   folder that is dropped half-way loses one;
//! - no stream and no consumer that exists is ever changed;
//! - a message counts as stored only where the stream took it, or has it word for word: that it had
//!   one of the same id proves nothing;
//! - an ack goes out only to the stream that delivered, never to one made anew under its name,
//!   where the same number is another job;
//! - every request has a deadline, and while there is no connection it fails at once instead of
//!   queueing up.

pub mod claims;
pub mod control;
pub mod find;
pub mod ids;
pub mod intake;
pub mod nodes;
pub mod publish;
pub mod settle;
pub mod shortcomings;
pub mod streams;
pub mod subjects;
pub mod watch;
pub mod withdraw;

mod authority;
mod connection;
mod consumers;
mod credentials;

use std::fmt;
use std::path::PathBuf;

use async_nats::jetstream::ErrorCode;

use crate::ids::Address;
use crate::job::claim;
use crate::secret::redact_url;

pub use claims::Found;
pub use connection::{Bus, is_url};
pub use control::{ControlAnswers, ControlRequest, ControlRequests};
pub use credentials::{Credentials, Expiry, Kept, WARN_BEFORE};
pub use find::Search;
pub use ids::MessageIds;
pub use intake::{Delivery, Intake};
pub use publish::Published;
pub use settle::{AckHandle, Settle};
pub use shortcomings::Shortcoming;
pub use streams::DeliveryMode;
pub use subjects::{InvalidPoolName, PoolName, Source, Target, is_inbox};
pub use watch::{LogStream, StatusFilter, StatusMessage, StatusStream};

/// Where the NATS server is and how to greet it.
#[derive(Clone)]
pub struct Config {
    /// One server or a comma list: `nats://host:4222`, `tls://…`, each with `user:password@` or
    /// `token@` where [`Config::credentials`] is `None`.
    pub url: String,
    /// Who we are; goes before what stands in the URL.
    pub credentials: Credentials,
    /// The certificate authority to trust instead of the system's, as PEM. Requires TLS.
    pub tls_ca: Option<PathBuf>,
    /// Whether TLS comes before the server's greeting, as its `handshake_first` wants it.
    pub tls_first: bool,
    /// The connection's name in the server's listings.
    pub name: String,
    /// What the subjects of answers to this program begin with; the client's own where `None`.
    pub inbox_prefix: Option<String>,
    /// Whether missing streams are created (`false`: only checked).
    pub manage_streams: bool,
    /// How jobs come in, as the owner decided: nothing that a server says changes it.
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

/// A comma list of URLs as it may be shown.
fn redact_urls(urls: &str) -> String {
    urls.split(',').map(|url| redact_url(url.trim())).collect::<Vec<_>>().join(",")
}

/// Why the bus did not do what it was asked. The cause is in `source()`, not in the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none. Final.
    #[error("`{url}` is no NATS address: nats://host:port or tls://host:port, or a comma list")]
    Url {
        /// The part of the list that is wrong, redacted.
        url: String,
    },
    /// A file of the settings can't be used. Final.
    #[error("{} can't be read", path.display())]
    File {
        /// The credentials or the certificate authority.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The server does not know us: wrong credentials, or none. Final.
    #[error("the NATS server at {server} refuses our credentials{what}")]
    Unauthorized {
        /// The server's address, redacted.
        server: String,
        /// Their file, and whether they expired, as the end of the sentence.
        what: String,
    },
    /// No server answers: try again later.
    #[error("no NATS server answers at {server}")]
    Unreachable {
        /// The servers' addresses, redacted.
        server: String,
        /// What went wrong.
        #[source]
        source: BoxError,
    },
    /// It can't prove that it is the server: try again later, the authority is read anew.
    #[error(
        "the NATS server at {server} is not believed: its certificate has to be for this name, and of \
         an authority in {authority}"
    )]
    Untrusted {
        /// The servers' addresses, redacted.
        server: String,
        /// Where the authorities come from.
        authority: String,
        /// What is wrong with the certificate.
        #[source]
        source: BoxError,
    },
    /// It hung up without a word: try again later.
    #[error(
        "the NATS server at {server} hangs up without a greeting: where it wants TLS before that \
         (handshake_first), set NATS_TLS_HANDSHAKE=first"
    )]
    NoGreeting {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// The connection is gone and being made again: try again later.
    #[error("there is no connection to the NATS server at {server} now")]
    Disconnected {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// [`Bus::drain`] was called. Final.
    #[error("the connection to NATS was closed by this program")]
    Closed,
    /// The server would drop what we ask for in silence. Final.
    #[error(
        "nats-server {version} is too old: 2.10 or later is needed (earlier ones drop a consumer's \
         filter_subjects in silence)"
    )]
    TooOld {
        /// What the server says that it is.
        version: String,
    },
    /// A stream or consumer is missing or not as this program needs it. Nobody but its owner may
    /// change it, so: final.
    #[error("the stream {stream} can't be used: {problem}")]
    Stream {
        /// Its name.
        stream: String,
        /// What differs, in words.
        problem: String,
    },
    /// The delivery's stream or consumer is not what it was. Drop the handle: where the job is
    /// still in the stream, it is delivered again.
    #[error("the delivery belongs to a stream {stream} or consumer that is gone")]
    StaleAck {
        /// The stream's name.
        stream: String,
    },
    /// The server has no JetStream now, or what leads there can't be reached: try again later.
    #[error(
        "the NATS server at {server} has no JetStream now: start it with `-js`, or set \
         NATS_MODE=core to do without, where each job is delivered at most once"
    )]
    NoJetStream {
        /// The servers' addresses, redacted.
        server: String,
    },
    /// [`DeliveryMode::Core`], and so no claims: every job is delivered at most once.
    #[error("without JetStream there are no claims of pools' jobs")]
    NoClaims,
    /// A value in the bucket is no claim. It may be somebody's, such as a later version's: the job
    /// is theirs until the key is removed. Final, as far as we can tell.
    #[error("the claim {key} in the bucket JOB_CLAIMS can't be read")]
    InvalidClaim {
        /// `<pool>.<job_id>`.
        key: String,
        /// Its revision.
        revision: u64,
        /// What is wrong with it.
        #[source]
        source: claim::Invalid,
    },
    /// Nobody listens for this agent's control messages.
    #[error("the agent {agent} does not listen: it is not running, or not on this NATS server")]
    NoAgent {
        /// Who was asked.
        agent: Address,
    },
    /// The server that we are connected to says that nobody leads `JetStream`, or this stream, now:
    /// nobody can be given a job. Try again.
    #[error("JetStream has no leader now that could: {what}")]
    Leaderless {
        /// What was asked.
        what: &'static str,
        /// The server's answer.
        #[source]
        source: BoxError,
    },
    /// No answer within the deadline: it may have been done or not. Try again.
    #[error("NATS gave no answer in time to: {what}")]
    Timeout {
        /// What was asked.
        what: &'static str,
    },
    /// The message is larger than the server takes. Final.
    #[error("a message of {bytes} bytes is more than the NATS server takes ({bytes_max})")]
    TooLarge {
        /// The body's size.
        bytes: usize,
        /// The server's `max_payload`.
        bytes_max: usize,
    },
    /// The server said no, such as to a publish into a full stream. May work later.
    #[error("NATS refused: {what}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The server's answer.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing settings.
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
    /// Whether the server itself said that nobody leads. Silence is not that: it may be this side
    /// that is cut off.
    pub fn is_leaderless(&self) -> bool {
        matches!(self, Self::Leaderless { .. })
    }

    /// What an answer of `JetStream` means that says no.
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

/// A cause whose type stays behind the adapter's border.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
