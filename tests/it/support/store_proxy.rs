//! An HTTP proxy in front of the store that misbehaves on command, with separate weathers for fetching,
//! pinning and unpinning. It runs on its own threads, so that a test may block.
//!
//! Each connection carries one request, which gets the weather of the moment in which its head is read.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::acceptor::Acceptor;

/// The longest head that is accepted.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It is forwarded, and the answer brought back.
    Clear,
    /// This status, perhaps with `Retry-After` in seconds. Nothing is forwarded.
    Status(u16, Option<u32>),
    /// This status with these words as the body. Nothing is forwarded.
    Says(u16, &'static str),
    /// As `Says`, for bodies of more than so many bytes; smaller ones are forwarded.
    SaysAbove(usize, u16, &'static str),
    /// 503 for bodies of more than so many bytes; smaller ones are forwarded.
    FailsAbove(usize),
    /// The answer's body comes in this many pieces, a tenth of a second apart.
    Dribbles(usize),
    /// The connection is cut in the middle of the answer's body.
    Truncates,
    /// The answer has the right length and one wrong byte in its middle.
    Lies,
}

/// The proxy; once dropped, it accepts no more connections.
#[derive(Debug)]
pub(crate) struct StoreProxy {
    acceptor: Acceptor,
    shared: Arc<Shared>,
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
    /// The numbers of requests so far: fetches, pins, unpins.
    counts: [usize; 3],
}

impl StoreProxy {
    /// Listens on a free port for the store at this URL; the weather is clear.
    pub(crate) fn start(store: &str) -> Self {
        let upstream = store.trim_start_matches("http://").to_owned();
        let (fetches, pins, unpins) = (Weather::Clear, Weather::Clear, Weather::Clear);
        let state = State { fetches, pins, unpins, counts: [0; 3] };
        let shared = Arc::new(Shared { upstream, state: state.into() });
        let accepting = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |client| {
            let shared = Arc::clone(&accepting);
            std::thread::spawn(move || shared.serve(client));
        });
        Self { acceptor, shared }
    }

    /// Where to send requests.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.acceptor.address())
    }

    /// Sets the weather for fetches.
    pub(crate) fn set_fetches(&self, weather: Weather) {
        self.shared.lock().fetches = weather;
    }

    /// Sets the weather for pins.
    pub(crate) fn set_pins(&self, weather: Weather) {
        self.shared.lock().pins = weather;
    }

    /// Sets the weather for unpins.
    pub(crate) fn set_unpins(&self, weather: Weather) {
        self.shared.lock().unpins = weather;
    }

    /// The number of requests to fetch so far.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.lock().counts[0]
    }

    /// The number of requests to pin so far.
    pub(crate) fn pins(&self) -> usize {
        self.shared.lock().counts[1]
    }

    /// The number of requests to unpin so far.
    pub(crate) fn unpins(&self) -> usize {
        self.shared.lock().counts[2]
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The status and the words with which a request is refused, if it is.
fn refusal(weather: Weather, head: &str) -> Option<(u16, &'static str)> {
    match weather {
        Weather::Says(status, words) => Some((status, words)),
        Weather::SaysAbove(most, status, words) if length(head) > most => Some((status, words)),
        Weather::FailsAbove(most) if length(head) > most => Some((503, "later")),
        _ => None,
    }
}

/// The `content-length` of this head, or 0.
fn length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let said = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    said.and_then(|said| said.trim().parse().ok()).unwrap_or(0)
}

/// A message's head with its empty line, and the part of the body that came with it.
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

/// The head with `connection: close` in place of its own `connection` line.
fn with_close(head: &str) -> String {
    let lines = head.trim_end().lines();
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut lines: Vec<&str> = kept.collect();
    lines.push("connection: close\r\n\r\n");
    lines.join("\r\n")
}

/// Ends the answer and reads the rest of the request: closing early could cut off the answer, and unread
/// bytes would reset the connection.
fn finish(mut client: TcpStream) -> std::io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    std::io::copy(&mut client, &mut std::io::sink()).map(drop)
}
