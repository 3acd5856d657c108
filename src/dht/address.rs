//! Where nodes are: the bootnodes that an owner or a chain names, and the addresses that nodes tell of others.
//!
//! Must hold: only TCP at an IP address or a host's name is dialled, straight or to a relay. An address that a stranger at a public address
//! tells is dialled only if it's public too, so that a swarm can't make us knock at doors behind our own firewall.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use libp2p_core::PeerId;
use libp2p_core::multiaddr::{Multiaddr, Protocol};

use super::fault::Fault;

/// The longest address that is read, in bytes of text.
const TEXT_MAX: usize = 512;

/// A node by which one enters a DHT: its address and its id, which it has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bootnode {
    text: String,
    pub(super) peer: PeerId,
    pub(super) way: Way,
}

impl Bootnode {
    /// The node's peer id.
    pub fn peer(&self) -> String {
        self.peer.to_base58()
    }
}

impl fmt::Display for Bootnode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is no address of a bootnode, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the address of a bootnode, such as /ip4/192.0.2.1/tcp/30011/p2p/12D3Koo…: {0}")]
pub struct InvalidBootnode(&'static str);

impl FromStr for Bootnode {
    type Err = InvalidBootnode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(InvalidBootnode("it is longer than 512 bytes"));
        }
        let address: Multiaddr =
            text.parse().map_err(|_| InvalidBootnode("it is not a libp2p multiaddress"))?;
        let Read { way, relay, peer } = read(&address).map_err(InvalidBootnode)?;
        if relay.is_some() {
            return Err(InvalidBootnode("it leads through a relay"));
        }
        let peer = peer.ok_or(InvalidBootnode("it doesn't end with the node's id, /p2p/…"))?;
        Ok(Self { text: text.to_owned(), peer, way })
    }
}

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Tcp(Host, u16),
    /// By QUIC alone, which isn't dialled.
    Quic,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String, Family),
}

/// Which addresses of a name are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Way {
    /// The addresses to dial, at most `max`.
    pub(super) async fn resolve(&self, max: usize) -> Result<Vec<SocketAddr>, Fault> {
        let (name, family, port) = match self {
            Self::Quic => return Err(Fault::NoTcp),
            Self::Tcp(Host::Ip(ip), port) => return Ok(vec![SocketAddr::new(*ip, *port)]),
            Self::Tcp(Host::Name(name, family), port) => (name.as_str(), *family, *port),
        };
        let found = tokio::net::lookup_host((name, port)).await;
        let found = found.map_err(|err| Fault::unreached(&err))?;
        let is_meant = |at: &SocketAddr| match family {
            Family::Any => true,
            Family::V4 => at.is_ipv4(),
            Family::V6 => at.is_ipv6(),
        };
        let found: Vec<_> = found.filter(is_meant).take(max).collect();
        if found.is_empty() {
            return Err(Fault::Unreached("its name has no address".to_owned()));
        }
        Ok(found)
    }
}

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Where to dial.
    pub(super) at: SocketAddr,
    /// The relay that answers there and leads on to the node; `None` if the node itself does.
    pub(super) relay: Option<PeerId>,
}

/// The address that a node tells of another one, in the binary form: where to dial by TCP, if that is allowed for
/// what a node at `teller` tells.
pub(super) fn told(bytes: &[u8], teller: IpAddr) -> Option<Place> {
    if bytes.len() > TEXT_MAX {
        return None;
    }
    let address = Multiaddr::try_from(bytes.to_vec()).ok()?;
    let Read { way: Way::Tcp(Host::Ip(ip), port), relay, .. } = read(&address).ok()? else {
        return None;
    };
    let is_allowed = is_public(ip) || !is_public(teller);
    let is_real = port != 0 && !ip.is_unspecified() && !ip.is_multicast();
    (is_allowed && is_real).then(|| Place { at: SocketAddr::new(ip, port), relay })
}

/// What an address says.
struct Read {
    way: Way,
    /// The relay behind which the node is.
    relay: Option<PeerId>,
    peer: Option<PeerId>,
}

fn read(address: &Multiaddr) -> Result<Read, &'static str> {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Ip6(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Dns(name)) => Host::Name(name.into_owned(), Family::Any),
        Some(Protocol::Dns4(name)) => Host::Name(name.into_owned(), Family::V4),
        Some(Protocol::Dns6(name)) => Host::Name(name.into_owned(), Family::V6),
        Some(Protocol::Dnsaddr(_)) => return Err("it names a list of addresses, a dnsaddr"),
        _ => return Err("it begins with neither /ip4, /ip6 nor /dns"),
    };
    let mut way = match parts.next() {
        Some(Protocol::Tcp(port)) => Some(Way::Tcp(host, port)),
        Some(Protocol::Udp(_)) => None,
        _ => return Err("it has no TCP port"),
    };
    let (mut relay, mut peer) = (None, None);
    for part in parts {
        match part {
            Protocol::P2pCircuit if relay.is_none() && peer.is_some() => relay = peer.take(),
            _ if peer.is_some() => return Err("it goes on behind the node's id"),
            Protocol::Quic | Protocol::QuicV1 if way.is_none() => way = Some(Way::Quic),
            Protocol::P2p(id) if way.is_some() => peer = Some(id),
            _ => return Err("it asks for a transport that is neither TCP nor QUIC"),
        }
    }
    way.map(|way| Read { way, relay, peer }).ok_or("it has no TCP port")
}

/// Whether this address is one of the public Internet, not of a host, a local network or a document.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match (ip.to_ipv4_mapped(), ip.segments()) {
            (Some(ip), _) => is_public_v4(ip),
            // 2000::/3 is all that is given out; 2001:db8::/32 is for documents.
            (None, [first, second, ..]) => {
                first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0xdb8)
            }
        },
    }
}

const fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_reserved = a == 0 || a >= 224 || (a == 198 && b & 0xfe == 18);
    !(is_shared
        || is_reserved
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QM: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";

    #[test]
    fn addresses_that_can_be_dialled_are_read_and_quic_alone_is_known_as_such() {
        for (text, is_tcp) in [
            (format!("/ip4/38.101.215.12/tcp/30011/p2p/{QM}"), true),
            (format!(" /ip6/2a01::1/tcp/1/p2p/{QM}\n"), true),
            (format!("/dns/boot.example/tcp/30011/p2p/{QM}"), true),
            (format!("/dns4/boot.example/tcp/30011/ipfs/{QM}"), true),
            (format!("/ip4/38.101.215.12/udp/30011/quic/p2p/{QM}"), false),
            (format!("/ip4/38.101.215.12/udp/30011/quic-v1/p2p/{QM}"), false),
        ] {
            let node: Bootnode = text.parse().expect(&text);
            assert_eq!(node.peer(), QM);
            assert_eq!(node.to_string(), text.trim());
            assert_eq!(matches!(node.way, Way::Tcp(..)), is_tcp, "{text}");
        }
    }

    #[test]
    fn what_is_no_bootnode_is_refused_with_the_reason() {
        let long = format!("/dns/{}/tcp/1/p2p/{QM}", "x".repeat(600));
        for (text, why) in [
            ("", "neither /ip4"),
            ("38.101.215.12:30011", "multiaddress"),
            ("/ip4/38.101.215.12/tcp/30011", "the node's id"),
            ("/ip4/38.101.215.12/tcp/70000", "multiaddress"),
            (&format!("/ip4/1.2.3.4/p2p/{QM}"), "no TCP port"),
            (&format!("/ip4/1.2.3.4/udp/1/p2p/{QM}"), "neither TCP nor QUIC"),
            ("/ip4/1.2.3.4/udp/1", "no TCP port"),
            (&format!("/ip4/1.2.3.4/tcp/1/ws/p2p/{QM}"), "neither TCP nor QUIC"),
            (&format!("/dnsaddr/boot.example/p2p/{QM}"), "dnsaddr"),
            (&format!("/unix/x/p2p/{QM}"), "multiaddress|neither /ip4"),
            (&format!("/ip4/1.2.3.4/tcp/1/p2p/{QM}/p2p-circuit/p2p/{QM}"), "relay"),
            (&long, "512"),
        ] {
            let refused = text.parse::<Bootnode>().expect_err(text).to_string();
            assert!(why.split('|').any(|why| refused.contains(why)), "{text}: {refused}");
        }
    }

    #[test]
    fn a_stranger_at_a_public_address_sends_nobody_into_a_private_network() {
        let (public, private): (IpAddr, IpAddr) =
            ("38.101.215.12".parse().unwrap(), "192.168.1.7".parse().unwrap());
        for (address, from_public, from_private) in [
            ("/ip4/38.101.215.13/tcp/5", true, true),
            ("/ip6/2a01::1/tcp/5", true, true),
            ("/ip4/127.0.0.1/tcp/5", false, true),
            ("/ip4/10.0.0.1/tcp/5", false, true),
            ("/ip4/169.254.169.254/tcp/80", false, true),
            ("/ip4/100.64.0.1/tcp/5", false, true),
            ("/ip6/::1/tcp/5", false, true),
            ("/ip6/fe80::1/tcp/5", false, true),
            ("/ip6/fd00::1/tcp/5", false, true),
            ("/ip6/::ffff:127.0.0.1/tcp/5", false, true),
            ("/ip4/38.101.215.13/tcp/0", false, false),
            ("/ip4/0.0.0.0/tcp/5", false, false),
            ("/ip4/38.101.215.13/udp/5/quic-v1", false, false),
            ("/dns/localhost/tcp/5", false, false),
            (&format!("/ip4/38.101.215.13/tcp/5/p2p/{QM}/p2p-circuit"), true, true),
            (&format!("/ip4/10.0.0.1/tcp/5/p2p/{QM}/p2p-circuit/p2p/{QM}"), false, true),
            ("/ip4/38.101.215.13/tcp/5/p2p-circuit", false, false),
        ] {
            let bytes = address.parse::<Multiaddr>().unwrap().to_vec();
            assert_eq!(told(&bytes, public).is_some(), from_public, "{address}");
            assert_eq!(told(&bytes, private).is_some(), from_private, "{address}");
            let relay = told(&bytes, private).and_then(|place| place.relay);
            assert_eq!(relay.is_some(), from_private && address.contains("p2p-circuit"));
        }
        assert_eq!(told(&[255; 40], public), None);
    }
}
