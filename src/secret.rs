//! Values that must never be seen: keys, tokens, passphrases, and URLs that carry them.
//!
//! A [`Secret`] prints as `[secret]` everywhere, is wiped from memory when dropped, and can't be
//! serialised. What must hold: [`Secret::expose`] is called only where the value leaves for the
//! service it belongs to.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// A text that is wiped on drop and never printed.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for the service it belongs to.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A URL as it may be shown: user, password, query and a long last path segment (where RPC
/// providers put their keys) are masked.
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
