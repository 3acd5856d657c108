//! Values that must never be shown: keys, tokens, passphrases, and URLs that contain them.
//!
//! A [`Secret`] prints as `[secret]`, is wiped from memory when dropped, and can't be serialised. Must
//! hold: [`Secret::expose`] is called only where the value is handed to the service it belongs to, and no
//! copy that was made on the way into a [`Secret`] stays in memory.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Read};
use std::net::Ipv6Addr;
use std::sync::LazyLock;

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

/// A URL as it may be shown: scheme, host and port. Whatever else it has may be a key: user, password,
/// query and fragment are left out, and a path is `/…` with a tag of four hexadecimal digits, which tells
/// two paths of one host apart for as long as this process lives. What is no host with a port is `***`, and so is
/// a URL with an `@` after its host: there the host may be a user, and the rest a password.
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = after.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_shown =
        is_host(host, !scheme.is_empty()) && scheme.bytes().all(is_plain) && !after.contains('@');
    let mut shown = match (is_shown, scheme) {
        (false, _) => return "***".to_owned(),
        (true, "") => host.to_owned(),
        (true, scheme) => format!("{scheme}://{host}"),
    };
    if !path.is_empty() {
        let tag = format!("/…{:04x}", TAGS.hash_one(path) & 0xffff);
        shown.push_str(&tag);
    }
    shown
}

/// The key of the tags, of this process alone: a tag helps nobody to guess its path.
static TAGS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Whether this is a host, perhaps with a port. Without a scheme it may also be a key that was put into
/// the wrong setting, so only what has a dot or a port counts.
fn is_host(text: &str, has_scheme: bool) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.split('.').all(|label| label.len() <= LABEL_MAX && label.bytes().all(is_plain))
        }
    };
    let is_meant = has_scheme || name.contains('.') || port.is_some() || name == "localhost";
    is_name && is_meant && port.is_none_or(is_port)
}

/// Longest part of a host's name between two dots.
const LABEL_MAX: usize = 63;

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+')
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
    fn nothing_of_a_url_but_its_host_is_shown() {
        for (url, shown) in [
            ("nats://user:pw@host:4222", "nats://host:4222"),
            ("https://gw.example/?token=x", "https://gw.example"),
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            ("http://[::1]:8545/", "http://[::1]:8545"),
            ("nats.example:4222", "nats.example:4222"),
            ("localhost", "localhost"),
            // A password with characters that end the host, and a key where a URL belongs.
            ("http://user:pa/ss@host", "***"),
            ("http://user:pa#ss@host", "***"),
            ("http://user:p?ss@host", "***"),
            ("http://user:12/34@h", "***"),
            ("http://user:12?34@h", "***"),
            ("http://user:12#34@h", "***"),
            ("user:12/34@h", "***"),
            ("shortSecretKey123", "***"),
            ("shortSecretKey123/x", "***"),
            ("", "***"),
        ] {
            assert_eq!(redact_url(url), shown, "{url}");
        }
        for url in [
            "http://10.1.2.3:1/v2/shortSecretKey123",
            "http://10.1.2.3:1/v2/shortSecretKey123?k=v#f",
            "http://u:p@10.1.2.3:1/v2/shortSecretKey123",
        ] {
            let shown = redact_url(url);
            let tag = shown.strip_prefix("http://10.1.2.3:1/…").unwrap();
            assert!(tag.len() == 4 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()), "{shown}");
            assert_eq!(shown, redact_url("http://10.1.2.3:1/v2/shortSecretKey123"));
        }
        let tags: std::collections::BTreeSet<_> =
            (0..20).map(|key| redact_url(&format!("http://10.1.2.3:1/{key}"))).collect();
        assert!(tags.len() > 15, "two paths of one host are told apart: {tags:?}");
    }
}
