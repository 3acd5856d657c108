//! The HTTP proxies of the owner's network, for every module that makes HTTP calls.
//!
//! Must hold: a call to this machine never goes through a proxy, whatever the environment says; a proxy
//! is never shown with its password.

use std::net::IpAddr;
use std::sync::OnceLock;

use crate::secret::redact_url;

/// The proxies that the environment names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The URL of the proxy for `http://` calls.
    pub http: Option<String>,
    /// The URL of the proxy for `https://` calls.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains, addresses and networks that are called directly; `*` means all.
    pub without: Vec<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(redact_url);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("without", &self.without)
            .finish()
    }
}

/// The proxies of the process; none until [`set`] is called.
static PROXIES: OnceLock<Proxies> = OnceLock::new();

/// Sets the proxies of the process, once at the start; later calls change nothing.
pub fn set(proxies: Proxies) {
    PROXIES.set(proxies).ok();
}

/// The URL of the process's proxy for a call to this scheme and host.
pub fn of(scheme: &str, host: &str) -> Option<&'static str> {
    PROXIES.get()?.of(scheme, host)
}

/// The same proxy, redacted, as the end of a sentence about a failed call; empty if there is none.
pub fn in_words(scheme: &str, host: &str) -> String {
    let proxy = of(scheme, host).map(redact_url);
    proxy.map(|proxy| format!(" (through the proxy {proxy})")).unwrap_or_default()
}

impl Proxies {
    /// The URL of the proxy for a call to this scheme and host.
    pub fn of(&self, scheme: &str, host: &str) -> Option<&str> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let proxy = if scheme == "https" { &self.https } else { &self.http };
        if is_loopback(host) || self.without.iter().any(|pattern| is_meant(pattern, host)) {
            return None;
        }
        proxy.as_deref()
    }
}

/// Whether the host is this machine: `localhost` or a loopback address.
fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` covers this host: the host itself, its domain or its network.
fn is_meant(pattern: &str, host: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let (network, bits) = pattern.split_once('/').unwrap_or((pattern, "128"));
        let (network, bits) = (network.parse::<IpAddr>().ok(), bits.parse::<u32>().ok());
        return network.zip(bits).is_some_and(|(network, bits)| is_in(address, network, bits));
    }
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    let domain = pattern.trim_start_matches('*').trim_start_matches('.');
    let under =
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !domain.is_empty() && under
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let rest = width - bits.min(width);
    // A shift by all 128 bits gives `None`: a prefix of no bits covers every address.
    address.checked_shr(rest).unwrap_or(0) == network.checked_shr(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(without: &[&str]) -> Proxies {
        let without = without.iter().map(|&entry| entry.to_owned()).collect();
        let (http, https) = (Some("http://plain:1".into()), Some("http://u:hunter2@tls:2".into()));
        Proxies { http, https, without }
    }

    #[test]
    fn this_machine_is_called_directly_and_all_else_by_its_schemes_proxy() {
        let all = proxies(&[]);
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]", "::1"] {
            assert_eq!(all.of("http", host), None, "{host}");
        }
        assert_eq!(all.of("http", "10.0.0.1"), Some("http://plain:1"));
        assert_eq!(all.of("https", "api.pinata.cloud"), Some("http://u:hunter2@tls:2"));
        assert!(all.of("http", "localhost.example").is_some());
        assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
        assert_eq!(Proxies::default().of("https", "a.example"), None);
    }

    #[test]
    fn what_no_proxy_names_is_called_directly() {
        for (entry, host, is_direct) in [
            ("example.com", "example.com", true),
            ("example.com", "A.Example.com", true),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("example.com", "notexample.com", false),
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.70", false),
            ("0.0.0.0/0", "1.1.1.1", true),
            ("fd00::/8", "[fd12::1]", true),
            ("fd00::/8", "10.0.0.1", false),
            ("*", "anything.example", true),
            (".", "anything.example", false),
        ] {
            assert_eq!(proxies(&[entry]).of("http", host).is_none(), is_direct, "{entry} {host}");
        }
    }
}
