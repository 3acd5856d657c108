//! Decides which redirects of a gateway are followed.
//!
//! Invariants: an answer from the public network never makes this host connect to a private
//! address, whatever a name resolves to; a request that began over TLS stays on TLS.

use std::net::IpAddr;
use std::sync::Arc;

use crate::http::Url;
use crate::http::dns::{Addrs, Name, Resolve, Resolving};
use crate::node::public;

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

/// Whether an address is publicly reachable. One with an IPv4 address in it (mapped, NAT64) is judged by that:
/// this host may have no other way to the internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return public::is_public(address) };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let bits = u32::from(high) << 16 | u32::from(low);
            public::is_public(IpAddr::V4(bits.into()))
        }
        _ => public::is_public(address),
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
            "https://[2001:db8::1]/",
            "https://192.0.2.1/",
            "https://168.63.129.16/",
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
        for to in [
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
            "https://[64:ff9b::1.1.1.1]/",
            "https://cid.gateway.example/",
        ] {
            assert_eq!(check(&from, &url(to), Some(is_public)), Ok(()), "{to}");
        }
        let plain = url("http://cid.gateway.example/");
        assert_eq!(check(&from, &plain, None), Err("a redirect from https to http"));
        assert_eq!(check(&plain, &from, Some(is_public)), Ok(()));
        assert_eq!(check(&from, &url("file:///etc/passwd"), None), Err("a redirect to nowhere"));
    }
}
