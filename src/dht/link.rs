//! A connection to one node: TCP, noise, yamux, and streams over it, each negotiated by hand, since Hivemind's
//! protocol ids have no slash at their front and rust-libp2p refuses such. A node that can't be dialled is reached
//! over a stream of its relay, with noise and yamux of its own, so that the relay reads and changes nothing.
//!
//! Must hold: the node has proved that it has the id that was asked for; nothing that it sends is kept unless
//! somebody waits for it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p_core::PeerId;
use libp2p_core::upgrade::OutboundConnectionUpgrade as _;
use libp2p_identity::Keypair;
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::address::Place;
use super::fault::Fault;
use super::wire;

/// The most streams at a time. Yamux closes a connection on which the node opens more.
const STREAMS_MAX: usize = 8;

/// What yamux holds of a connection's bytes at most: its least for so many streams.
const WINDOW_MAX: usize = STREAMS_MAX * 256 * 1024;

/// The longest name of a protocol.
const NAME_MAX: usize = 1024;

const MULTISTREAM: &str = "/multistream/1.0.0";

/// By which a relay leads on to a node.
const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// The numbers of a relay's messages: what is asked for, and the answer.
const CONNECT: u64 = 1;
const OK: u64 = 100;

/// What bytes to a node go over: a socket, or a stream of its relay.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

type Connection = yamux::Connection<libp2p_noise::Output<Box<dyn Carrier>>>;

/// A connection to one node.
pub(super) struct Link {
    /// Never locked over a wait, and by one task alone.
    connection: Mutex<Connection>,
    /// The connection to the relay that this one goes over.
    relay: Option<Box<Link>>,
    at: SocketAddr,
}

impl Link {
    /// Dials the node `peer` at this place.
    pub(super) async fn dial(key: &Keypair, place: Place, peer: PeerId) -> Result<Self, Fault> {
        let Some(relay) = place.relay else { return Self::dial_tcp(key, place.at, peer).await };
        let relay = Self::dial_tcp(key, place.at, relay).await?;
        let led_on = async { secure(key, Box::new(relay.lead_on(peer).await?), peer).await };
        let connection = Mutex::new(relay.drive(led_on).await?);
        Ok(Self { connection, relay: Some(Box::new(relay)), at: place.at })
    }

    async fn dial_tcp(key: &Keypair, at: SocketAddr, peer: PeerId) -> Result<Self, Fault> {
        let socket = TcpStream::connect(at).await.map_err(|err| Fault::unreached(&err))?;
        // Without it each small message may wait; a socket that refuses this still works.
        let _ = socket.set_nodelay(true);
        let connection = secure(key, Box::new(socket.compat()), peer).await?;
        Ok(Self { connection: Mutex::new(connection), relay: None, at })
    }

    /// A stream to `peer` through this node, its relay.
    async fn lead_on(&self, peer: PeerId) -> Result<yamux::Stream, Fault> {
        let (mut request, mut to) = (Vec::new(), Vec::new());
        wire::put_bytes(&mut to, 1, &peer.to_bytes());
        wire::put_int(&mut request, 1, CONNECT);
        wire::put_bytes(&mut request, 2, &to);
        let mut stream = self.open(HOP).await?;
        write_frame(&mut stream, &request).await?;
        let answer = read_frame(&mut stream, NAME_MAX).await?;
        for field in wire::Fields::of(&answer) {
            match field? {
                (5, wire::Value::Int(OK)) => return Ok(stream),
                (5, wire::Value::Int(status)) => return Err(Fault::Relay(status)),
                _ => {}
            }
        }
        Err(Fault::Garbled("it is no answer of a relay"))
    }

    /// Where the node or its relay is.
    pub(super) const fn at(&self) -> SocketAddr {
        self.at
    }

    /// Opens a stream for this protocol.
    pub(super) async fn open(&self, protocol: &'static str) -> Result<yamux::Stream, Fault> {
        let opened = poll_fn(|cx| self.lock().poll_new_outbound(cx)).await;
        let mut stream = opened.map_err(|_| Fault::Closed)?;
        negotiate(&mut stream, protocol).await?;
        Ok(stream)
    }

    /// Does `work`, which uses the streams of this connection, while the connection's bytes move.
    pub(super) async fn drive<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let is_closed = self.poll(cx);
            match work.as_mut().poll(cx) {
                // The work may still read what came before the end.
                Poll::Pending if is_closed => Poll::Ready(Err(Fault::Closed)),
                done => done,
            }
        })
        .await
    }

    /// Moves the bytes of this connection and of the one that it goes over; whether one of them is closed.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        if self.relay.as_ref().is_some_and(|relay| relay.poll(cx)) {
            return true;
        }
        loop {
            let inbound = self.lock().poll_next_inbound(cx);
            match inbound {
                // Nothing is served here. A stream that is dropped is reset.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the node prove that it is `peer`, over noise, and opens yamux.
async fn secure(
    key: &Keypair,
    mut carrier: Box<dyn Carrier>,
    peer: PeerId,
) -> Result<Connection, Fault> {
    negotiate(&mut carrier, "/noise").await.map_err(|fault| match fault {
        Fault::Garbled(_) | Fault::TooLarge { .. } => Fault::NotLibp2p,
        other => other,
    })?;
    let noise = libp2p_noise::Config::new(key).map_err(|err| Fault::handshake(&err))?;
    let upgraded = noise.upgrade_outbound(carrier, "/noise").await;
    let (proved, mut secured) = upgraded.map_err(|err| Fault::handshake(&err))?;
    if proved != peer {
        return Err(Fault::Another(proved.to_base58()));
    }
    negotiate(&mut secured, "/yamux/1.0.0").await?;
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config.set_max_connection_receive_window(Some(WINDOW_MAX));
    Ok(yamux::Connection::new(secured, config, yamux::Mode::Client))
}

/// Agrees on a protocol: both sides write the name of the negotiation and of the protocol.
async fn negotiate<S>(stream: &mut S, protocol: &'static str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = Vec::new();
    for name in [MULTISTREAM, protocol] {
        wire::put_uvarint(&mut hello, name.len() as u64 + 1);
        hello.extend_from_slice(name.as_bytes());
        hello.push(b'\n');
    }
    stream.write_all(&hello).await?;
    stream.flush().await?;
    if name(stream).await? != MULTISTREAM.as_bytes() {
        return Err(Fault::NotLibp2p);
    }
    let agreed = name(stream).await?;
    (agreed == protocol.as_bytes()).then_some(()).ok_or(Fault::NotSpoken(protocol))
}

async fn name<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Fault> {
    let mut name = read_frame(stream, NAME_MAX).await?;
    if name.pop() != Some(b'\n') {
        return Err(Fault::Garbled("it negotiates no protocol"));
    }
    Ok(name)
}

/// Writes a message with its length before it.
pub(super) async fn write_frame<S>(stream: &mut S, message: &[u8]) -> Result<(), Fault>
where
    S: AsyncWrite + Unpin,
{
    let mut frame = Vec::with_capacity(message.len() + 5);
    wire::put_uvarint(&mut frame, message.len() as u64);
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

/// Reads a message with its length before it, of at most `max` bytes.
pub(super) async fn read_frame<S>(stream: &mut S, max: usize) -> Result<Vec<u8>, Fault>
where
    S: AsyncRead + Unpin,
{
    let mut message = vec![0; read_len(stream, max).await?];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Reads the length before a message, which is at most `max`.
pub(super) async fn read_len<S>(stream: &mut S, max: usize) -> Result<usize, Fault>
where
    S: AsyncRead + Unpin,
{
    let mut len = 0;
    for at in 0..5 {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        len |= u64::from(byte[0] & 127) << (7 * at);
        if byte[0] < 128 {
            let fits = usize::try_from(len).ok().filter(|fits| *fits <= max);
            return fits.ok_or(Fault::TooLarge { bytes: len, max });
        }
    }
    Err(Fault::Garbled("its length has no end"))
}
