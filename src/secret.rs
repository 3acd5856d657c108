//! Values that must never be shown: keys, tokens, passphrases, and URLs that contain them.
//!
//! A [`Secret`] prints as `[secret]`, is wiped from memory when dropped, and can't be serialised. Must
//! hold: [`Secret::expose`] is called only where the value is handed to the service it belongs to, and no
//! copy that was made on the way into a [`Secret`] stays in memory.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::text::{UTF16, is_utf16, utf8};

/// A text that is wiped on drop and never printed.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text; a `String` is wiped after it was copied, what a `&str` points to is not.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        // Copied: turning the `String` itself into a box may move it and leave the old memory unwiped.
        Self(SecretString::from(text.as_str()))
    }

    /// The first line of `from`, without its line end and a byte order mark. Fails if it is longer than
    /// `bytes_max` or not UTF-8. Pass an unbuffered reader: a buffer's copy would stay in memory.
    pub fn read_line(mut from: impl Read, bytes_max: usize) -> io::Result<Self> {
        // Full size from the start: a growing buffer would leave unwiped copies behind.
        let mut bytes = Zeroizing::new(vec![0; bytes_max + 1]);
        let mut length = 0;
        while length < bytes.len() && !bytes[..length].contains(&b'\n') {
            match from.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        let refused = |what| Err(io::Error::new(ErrorKind::InvalidData, what));
        if is_utf16(&bytes[..length]) {
            return refused(UTF16);
        }
        let line = bytes[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
        // Includes the byte order mark: what lies beyond the buffer was never read.
        if line.len() > bytes_max {
            return refused("its first line is too long");
        }
        let line = match utf8(line) {
            Ok(line) => line,
            Err(what) => return refused(what),
        };
        Ok(Self::new(line.strip_suffix('\r').unwrap_or(line)))
    }

    /// The text itself, to be handed only to the service it belongs to.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A URL as it may be shown: without user, password, query and fragment, and with `***` for each path
/// segment of more than 20 bytes (RPC providers put their keys there).
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let mut shown = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    shown.push_str(host);
    for segment in path.into_iter().flat_map(|path| path.split('/')) {
        shown.push('/');
        shown.push_str(if segment.len() > 20 { "***" } else { segment });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
    }

    #[test]
    fn a_secrets_line_is_read_in_pieces_and_ends_where_it_ends() {
        let read = |bytes: &[u8], max| {
            // One byte at a time, as from a slow pipe.
            let pieces =
                bytes.chunks(1).fold(Box::new(io::empty()) as Box<dyn Read>, |so_far, piece| {
                    Box::new(so_far.chain(io::Cursor::new(piece.to_vec())))
                });
            Secret::read_line(pieces, max).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read(b"hunter2\r\nmore", 20).unwrap(), "hunter2");
        assert_eq!(read(b" p w ", 5).unwrap(), " p w ");
        assert_eq!(read(b"", 5).unwrap(), "");
        assert_eq!(read("\u{feff}hunter2\n".as_bytes(), 20).unwrap(), "hunter2");
        assert!(read(b"123456", 5).is_err());
        assert!(read(b"\xff", 5).is_err());
    }

    #[test]
    fn credentials_in_urls_are_masked() {
        for (url, shown) in [
            ("nats://user:pw@host:4222", "nats://host:4222"),
            ("https://rpc.example/v2/AbCdEf0123456789AbCdEf", "https://rpc.example/v2/***"),
            ("https://gw.example/ipfs?token=x", "https://gw.example/ipfs"),
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}
