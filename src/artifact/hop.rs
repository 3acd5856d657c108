//! Where a gateway may send us on.
//!
//! What must hold: who answers from the public network makes this host call nobody in a private
//! one, whatever a name leads to when it is looked up; what came over TLS goes on over TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How long the gateway's own name may take to be looked up.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Why this hop is not made; `Ok` where it may be. `to_public_only`: whether the gateway is a public
/// one, whose word leads to public addresses alone.
pub(super) fn check(from: &Url, to: &Url, to_public_only: bool) -> Result<(), &'static str> {
    match (from.scheme(), to.scheme()) {
        ("https", "http") => return Err("a redirect from https to http"),
        (_, "http" | "https") => {}
        _ => return Err("a redirect to nowhere"),
    }
    match literal(to) {
        Some(address) if to_public_only && !is_public(address) => {
            Err("a redirect to a private address")
        }
        _ => Ok(()),
    }
}

/// Whether a gateway is one of this host's or of its network: all its addresses are private.
pub(super) async fn is_at_home(gateway: &Url) -> bool {
    if let Some(address) = literal(gateway) {
        return !is_public(address);
    }
    let (Some(host), Some(port)) = (gateway.host_str(), gateway.port_or_known_default()) else {
        return false;
    };
    let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((host, port))).await;
    let Ok(Ok(found)) = found else { return false };
    let found: Vec<SocketAddr> = found.collect();
    !found.is_empty() && found.iter().all(|address| !is_public(address.ip()))
}

/// The address that stands in a URL in the place of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Looks names up, and knows public addresses only.
#[derive(Debug)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("a redirect to a name with private addresses only".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is everybody's to reach, as far as its registry says.
fn is_public(address: IpAddr) -> bool {
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
        // IPv4 in another dress: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, .., high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8 | 0, ..] => false,
        // The one block that is given out: all else is local, reserved, or for many.
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
                check(&from, &url(to), true),
                Err("a redirect to a private address"),
                "{to}"
            );
            assert_eq!(check(&from, &url(to), false), Ok(()), "{to}");
        }
        for to in ["https://1.1.1.1/", "https://[2606:4700::1111]/", "https://cid.gateway.example/"]
        {
            assert_eq!(check(&from, &url(to), true), Ok(()), "{to}");
        }
        let plain = url("http://cid.gateway.example/");
        assert_eq!(check(&from, &plain, false), Err("a redirect from https to http"));
        assert_eq!(check(&plain, &from, true), Ok(()));
        assert_eq!(check(&from, &url("file:///etc/passwd"), false), Err("a redirect to nowhere"));
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_found_out_when_it_is_looked_up() {
        assert!(is_at_home(&url("http://localhost:8080")).await);
        assert!(is_at_home(&url("http://127.0.0.1:8080")).await);
        assert!(!is_at_home(&url("http://1.1.1.1")).await);
        let looked_up = PublicOnly.resolve("localhost".parse().unwrap()).await;
        assert!(looked_up.is_err(), "a name of a private address was given");
    }
}
