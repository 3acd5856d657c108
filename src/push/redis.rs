//! Writes to a Redis server: what dashboards listen to, and what they read back.
//!
//! Must hold: each call has a deadline; the password is in no text; of what the server refuses as a whole nothing
//! arrives. A part of it arrives only with [`Error::Partly`], and nobody knows how much with [`Error::Away`].

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamMaxlen;
use redis::{AsyncConnectionConfig, Client, ErrorKind, Pipeline, RedisError, ServerErrorKind};

use crate::fleet::seed_view::Command;
use crate::report::{self, BoxError};
use crate::secret::{Secret, redact_url};

/// Time limit for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Time limit for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The most characters of the server's words that are passed on.
const WORDS_MAX: usize = 200;

/// Where the server is.
#[derive(Debug, Clone)]
pub struct Config {
    url: Secret,
}

/// Why a text can't be the address of a Redis server here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is none.
    #[error("it is no address of a Redis server: redis://:password@host:6379/0")]
    Form,
    /// The server is to be asked through TLS.
    #[error("TLS (rediss://) isn't supported: use redis:// on this host, or through a tunnel")]
    Tls,
}

/// Why nothing was written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server wants another password, or one at all.
    #[error("the Redis at {server} refuses the password: see EVENTS_REDIS_URL")]
    Password {
        /// The server's address without its password.
        server: String,
    },
    /// The server answers with an error.
    #[error("the Redis at {server} refuses")]
    Refused {
        /// The server's address without its password.
        server: String,
        /// Its words.
        #[source]
        source: BoxError,
    },
    /// The server took all but what it names, such as a write to a name that is something else there.
    #[error("the Redis at {server} took a part only: is one of the names something else there?")]
    Partly {
        /// The server's address without its password.
        server: String,
        /// Its words.
        #[source]
        source: BoxError,
    },
    /// The server can't be reached, or does not answer in time.
    #[error("the Redis at {server} does not answer")]
    Away {
        /// The server's address without its password.
        server: String,
        /// The client library's error.
        #[source]
        source: BoxError,
    },
}

impl Config {
    /// A server at this address: `redis://`, or `unix://` for a socket.
    pub fn new(url: Secret) -> Result<Self, InvalidUrl> {
        let scheme = url.expose().split(':').next().unwrap_or_default();
        if ["rediss", "valkeys"].iter().any(|tls| scheme.eq_ignore_ascii_case(tls)) {
            return Err(InvalidUrl::Tls);
        }
        Client::open(url.expose()).map_err(|_| InvalidUrl::Form)?;
        Ok(Self { url })
    }

    /// The address without its password.
    pub fn server(&self) -> String {
        redact_url(self.url.expose())
    }

    /// Connects and logs in.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let server = self.server();
        let named = |err: RedisError| named(&server, &err);
        let client = Client::open(self.url.expose()).map_err(named)?;
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&limits).await.map_err(named)?;
        // A server that wants a password and got none refuses the first command only.
        let pong: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
        pong.map_err(named)?;
        Ok(Connection { connection, server })
    }
}

/// A connection to a Redis server. After an error it is of no more use.
pub struct Connection {
    connection: MultiplexedConnection,
    server: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// Writes all of this in one round trip. After [`Error::Away`] it is not known whether it arrived.
    pub async fn write(&mut self, commands: &[Command]) -> Result<(), Error> {
        if commands.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for command in commands {
            add(&mut pipeline, command);
        }
        let done: Result<(), _> = pipeline.query_async(&mut self.connection).await;
        done.map_err(|err| named(&self.server, &err))
    }
}

fn add(pipeline: &mut Pipeline, command: &Command) {
    match command {
        Command::Publish { channel, body } => pipeline.publish(*channel, body).ignore(),
        Command::Append { stream, max, fields } => {
            pipeline.xadd_maxlen(*stream, StreamMaxlen::Approx(*max), "*", fields).ignore()
        }
        Command::Push { list, max, body } => {
            let last = isize::try_from(max.saturating_sub(1)).unwrap_or(isize::MAX);
            pipeline.lpush(*list, body).ignore().ltrim(*list, 0, last).ignore()
        }
        Command::Set { key, body, seconds } => pipeline.set_ex(key, body, *seconds).ignore(),
    };
}

fn named(server: &str, err: &RedisError) -> Error {
    let server = server.to_owned();
    let is_about_password = matches!(err.code(), Some("NOAUTH" | "WRONGPASS"))
        || err.kind() == ErrorKind::AuthenticationFailed;
    let source = words(err);
    if is_about_password {
        Error::Password { server }
    } else if is_partial(err) {
        Error::Partly { server, source }
    } else if matches!(err.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        Error::Refused { server, source }
    } else {
        Error::Away { server, source }
    }
}

/// Whether a transaction was carried out, except for some of its commands: those have errors of their own, and the
/// whole has none.
fn is_partial(err: &RedisError) -> bool {
    let is_aborted = err.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort);
    !is_aborted && err.code().is_none() && err.clone().into_server_errors().is_some()
}

/// The words of the server's first error, or of the library: a server may say as much as it likes.
fn words(err: &RedisError) -> BoxError {
    let all = err.clone().into_server_errors();
    let first = all.as_deref().and_then(|all| all.first());
    let text = first.map_or_else(|| err.to_string(), |(_, err)| err.to_string());
    report::one_line(&text, WORDS_MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = Config::new(Secret::new("redis://user:hunter2@host:6379/1")).unwrap();
        let away = named(&config.server(), &(ErrorKind::Io, "x").into());
        let shown = format!("{config:?} {} {away} {away:?}", config.server());
        assert!(shown.contains("host:6379") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_no_address_is_refused_before_anything_is_opened() {
        for url in ["", "host", "http://host", "redis://", "redis://host:99999"] {
            assert!(Config::new(Secret::new(url)).is_err(), "{url}");
        }
        let tls = Config::new(Secret::new("rediss://host:6379"));
        assert_eq!(tls.unwrap_err(), InvalidUrl::Tls);
        assert!(Config::new(Secret::new("redis://:p@127.0.0.1:6379/0")).is_ok());
    }
}
