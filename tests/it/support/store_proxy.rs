//! An HTTP proxy before the store that misbehaves on command: one weather for what is fetched, one
//! for what is pinned, one for what is unpinned. It runs on threads of its own, so that a test can be blocking or not.
//!
//! One request a connection: what the weather is when a request's head is in is what it gets.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request's head is never longer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It is forwarded, and the answer brought back.
    Clear,
    /// This status, perhaps with `Retry-After` in seconds. Nothing is forwarded.
    Status(u16, Option<u32>),
    /// This status with these words.
    Says(u16, &'static str),
    /// The same for bodies of more than so many bytes; smaller ones are forwarded.
    SaysAbove(usize, u16, &'static str),
    /// 503 for bodies of more than so many bytes.
    FailsAbove(usize),
    /// The answer's body comes in this many pieces with a tenth of a second between them.
    Dribbles(usize),
    /// The connection is cut in the middle of the answer's body.
    Truncates,
    /// The answer has its right length, and a byte in its middle is another.
    Lies,
}

/// The proxy; it takes no more connections when it is dropped.
#[derive(Debug)]
pub(crate) struct StoreProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fetches: Weather,
    pins: Weather,
    unpins: Weather,
    /// Requests so far: fetches, pins, what was unpinned.
    counts: [usize; 3],
    is_over: bool,
}

impl StoreProxy {
    /// Stands before the store at this URL, on a free port; the weather is clear.
    pub(crate) fn start(store: &str) -> Self {
        let upstream = store.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (fetches, pins, unpins) = (Weather::Clear, Weather::Clear, Weather::Clear);
        let state = State { fetches, pins, unpins, counts: [0; 3], is_over: false };
        let shared = Arc::new(Shared { upstream, state: state.into() });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accepting.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where to send requests.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The weather from now on for what is fetched.
    pub(crate) fn set_fetches(&self, weather: Weather) {
        self.shared.lock().fetches = weather;
    }

    /// The weather from now on for what is pinned.
    pub(crate) fn set_pins(&self, weather: Weather) {
        self.shared.lock().pins = weather;
    }

    /// The weather from now on for what is unpinned.
    pub(crate) fn set_unpins(&self, weather: Weather) {
        self.shared.lock().unpins = weather;
    }

    /// How often something was to be fetched so far.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.lock().counts[0]
    }

    /// How often something was to be pinned so far.
    pub(crate) fn pins(&self) -> usize {
        self.shared.lock().counts[1]
    }

    /// How often something was to be unpinned so far.
    pub(crate) fn unpins(&self) -> usize {
        self.shared.lock().counts[2]
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        // The acceptor looks once more.
        TcpStream::connect(self.address).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.lock().is_over {
                return;
            }
            let shared = Arc::clone(&self);
            if let Ok(client) = client {
                std::thread::spawn(move || shared.serve(client));
            }
        }
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let (head, begun) = read_head(&mut client)?;
        let weather = {
            let mut state = self.lock();
            let (kind, weather) = match head.split(' ').next() {
                Some("POST") => (1, state.pins),
                Some("DELETE") => (2, state.unpins),
                _ => (0, state.fetches),
            };
            state.counts[kind] += 1;
            weather
        };
        if let Weather::Status(status, rest) = weather {
            let rest = rest.map(|rest| format!("retry-after: {rest}\r\n")).unwrap_or_default();
            let said = format!(
                "HTTP/1.1 {status} Weather\r\n{rest}connection: close\r\n\
                 content-length: 7\r\n\r\nnot now"
            );
            client.write_all(said.as_bytes())?;
            return finish(client);
        }
        if let Some((status, words)) = refusal(weather, &head) {
            let said = format!(
                "HTTP/1.1 {status} Weather\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{words}",
                words.len()
            );
            client.write_all(said.as_bytes())?;
            return finish(client);
        }
        let mut server = TcpStream::connect(&self.upstream)?;
        server.write_all(with_close(&head).as_bytes())?;
        server.write_all(&begun)?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
        let (head, mut body) = read_head(&mut server)?;
        server.read_to_end(&mut body)?;
        client.write_all(with_close(&head).as_bytes())?;
        let middle = body.len() / 2;
        match weather {
            Weather::Truncates => {
                client.write_all(&body[..middle])?;
                return client.shutdown(Shutdown::Both);
            }
            Weather::Dribbles(pieces) => {
                for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
                    client.write_all(piece)?;
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            }
            Weather::Lies => {
                body[middle] ^= 1;
                client.write_all(&body)?;
            }
            _ => client.write_all(&body)?,
        }
        finish(client)
    }
}

/// What is said instead of passing a request on.
fn refusal(weather: Weather, head: &str) -> Option<(u16, &'static str)> {
    match weather {
        Weather::Says(status, words) => Some((status, words)),
        Weather::SaysAbove(most, status, words) if length(head) > most => Some((status, words)),
        Weather::FailsAbove(most) if length(head) > most => Some((503, "later")),
        _ => None,
    }
}

/// The length of the body that follows this head, as it says.
fn length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let said = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    said.and_then(|said| said.trim().parse().ok()).unwrap_or(0)
}

/// A message's head with the empty line, and what has come of its body.
fn read_head(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while bytes.len() < HEAD_BYTES_MAX {
        let count = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        if count == 0 {
            break;
        }
    }
    Err(std::io::ErrorKind::InvalidData.into())
}

/// The head of a message after which its sender closes.
fn with_close(head: &str) -> String {
    let lines = head.trim_end().lines();
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut lines: Vec<&str> = kept.collect();
    lines.push("connection: close\r\n\r\n");
    lines.join("\r\n")
}

/// Closing before the client has read all would cut the answer, and what it still sends would reset
/// the connection.
fn finish(mut client: TcpStream) -> std::io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    std::io::copy(&mut client, &mut std::io::sink()).map(drop)
}
