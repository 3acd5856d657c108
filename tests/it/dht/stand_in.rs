//! A node of a DHT that answers what a test says: real TCP, noise, yamux and negotiation, and recorded or made-up
//! bytes behind them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::dht::Bootnode;
use libp2p_core::upgrade::InboundConnectionUpgrade as _;
use libp2p_identity::Keypair;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

pub(crate) const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(crate) const KAD: &str = "/ipfs/kad/1.0.0";
pub(crate) const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";
pub(crate) const PING: &str = "DHTProtocol.rpc_ping";
pub(crate) const FIND: &str = "DHTProtocol.rpc_find";

/// What a stand-in answers to the calls of one protocol.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// This frame, its length before it.
    Frame(Vec<u8>),
    /// These bytes, and then nothing.
    Raw(Vec<u8>),
    /// This frame, a byte each so often.
    Drips(Vec<u8>, Duration),
    /// As a relay: that it leads on, and then all that is said at this address.
    LeadsTo(SocketAddr),
    /// Nothing at all.
    Nothing,
}

/// How a stand-in meets whoever connects.
#[derive(Clone, Debug)]
pub(crate) enum Meets {
    /// As a libp2p node that speaks these protocols.
    Node(BTreeMap<&'static str, Says>),
    /// With these bytes, over and over.
    Noise(Vec<u8>),
    /// Not at all: it accepts and says nothing.
    Silence,
}

/// See the module. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) bootnode: Bootnode,
    pub(crate) at: SocketAddr,
    _task: JoinSet<()>,
}

impl StandIn {
    pub(crate) async fn start(meets: Meets) -> Self {
        Self::with_key(meets, &Keypair::generate_ed25519(), None).await
    }

    /// One whose bootnode address names the id of another node.
    pub(crate) async fn impostor(meets: Meets) -> Self {
        let claimed = Keypair::generate_ed25519();
        Self::with_key(meets, &Keypair::generate_ed25519(), Some(&claimed)).await
    }

    async fn with_key(meets: Meets, key: &Keypair, claimed: Option<&Keypair>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let peer = claimed.unwrap_or(key).public().to_peer_id();
        let bootnode =
            format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", at.port()).parse().expect("an address");
        let (meets, key) = (Arc::new(meets), key.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (meets, key) = (Arc::clone(&meets), key.clone());
                guests.spawn(async move {
                    // The guest may go at any time.
                    let _ = meet(socket, &meets, &key).await;
                });
            }
        });
        Self { bootnode, at, _task: task }
    }
}

async fn meet(mut socket: TcpStream, meets: &Meets, key: &Keypair) -> std::io::Result<()> {
    let says = match meets {
        Meets::Node(says) => says,
        Meets::Noise(bytes) => loop {
            tokio::io::AsyncWriteExt::write_all(&mut socket, bytes).await?;
        },
        Meets::Silence => return std::future::pending().await,
    };
    let mut socket = socket.compat();
    agree(&mut socket, |name| name == "/noise").await?;
    let noise = libp2p_noise::Config::new(key).expect("a key");
    let upgraded = noise.upgrade_inbound(socket, "/noise").await;
    let (_, mut secured) = upgraded.map_err(std::io::Error::other)?;
    agree(&mut secured, |name| name == "/yamux/1.0.0").await?;
    let config = yamux::Config::default();
    let mut connection = yamux::Connection::new(secured, config, yamux::Mode::Server);
    let mut streams = JoinSet::new();
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        let says = says.clone();
        streams.spawn(async move {
            // The guest may go at any time.
            let _ = serve(stream, &says).await;
        });
    }
    Ok(())
}

async fn serve(
    mut stream: yamux::Stream,
    says: &BTreeMap<&'static str, Says>,
) -> std::io::Result<()> {
    let protocol = agree(&mut stream, |name| says.contains_key(name)).await?;
    if protocol != IDENTIFY {
        read_frame(&mut stream).await?;
    }
    match &says[protocol.as_str()] {
        Says::Frame(frame) => stream.write_all(&framed(frame)).await?,
        Says::Raw(bytes) => stream.write_all(bytes).await?,
        Says::Drips(frame, each) => {
            for byte in framed(frame) {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                SystemClock.sleep(*each).await;
            }
        }
        Says::LeadsTo(at) => {
            // A status, 100: it's fine.
            stream.write_all(&framed(&[1 << 3, 2, 5 << 3, 100])).await?;
            stream.flush().await?;
            let mut on = TcpStream::connect(at).await?;
            tokio::io::copy_bidirectional(&mut stream.compat(), &mut on).await?;
            return Ok(());
        }
        Says::Nothing => {}
    }
    stream.flush().await?;
    // Until the guest hangs up.
    std::future::pending().await
}

/// Agrees with the guest on the first protocol that it names and `is_spoken`.
async fn agree<S>(stream: &mut S, is_spoken: impl Fn(&str) -> bool) -> std::io::Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    read_frame(stream).await?;
    stream.write_all(&framed(b"/multistream/1.0.0\n")).await?;
    loop {
        let name = String::from_utf8(read_frame(stream).await?).map_err(std::io::Error::other)?;
        let is_spoken = is_spoken(name.trim_end());
        let answer = if is_spoken { framed(name.as_bytes()) } else { framed(b"na\n") };
        stream.write_all(&answer).await?;
        stream.flush().await?;
        if is_spoken {
            return Ok(name.trim_end().to_owned());
        }
    }
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut len = 0;
    for at in 0..4 {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        len |= usize::from(byte[0] & 127) << (7 * at);
        if byte[0] < 128 {
            break;
        }
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = varint(frame.len());
    bytes.extend_from_slice(frame);
    bytes
}

/// A number as protobuf writes it.
pub(crate) fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(u8::try_from(number & 127).expect("7 bits") | 128);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("7 bits"));
    bytes
}

/// A field of bytes in protobuf.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![(number << 3) | 2], varint(bytes.len()), bytes.to_vec()].concat()
}
