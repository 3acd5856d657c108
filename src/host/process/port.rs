//! Whether ports are open: on this machine by the kernel's table, elsewhere by a connection that is closed at once.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::report::one_line;
use crate::usage::Unknown;
use crate::watch::checks::Fact;

/// Most bytes of the kernel's table. Those that listen come first in it.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// The state of a socket that listens, as the table writes it.
const LISTENS: &str = "0A";

/// Longest words of a failure, in characters.
const WORDS_MAX: usize = 100;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// What became of a try to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Somebody listens; the connection took this long.
    Open(Duration),
    /// Nobody listens there.
    Refused,
    /// Nothing came back in time.
    NoAnswer,
    /// The host's name has no address, or nobody says which; holds the system's words.
    NoName(String),
    /// Something else; holds the system's words.
    Failed(String),
}

/// Whether something on this machine listens on a port where 127.0.0.1 or `::1` reaches it; in the network of the
/// process `of`, or in ours.
pub fn is_listening(port: u16, of: Option<u32>) -> Fact<bool> {
    let who = of.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let mut is_known = Err(Unknown::NotSupported);
    for table in ["tcp", "tcp6"] {
        match File::open(format!("/proc/{who}/net/{table}")) {
            Ok(file) => {
                is_known = Ok(());
                if lists(BufReader::new(file.take(TABLE_BYTES_MAX)), port)? {
                    return Ok(true);
                }
            }
            // Without IPv6 there is no such table.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(super::one::why(&err)),
        }
    }
    is_known.map(|()| false)
}

/// Whether a table lists a socket that listens on this port.
fn lists(mut table: impl io::BufRead, port: u16) -> Fact<bool> {
    let (mut line, mut read) = (String::new(), 0);
    loop {
        line.clear();
        let bytes = table.read_line(&mut line).map_err(|err| super::one::why(&err))?;
        if bytes == 0 {
            // A table that was cut off may have had it.
            return if read < TABLE_BYTES_MAX { Ok(false) } else { Err(Unknown::NotSupported) };
        }
        read += bytes as u64;
        let mut fields = line.split_ascii_whitespace();
        let (Some(local), Some(state)) = (fields.nth(1), fields.nth(1)) else { continue };
        let Some((address, of)) = local.split_once(':') else { continue };
        if state == LISTENS && u16::from_str_radix(of, 16) == Ok(port) && is_here(address) {
            return Ok(true);
        }
    }
}

/// Whether what listens at this address, in the table's form, is reached by way of this machine itself.
fn is_here(address: &str) -> bool {
    let is_any = address.bytes().all(|byte| byte == b'0');
    // The lowest byte comes first; on a machine that begins with the highest, it comes last.
    let is_v4 = address.len() == 8 && (address.ends_with("7F") || address.starts_with("7F"));
    let is_v6 = address.len() == 32
        && (address == "00000000000000000000000001000000"
            || address == "00000000000000000000000000000001");
    // 127.0.0.1 as IPv6 writes it.
    let is_mapped =
        address.strip_prefix("0000000000000000FFFF0000").is_some_and(|v4| v4.ends_with("7F"));
    is_any || is_v4 || is_v6 || is_mapped
}

/// Connects to `host:port` and hangs up, within a span.
pub async fn reach(address: &str, within: Duration) -> Reached {
    let begun = Instant::now();
    let addresses: Vec<SocketAddr> = match timeout(within, lookup_host(address)).await {
        Err(_) => return Reached::NoName("its name is not looked up in time".to_owned()),
        Ok(Err(err)) => return Reached::NoName(one_line(&err.to_string(), WORDS_MAX)),
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
    };
    let left = within.saturating_sub(begun.elapsed());
    match timeout(left, TcpStream::connect(addresses.as_slice())).await {
        Err(_) => Reached::NoAnswer,
        Ok(Ok(_)) => Reached::Open(begun.elapsed()),
        Ok(Err(err)) => match err.kind() {
            io::ErrorKind::ConnectionRefused => Reached::Refused,
            io::ErrorKind::TimedOut => Reached::NoAnswer,
            _ => Reached::Failed(one_line(&err.to_string(), WORDS_MAX)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_open_while_somebody_listens_there() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "{address}: only IPv6 may be missing");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(is_listening(port, None), Ok(true), "{address}");
            assert_eq!(is_listening(port, Some(std::process::id())), Ok(true));
            drop(listener);
            assert_eq!(is_listening(port, None), Ok(false), "{address}");
        }
        assert_eq!(is_listening(1, Some(u32::MAX)), Err(Unknown::NotSupported));
    }

    #[test]
    fn a_connection_to_elsewhere_and_an_address_that_nobody_here_reaches_do_not_count() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let row =
            |local: &str, state: &str| format!("{head}   0: {local} 00000000:0000 {state} 0:0\n");
        let is_open = |text: String| lists(text.as_bytes(), 3000).unwrap();
        assert!(is_open(row("0100007F:0BB8", "0A")) && is_open(row("00000000:0BB8", "0A")));
        assert!(is_open(row("0000000000000000FFFF00000100007F:0BB8", "0A")));
        assert!(!is_open(row("0100007F:0BB8", "01")), "a connection");
        assert!(!is_open(row("0500000A:0BB8", "0A")), "10.0.0.5 alone");
        assert!(!is_open(row("0100007F:0BB9", "0A")) && !is_open("rubbish\n\n:\n".to_owned()));
    }

    #[tokio::test]
    async fn who_listens_is_reached_and_who_does_not_is_told_apart_from_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let within = Duration::from_secs(5);
        assert!(matches!(reach(&address, within).await, Reached::Open(took) if took < within));
        drop(listener);
        assert_eq!(reach(&address, within).await, Reached::Refused);
        for address in ["no port", "nowhere.invalid:80"] {
            assert!(matches!(reach(address, within).await, Reached::NoName(_)), "{address}");
        }
        // A full line of connections that nobody takes: the next one waits.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let address = full.local_addr().unwrap().to_string();
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            timeout(Duration::from_millis(200), TcpStream::connect(&address)).await
        {
            held.push(stream);
            assert!(held.len() < 64, "the line never fills");
        }
        assert_eq!(reach(&address, Duration::from_millis(100)).await, Reached::NoAnswer);
    }
}
