//! Parses the addresses of NATS servers in `NATS_URL`. The client library chooses among them.

use async_nats::ServerAddr;

use super::{Error, redact_urls};

/// Whether this is a NATS address or a comma-separated list of them.
pub fn is_url(urls: &str) -> bool {
    parse_servers(urls).is_ok()
}

pub(super) fn parse_servers(urls: &str) -> Result<Vec<ServerAddr>, Error> {
    let parse = |url: &str| {
        let address = url.parse::<ServerAddr>().ok();
        address
            .filter(|address| !address.is_websocket() && !address.host().is_empty())
            .ok_or_else(|| Error::Url { url: redact_urls(url) })
    };
    urls.split(',').map(|url| parse(url.trim())).collect()
}

/// The first user and password in the list, or token (a user without password), percent-decoded.
pub(super) fn credentials_of(addresses: &[ServerAddr]) -> Option<(String, Option<String>)> {
    addresses.iter().find_map(|address| {
        let user = address.username()?;
        Some((percent_decode(user), address.password().map(percent_decode)))
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_from_the_url_and_decoded() {
        for (url, expected) in [
            ("nats://u:p%40ss@a", Some(("u", Some("p@ss")))),
            ("nats://a, nats://t0k%25n@b:1", Some(("t0k%n", None))),
            ("127.0.0.1:4222", None),
        ] {
            let found = credentials_of(&parse_servers(url).unwrap());
            let found = found.as_ref().map(|(user, password)| (user.as_str(), password.as_deref()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secret() {
        for url in ["", "http://u:pw@h", "ws://u:pw@h", "nats://a,,nats://b", "nats://u:pw@"] {
            let error = parse_servers(url).unwrap_err().to_string();
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
