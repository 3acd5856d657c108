//! Decides which redirects of a gateway are followed.
//!
//! Invariants: an answer from the public network never makes this host connect to a private
//! address, whatever a name resolves to; a request that began over TLS stays on TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::http::Url;
use crate::http::dns::{Addrs, Name, Resolve, Resolving};

/// Decides whether an address is publicly reachable.
pub(super) type Judge = fn(IpAddr) -> bool;

/// Checks a redirect; `Err` says why it is refused. `public_only` is set if the redirect came from
/// the public network: it may then lead to public addresses only.
pub(super) fn check(from: &Url, to: &Url, public_only: Option<Judge>) -> Result<(), &'static str> {
    match (from.scheme(), to.scheme()) {
        ("https", "http") => return Err("a redirect from https to http"),
        (_, "http" | "https") => {}
        _ => return Err("a redirect to nowhere"),
    }
    match (literal(to), public_only) {
        (Some(address), Some(is_public)) if !is_public(address) => {
            Err("a redirect to a private address")
        }
        _ => Ok(()),
    }
}

/// The address in a URL that has one in place of a host name.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names as this host does.
#[derive(Debug)]
pub(super) struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Resolves with `names` and keeps public addresses only.
pub(super) struct PublicOnly {
    pub(super) names: Arc<dyn Resolve>,
    pub(super) is_public: Judge,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, is_public) = (self.names.resolve(name), self.is_public);
        Box::pin(async move {
            let public: Vec<_> = found.await?.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("a redirect to a name with private addresses only".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is publicly reachable, according to the IANA special-purpose registries.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded =
        |high: u16, low: u16| is_public_v4((u32::from(high) << 16 | u32::from(low)).into());
    match address.segments() {
        // Embedded IPv4 addresses: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, .., high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8 | 0, ..] => false,
        // Only 2000::/3 is assigned for global unicast; all else is local, reserved or multicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_public_gateway_leads_to_public_addresses_and_never_out_of_tls() {
        let from = url("https://gateway.example/ipfs/x");
        for to in [
            "https://127.0.0.1/",
            "https://10.1.2.3/",
            "https://172.31.0.1:8443/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
        ] {
            assert_eq!(
                check(&from, &url(to), Some(is_public)),
                Err("a redirect to a private address"),
                "{to}"
            );
            assert_eq!(check(&from, &url(to), None), Ok(()), "{to}");
        }
        for to in ["https://1.1.1.1/", "https://[2606:4700::1111]/", "https://cid.gateway.example/"]
        {
            assert_eq!(check(&from, &url(to), Some(is_public)), Ok(()), "{to}");
        }
        let plain = url("http://cid.gateway.example/");
        assert_eq!(check(&from, &plain, None), Err("a redirect from https to http"));
        assert_eq!(check(&plain, &from, Some(is_public)), Ok(()));
        assert_eq!(check(&from, &url("file:///etc/passwd"), None), Err("a redirect to nowhere"));
    }
}
