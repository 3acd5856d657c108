//! The one connection: made once by [`Bus::connect`], re-established automatically from then on.
//!
//! The client library reconnects indefinitely. This module adds jitter (a fleet must not reconnect in
//! one instant), credentials from the URL (which the library parses and then ignores), and a number per
//! connection, which tells that state set up on an earlier one is void.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, jetstream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::authority::{self, Authority};
use super::servers::{credentials_of, parse_servers};
use super::streams::Known;
use super::{Config, Credentials, DeliveryMode, Error, credentials, redact_urls};
use crate::backoff::Backoff;
use crate::seldom::Seldom;

/// Bounds one attempt to connect; a server that doesn't greet in time is retried later.
const GREETING: Duration = Duration::from_secs(5);

/// Bounds any request that the server itself answers: JetStream API calls, acks, publishes.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Bounds [`Bus::drain`]; after that the process exits without it.
const DRAIN: Duration = Duration::from_secs(5);

/// The first attempt after a loss soon finds a restarted server; later ones spread out.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The interval of pings. A half-open connection is detected after two of them.
const PING: Duration = Duration::from_secs(10);

/// Messages buffered for one reader; the client library drops any beyond that. Bounds memory in a flood,
/// and is far above what an intake requests.
const BUFFERED_MAX: usize = 2048;

/// How long a loss lasts before its cause is looked for. A restarted server is back by then.
const ABSENT: Duration = Duration::from_secs(10);

/// The most complaints of the server in the log a minute: different ones are worth reading.
const COMPLAINTS_PER_MIN: u32 = 5;

/// How often a waiter checks its condition, so that a lost event can't hang it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A handle on the connection to NATS; clones share it.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    servers: String,
    manage_streams: bool,
    changes: watch::Receiver<()>,
    mode: DeliveryMode,
    closed: AtomicBool,
    streams: Mutex<HashMap<String, Known>>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects, or fails within five seconds: the caller retries transient errors with backoff. Once
    /// made, the connection is re-established indefinitely.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let addresses = parse_servers(&config.url)?;
        let servers = redact_urls(&config.url);
        let (news, changes) = watch::channel(());
        let options = options(config, &addresses, news).await?;
        let client = match timeout(GREETING, options.connect(addresses)).await {
            Ok(Ok(client)) => client,
            Ok(Err(err)) => return Err(refusal(servers, config, err)),
            Err(elapsed) => {
                return Err(Error::Unreachable { server: servers, source: Box::new(elapsed) });
            }
        };
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .build(client.clone());
        Ok(Self(Arc::new(Inner {
            client,
            jetstream,
            servers,
            manage_streams: config.manage_streams,
            changes,
            mode: config.mode,
            closed: AtomicBool::new(false),
            streams: Mutex::default(),
        })))
    }

    /// Whether the connection is up and not closed.
    pub fn is_connected(&self) -> bool {
        !self.0.closed.load(Ordering::Acquire)
            && self.0.client.connection_state() == State::Connected
    }

    /// The servers' addresses, redacted, and the version of the connected one.
    pub fn server(&self) -> String {
        format!("{} ({})", self.0.servers, self.version())
    }

    /// Flushes what was published and closes the connection for good. Open intakes and streams end with
    /// [`Error::Closed`].
    pub async fn drain(&self) -> Result<(), Error> {
        let connected = self.is_connected();
        if self.0.closed.swap(true, Ordering::AcqRel) || !connected {
            return Ok(());
        }
        let drained = async {
            // A fresh inbox has no subscriber: the server itself answers "no responders", after it has
            // read everything that was sent before.
            self.client().request(self.client().new_inbox(), "".into()).await.ok();
            self.client().drain().await.is_ok()
        };
        match timeout(DRAIN, drained).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout { what: "drain the connection" }),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.0.jetstream
    }

    pub(super) fn manage_streams(&self) -> bool {
        self.0.manage_streams
    }

    /// Cached facts about streams, each valid only on the connection in which it was learned.
    pub(super) fn streams(&self) -> &Mutex<HashMap<String, Known>> {
        &self.0.streams
    }

    /// How jobs are delivered, as configured.
    pub fn mode(&self) -> DeliveryMode {
        self.0.mode
    }

    /// The error for a JetStream API that doesn't answer.
    pub(super) fn no_jetstream(&self) -> Error {
        Error::NoJetStream { server: self.server() }
    }

    pub(super) fn version(&self) -> String {
        self.client().try_server_info().map(|info| info.version).unwrap_or_default()
    }

    /// Fails if there is no connection: a message would only queue up for the next one.
    pub(super) fn online(&self) -> Result<(), Error> {
        if self.is_closed() {
            Err(Error::Closed)
        } else if self.is_connected() {
            Ok(())
        } else {
            Err(Error::Disconnected { server: self.0.servers.clone() })
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// How many connections have been made. State that was set up under another number is void.
    pub fn connection(&self) -> u64 {
        self.client().statistics().connects.load(Ordering::Acquire)
    }

    /// Returns once there is a connection.
    pub async fn connected(&self) -> Result<(), Error> {
        self.wait_until(Self::is_connected).await
    }

    /// Whether state that was set up on the connection with this number is void.
    pub(super) fn is_lost(&self, connection: u64) -> bool {
        !self.is_connected() || self.connection() != connection
    }

    /// Returns once the connection with this number is gone.
    pub async fn lost(&self, connection: u64) -> Result<(), Error> {
        self.wait_until(|bus| bus.is_lost(connection)).await
    }

    /// Waits until the connection has been down for ten seconds and a new attempt fails too; returns the
    /// error of that attempt, because the client library reconnects without reporting why it can't.
    pub async fn absence(&self, config: &Config) -> Result<Error, Error> {
        loop {
            self.lost(self.connection()).await?;
            if let Ok(back) = timeout(ABSENT, self.connected()).await {
                back?;
                continue;
            }
            match Self::connect(config).await {
                Ok(other) => drop(other.drain().await),
                Err(err) => return Ok(err),
            }
        }
    }

    async fn wait_until(&self, holds: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let mut changes = self.0.changes.clone();
        loop {
            changes.borrow_and_update();
            if self.is_closed() {
                return Err(Error::Closed);
            }
            if holds(self) {
                return Ok(());
            }
            timeout(LOOK_AGAIN, changes.changed()).await.ok();
        }
    }
}

async fn options(
    config: &Config,
    addresses: &[ServerAddr],
    news: watch::Sender<()>,
) -> Result<ConnectOptions, Error> {
    // No delay before the first connection: it has a time limit, and the caller backs off.
    let greeted = Arc::new(AtomicBool::new(false));
    let delays = {
        let greeted = greeted.clone();
        move |attempt: usize| {
            if greeted.load(Ordering::Acquire) {
                RECONNECT.jittered(u32::try_from(attempt).unwrap_or(u32::MAX))
            } else {
                Duration::ZERO
            }
        }
    };
    config.credentials.check().await?;
    let own = Arc::new(config.credentials.clone());
    let greeting = if matches!(*own, Credentials::None) {
        match credentials_of(addresses) {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        }
    } else {
        // Read again at each connection: the file may have been replaced.
        let own = Arc::clone(&own);
        ConnectOptions::with_auth_callback(move |nonce| credentials::answer(own.clone(), nonce))
    };
    let watch = Watch {
        greeted,
        news,
        own,
        refused: AtomicBool::new(false),
        dropped: Seldom::new(1),
        complaints: Seldom::new(COMPLAINTS_PER_MIN),
    };
    let mut options = greeting
        .name(&config.name)
        .ping_interval(PING)
        // One server that never answers must not use up the others' time.
        .connection_timeout(if addresses.len() > 1 { GREETING / 3 } else { GREETING })
        .request_timeout(Some(ANSWER))
        .subscription_capacity(BUFFERED_MAX)
        .reconnect_delay_callback(delays)
        .event_callback(move |event| {
            watch.observe(event);
            std::future::ready(())
        });
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if config.tls_first {
        options = options.tls_first();
    }
    if let Some(ca) = &config.tls_ca {
        options = match looked_at(ca).await? {
            Authority::Plain => options.add_root_certificates(ca.clone()),
            Authority::Marked(tls) => options.tls_client_config(*tls),
        };
        options = options.require_tls(true);
    }
    Ok(options)
}

async fn looked_at(ca: &Path) -> Result<Authority, Error> {
    let path = ca.to_owned();
    let looked = tokio::task::spawn_blocking(move || authority::look(&path)).await;
    let looked = looked.unwrap_or_else(|gone| Err(std::io::Error::other(gone)));
    looked.map_err(|source| Error::File { path: ca.to_owned(), source })
}

/// Handles the client library's connection events.
struct Watch {
    greeted: Arc<AtomicBool>,
    news: watch::Sender<()>,
    own: Arc<Credentials>,
    /// Whether a refusal was logged since the last connection.
    refused: AtomicBool,
    /// Dropped messages and the server's complaints: anyone on the server can cause both at will.
    dropped: Seldom,
    complaints: Seldom,
}

impl Watch {
    /// Logs what an operator should know, and wakes the tasks that wait for a change.
    fn observe(&self, event: Event) {
        match event {
            Event::Connected => {
                self.refused.store(false, Ordering::Release);
                if self.greeted.swap(true, Ordering::AcqRel) {
                    info!("connected to NATS again");
                }
            }
            Event::Disconnected => warn!("the connection to NATS is gone: connecting again"),
            Event::ServerError(error) if is_about_us(&error.to_string()) => self.tell_refusal(),
            Event::ServerError(error) => {
                if let Some(more) = self.complaints.line() {
                    warn!(%error, "the NATS server complains{more}");
                }
            }
            Event::SlowConsumer(_) => {
                if let Some(more) = self.dropped.line() {
                    warn!("NATS sends faster than we read: messages were dropped{more}");
                }
            }
            Event::LameDuckMode => info!("the NATS server is about to stop"),
            Event::ClientError(error) if is_about_us(&error.to_string()) => self.tell_refusal(),
            // The error carries only a kind; [`Bus::absence`] finds the cause.
            Event::Draining | Event::Closed | Event::ClientError(_) => {}
        }
        self.news.send_replace(());
    }

    /// Logs a refusal once, however many attempts fail before the next connection.
    fn tell_refusal(&self) {
        if !self.refused.swap(true, Ordering::AcqRel) {
            warn!(
                "the NATS server refuses our credentials{}; they are read again at each try",
                self.own.in_words(credentials::now())
            );
        }
    }
}

/// Whether an error is about our credentials. The library's type doesn't expose that, its text does.
fn is_about_us(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["authorization violation", "authentication", "revoked", "expired"]
        .iter()
        .any(|word| error.contains(word))
}

fn refusal(server: String, config: &Config, err: async_nats::ConnectError) -> Error {
    let what = || config.credentials.in_words(credentials::now());
    let text = err.to_string();
    match err.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            Error::Unauthorized { server, what: what() }
        }
        _ if is_about_us(&text) => Error::Unauthorized { server, what: what() },
        _ if text.contains("certificate") => {
            let authority = config.tls_ca.as_ref().map(|ca| ca.display().to_string());
            let authority = authority
                .unwrap_or_else(|| "the system's store (NATS_TLS_CA names another)".to_owned());
            Error::Untrusted { server, authority, source: Box::new(err) }
        }
        // A `handshake_first` server waits for TLS while we wait for its greeting, then hangs up.
        ConnectErrorKind::Io if !config.tls_first && text.contains("got nothing") => {
            Error::NoGreeting { server }
        }
        _ => Error::Unreachable { server, source: Box::new(err) },
    }
}
