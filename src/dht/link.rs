//! A connection to one node: TCP, noise, yamux, and streams over it, each negotiated by hand, since Hivemind's
//! protocol ids have no slash at their front and rust-libp2p refuses such.
//!
//! Must hold: the node has proved that it has the id that was asked for; nothing that it sends is kept unless
//! somebody waits for it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p_core::PeerId;
use libp2p_core::upgrade::OutboundConnectionUpgrade as _;
use libp2p_identity::Keypair;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::fault::Fault;

/// The most streams at a time. Yamux closes a connection on which the node opens more.
const STREAMS_MAX: usize = 8;

/// What yamux holds of a connection's bytes at most: its least for so many streams.
const WINDOW_MAX: usize = STREAMS_MAX * 256 * 1024;

/// The longest name of a protocol.
const NAME_MAX: usize = 1024;

/// What is read of an answer before its rest must find room.
const FIRST_PART: usize = 64 * 1024;

const MULTISTREAM: &str = "/multistream/1.0.0";

type Secured = libp2p_noise::Output<Compat<TcpStream>>;

/// A connection to one node.
pub(super) struct Link {
    /// Never locked over a wait, and by one task alone.
    connection: Mutex<yamux::Connection<Secured>>,
    at: SocketAddr,
}

impl Link {
    /// Dials the node `peer` at `at`.
    pub(super) async fn dial(key: &Keypair, at: SocketAddr, peer: PeerId) -> Result<Self, Fault> {
        let socket = TcpStream::connect(at).await.map_err(|err| Fault::unreached(&err))?;
        // Without it each small message may wait; a socket that refuses this still works.
        let _ = socket.set_nodelay(true);
        let mut socket = socket.compat();
        negotiate(&mut socket, "/noise").await.map_err(|fault| match fault {
            Fault::Garbled(_) | Fault::TooLarge { .. } => Fault::NotLibp2p,
            other => other,
        })?;
        let noise = libp2p_noise::Config::new(key).map_err(|err| Fault::handshake(&err))?;
        let (proved, mut secured) =
            noise.upgrade_outbound(socket, "/noise").await.map_err(|err| Fault::handshake(&err))?;
        if proved != peer {
            return Err(Fault::Another(proved.to_base58()));
        }
        negotiate(&mut secured, "/yamux/1.0.0").await?;
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_max_connection_receive_window(Some(WINDOW_MAX));
        let connection = yamux::Connection::new(secured, config, yamux::Mode::Client);
        Ok(Self { connection: Mutex::new(connection), at })
    }

    /// Where the node is.
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
        let mut is_closed = false;
        poll_fn(|cx| {
            while !is_closed {
                let inbound = self.lock().poll_next_inbound(cx);
                match inbound {
                    // Nothing is served here. A stream that is dropped is reset.
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => is_closed = true,
                    Poll::Pending => break,
                }
            }
            match work.as_mut().poll(cx) {
                // The work may still read what came before the end.
                Poll::Pending if is_closed => Poll::Ready(Err(Fault::Closed)),
                done => done,
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, yamux::Connection<Secured>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Agrees on a protocol: both sides write the name of the negotiation and of the protocol.
async fn negotiate<S>(stream: &mut S, protocol: &'static str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = Vec::new();
    for name in [MULTISTREAM, protocol] {
        super::wire::put_uvarint(&mut hello, name.len() as u64 + 1);
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
    let mut name = read_frame(stream, NAME_MAX, None).await?;
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
    super::wire::put_uvarint(&mut frame, message.len() as u64);
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

/// Reads a message with its length before it, of at most `max` bytes. One of more than [`FIRST_PART`] waits until
/// `room`, in KiB, has place for it; it gives the place back before the message is used up, so the caller should
/// do that before it waits again.
pub(super) async fn read_frame<S>(
    stream: &mut S,
    max: usize,
    room: Option<&Semaphore>,
) -> Result<Vec<u8>, Fault>
where
    S: AsyncRead + Unpin,
{
    let bytes = read_len(stream).await?;
    let len = usize::try_from(bytes).ok().filter(|len| *len <= max);
    let len = len.ok_or(Fault::TooLarge { bytes, max })?;
    let mut message = vec![0; len.min(FIRST_PART)];
    stream.read_exact(&mut message).await?;
    if len > message.len() {
        let kib = u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX);
        let _place = match room {
            Some(room) => Some(room.acquire_many(kib).await.map_err(|_| Fault::Closed)?),
            None => None,
        };
        let begun = message.len();
        message.resize(len, 0);
        let rest = message.get_mut(begun..).unwrap_or_default();
        stream.read_exact(rest).await?;
    }
    Ok(message)
}

async fn read_len<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u64, Fault> {
    let mut len = 0;
    for at in 0..5 {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        len |= u64::from(byte[0] & 127) << (7 * at);
        if byte[0] < 128 {
            return Ok(len);
        }
    }
    Err(Fault::Garbled("its length has no end"))
}
