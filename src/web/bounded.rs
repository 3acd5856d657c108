//! A server for clients that are not trusted to behave: it bounds how many there are, how long each stays and how
//! much it sends.
//!
//! Invariant: whatever clients do, the server holds at most so many connections, and each ends in time: that of
//! [`Bounds::lifetime`], or the longer one that a handler granted it with [`Peer::may_stay`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// What a server grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time; more of them wait in the kernel's queue.
    pub connections: usize,
    /// How long a connection may last, its answers included.
    pub lifetime: Duration,
    /// How many bytes a client may send over a connection.
    pub request_bytes: usize,
}

/// Serves `app` on `listener` within these bounds until the returned future is dropped.
pub async fn serve_within(listener: TcpListener, app: Router, bounds: Bounds) -> io::Result<()> {
    axum::serve(Bounded::new(listener, bounds), app).await
}

/// As [`serve_within`], until `shutdown`; answers under way then have `grace` to end. Handlers learn who asks from
/// `ConnectInfo<Peer>`. A client that keeps its connection is asked to open a new one, with its answer, once half
/// of the lifetime is over, so that the end of it cuts off only those who dawdle.
pub async fn serve_within_until(
    listener: TcpListener,
    app: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let polite = middleware::from_fn(move |request, next| part(bounds.lifetime / 2, request, next));
    let app = app.layer(polite).into_make_service_with_connect_info::<Peer>();
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let signal = async move {
        shutdown.await;
        stopping.send(()).ok();
    };
    let serve = axum::serve(Bounded::new(listener, bounds), app).with_graceful_shutdown(signal);
    super::until_graced(serve.into_future(), stopped, grace).await
}

/// Closes a connection after the first answer that is given later than `after`.
async fn part(after: Duration, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().cloned();
    let mut answer = next.run(request).await;
    let is_late = peer.is_some_and(|ConnectInfo(peer)| peer.since.elapsed() > after);
    // A connection that becomes a WebSocket has no further answers.
    if is_late && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it connects from; that of a proxy, if there is one.
    pub address: SocketAddr,
    since: Instant,
    lifetime_ms: Arc<AtomicU64>,
}

impl Peer {
    /// Lets the connection last so long from its beginning: for a stream of events, whose reader is no dawdler.
    pub fn may_stay(&self, lifetime: Duration) {
        self.lifetime_ms.store(millis(lifetime), Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        let guest = stream.io();
        Self {
            address: *stream.remote_addr(),
            since: guest.since,
            lifetime_ms: Arc::clone(&guest.lifetime_ms),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A listener that keeps to bounds.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    bounds: Bounds,
}

impl Bounded {
    fn new(listener: TcpListener, bounds: Bounds) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(bounds.connections)), bounds }
    }
}

impl Listener for Bounded {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        stream.set_nodelay(true).ok();
        let since = Instant::now();
        let guest = Guest {
            stream,
            _place: place,
            since,
            lifetime_ms: Arc::new(AtomicU64::new(millis(self.bounds.lifetime))),
            end: Box::pin(tokio::time::sleep_until(since + self.bounds.lifetime)),
            left: self.bounds.request_bytes,
            preface: Some(0),
        };
        (guest, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    since: Instant,
    /// How long it may last, which [`Peer::may_stay`] changes.
    lifetime_ms: Arc<AtomicU64>,
    end: Pin<Box<Sleep>>,
    /// How many more bytes it may send.
    left: usize,
    /// How many bytes of [`PREFACE`] it began with; `None` once it is something else.
    preface: Option<usize>,
}

/// What begins HTTP/2, whose streams no bound of ours counts; no method of HTTP/1 begins so.
const PREFACE: &[u8] = b"PRI ";

impl Guest {
    /// `Err` if the client speaks HTTP/2.
    fn is_http1(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            let Some(at) = self.preface else { return Ok(()) };
            if PREFACE.get(at) != Some(byte) {
                self.preface = None;
                return Ok(());
            }
            self.preface = Some(at + 1);
            if at + 1 == PREFACE.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    /// `Err` once its time is over; else its task is woken when that is so.
    fn is_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.end.as_mut().poll(context).is_ready() {
            let lifetime = Duration::from_millis(self.lifetime_ms.load(Ordering::Relaxed));
            let end = self.since + lifetime;
            if end <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.end.as_mut().reset(end);
        }
        Ok(())
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_in_time(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let got = buffer.filled().len() - before;
        let fresh = buffer.filled().get(before..).unwrap_or_default().get(..PREFACE.len().min(got));
        self.is_http1(fresh.unwrap_or_default())?;
        match self.left.checked_sub(got) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_in_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;

    use super::*;

    const LIFETIME: Duration = Duration::from_millis(400);

    /// What the server says to a request of this path until it hangs up.
    async fn told(at: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.ok();
        said
    }

    #[tokio::test]
    async fn a_client_that_speaks_http_2_is_refused_whose_streams_nobody_counts() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "hello"));
        let bounds = Bounds { connections: 4, lifetime: LIFETIME, request_bytes: 4_096 };
        let client = async {
            let mut stream = TcpStream::connect(at).await.unwrap();
            // The preface, and an empty frame of settings.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(preface).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.ok();
            (said, told(at, "/").await)
        };
        tokio::select! {
            (said, other) = client => {
                assert!(said.is_empty(), "it speaks HTTP/2: {said:?}");
                assert!(other.ends_with("hello"), "{other}");
            }
            ended = serve_within(listener, app, bounds) => panic!("{ended:?}"),
        }
    }

    #[tokio::test]
    async fn a_stream_outlives_others_and_a_late_answer_is_the_last_of_its_connection() {
        // Tells that a connection without leave was ended.
        let (ended, end) = tokio::sync::watch::channel(false);
        let stay = async move |ConnectInfo(peer): ConnectInfo<Peer>| {
            peer.may_stay(Duration::from_mins(1));
            end.clone().wait_for(|ended| *ended).await.ok();
            "stayed"
        };
        let go = std::future::pending::<&str>;
        let app = Router::new()
            .route("/now", get(async || "now"))
            .route("/stay", get(stay))
            .route("/go", get(go));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let bounds = Bounds { connections: 9, lifetime: LIFETIME, request_bytes: 9_999 };
        let forever = std::future::pending();
        let serve = serve_within_until(listener, app, bounds, forever, Duration::ZERO);
        let cut = async {
            let said = told(at, "/go").await;
            ended.send_replace(true);
            said
        };
        let ask = async { tokio::join!(told(at, "/now"), told(at, "/stay"), cut) };
        let (now, stay, go) = tokio::select! { _ = serve => panic!("it ended"), all = ask => all };
        assert!(now.ends_with("now") && !now.contains("connection: close"), "{now}");
        assert!(stay.ends_with("stayed") && stay.contains("connection: close"), "{stay}");
        assert_eq!(go, "", "its time was over");
    }
}
