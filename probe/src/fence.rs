//! Closes this container's network namespace towards everything but public addresses, then holds it for the
//! job's container that joins it.
//!
//! Uses packet filter rules, since nothing weaker holds: a route that refuses an address stops neither
//! multicast nor a socket that is bound to the interface (`SO_BINDTODEVICE`, `IP_PKTINFO`), for which the
//! kernel assumes that any address is on the link. The job can't change the rules: it has no right over its
//! network (`NET_ADMIN`).
//!
//! Must hold: `ready` is printed only after packets to the start, the middle and the end of each refused
//! prefix were refused or had no route, and from then on this process has no capability. The loopback
//! interface stays open.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::hold;
use crate::netfilter::{Batch, Family, Hook, Verdict, When};
use crate::prefix::Prefix;

/// The loopback interface's index, the same in each namespace.
const LOOPBACK: u32 = 1;
/// Protocol numbers.
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// The header that routes a packet through further addresses.
const ROUTING_HEADER: u8 = 43;
/// The place in IPv6's header that names the next header.
const NEXT_HEADER: u32 = 6;
/// A port where nobody answers; no packet gets there.
const DISCARD: u16 = 9;

/// Sets the rules against these prefixes, and holds the namespace for ever.
pub(crate) fn raise(refused: &[String]) -> Result<(), String> {
    let refused = refused.iter().map(|text| text.parse()).collect::<Result<Vec<Prefix>, _>>()?;
    if refused.is_empty() {
        return Err("no prefix to refuse".to_owned());
    }
    let has_v6 = std::fs::exists("/proc/net/if_inet6").map_err(|err| err.to_string())?;
    let mut batch = Batch::new();
    fence(&mut batch, Family::V4, &refused);
    if has_v6 {
        fence(&mut batch, Family::V6, &refused);
    }
    batch.apply()?;
    for prefix in refused.iter().filter(|prefix| has_v6 || prefix.address.is_ipv4()) {
        prefix.members().into_iter().try_for_each(try_out)?;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(|err| format!("capabilities: {err}"))?;
    let mut told = std::io::stdout();
    told.write_all(b"ready\n").and_then(|()| told.flush()).map_err(|err| err.to_string())?;
    hold::forever()
}

/// One family's rules.
fn fence(batch: &mut Batch, family: Family, refused: &[Prefix]) {
    use Verdict::{Accept, Drop, Reject};
    batch.table(family);
    batch.chain(family, Hook::Output, Accept);
    batch.chain(family, Hook::Input, Drop);
    batch.chain(family, Hook::Forward, Drop);
    batch.rule(family, Hook::Output, &[When::Over(LOOPBACK)], Accept);
    batch.rule(family, Hook::Input, &[When::From(LOOPBACK)], Accept);
    if family == Family::V4 {
        // A redirect counts as an answer, and changes a route.
        let redirect = [When::Protocol(ICMP), When::Kind(5, 5)];
        batch.rule(family, Hook::Input, &redirect, Drop);
    } else {
        // Neighbour solicitations and advertisements, which only the kernel sends: without them, no next hop.
        let neighbours = [When::Protocol(ICMP_V6), When::Kind(135, 136)];
        batch.rule(family, Hook::Input, &neighbours, Accept);
        batch.rule(family, Hook::Output, &neighbours, Accept);
        // And group reports, for a bridge that watches groups.
        let groups = [When::Protocol(ICMP_V6), When::Kind(143, 143)];
        batch.rule(family, Hook::Output, &groups, Accept);
        batch.rule(family, Hook::Output, &[When::Header(NEXT_HEADER, ROUTING_HEADER)], Reject);
    }
    batch.rule(family, Hook::Input, &[When::Answers], Accept);
    for prefix in refused.iter().filter(|prefix| prefix.address.is_ipv4() == (family == Family::V4))
    {
        let (bytes, mask) = prefix.bytes_and_mask();
        batch.rule(family, Hook::Output, &[When::To(bytes, mask)], Reject);
    }
}

/// Sends a packet there; it must be refused, or have no route.
fn try_out(to: IpAddr) -> Result<(), String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0));
    let socket = socket.map_err(|err| format!("{to} can't be tried: {err}"))?;
    match socket.send_to(b"", SocketAddr::new(to, DISCARD)) {
        Err(err)
            if matches!(
                err.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        // Its own loopback, which the rules leave open.
        Ok(_) if to.is_loopback() || to.is_unspecified() => Ok(()),
        sent => Err(format!("{to} is not refused: {sent:?}")),
    }
}
