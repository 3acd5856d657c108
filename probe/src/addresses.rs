//! Lists the host's own addresses and the networks on its links, from a container in its network namespace.
//!
//! Read from the kernel's tables, so that nothing is missed: also blocks without an address on any interface
//! (`ip route add local …`), and networks that a router has announced. A block that is routed to another host
//! is not listed.
//!
//! Must hold: a block too large for a network of the owner is not listed: it belongs to a tunnel, or to a
//! rule for packets that a proxy marks, and refusing it would refuse the internet.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::Prefix;

/// Where the kernel lists the routes of IPv4, including those to itself.
const V4: &str = "/proc/net/fib_trie";
/// Where it lists the addresses of IPv6; missing where the kernel has no IPv6.
const V6: &str = "/proc/net/if_inet6";
/// Where it lists the routes of IPv6, including those to itself.
const V6_ROUTES: &str = "/proc/net/ipv6_route";

/// Fewest prefix bits of a block that is listed.
const V4_BITS_MIN: u8 = 8;
const V6_BITS_MIN: u8 = 16;

/// `RTF_GATEWAY` and `RTF_REJECT`: the route leads to a router, or nowhere.
const LEADS_AWAY: u32 = 0x0002 | 0x0200;

/// Prints each block on a line.
pub(crate) fn tell() -> Result<(), String> {
    let failed = |err: std::io::Error| format!("the host's addresses can't be read: {err}");
    let mut found = v4(&std::fs::read_to_string(V4).map_err(failed)?);
    if std::fs::exists(V6).map_err(failed)? {
        found.extend(v6(&std::fs::read_to_string(V6).map_err(failed)?));
        found.extend(v6_routes(&std::fs::read_to_string(V6_ROUTES).map_err(failed)?));
    }
    found.retain(|block| {
        block.bits >= if block.address.is_ipv4() { V4_BITS_MIN } else { V6_BITS_MIN }
    });
    found.sort_unstable();
    found.dedup();
    let mut told = std::io::stdout().lock();
    found.iter().try_for_each(|block| writeln!(told, "{block}")).map_err(failed)
}

/// The blocks `|-- 192.0.2.0` whose next lines say `/24 link UNICAST` (no router is between) or
/// `/24 host LOCAL`.
fn v4(table: &str) -> Vec<Prefix> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
            continue;
        }
        let mut words = line.split_whitespace();
        let (bits, scope, kind) = (words.next(), words.next(), words.next());
        let is_ours = kind == Some("LOCAL") || (scope, kind) == (Some("link"), Some("UNICAST"));
        let bits = bits.and_then(|bits| bits.strip_prefix('/')?.parse().ok());
        if let (true, Some(bits), Some(address)) = (is_ours, bits, last) {
            found.push(Prefix { address: address.into(), bits });
        }
    }
    found
}

/// Each address, and the block of its interface that it lies in: 32 hex digits, the interface's number, the
/// block's bits in hex.
fn v6(table: &str) -> Vec<Prefix> {
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let bits = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        Some([block(address, 128), block(address, bits)])
    };
    table.lines().filter_map(read).flatten().collect()
}

/// The blocks without a router before them: 32 hex digits, the block's bits in hex, six more fields, the
/// flags.
fn v6_routes(table: &str) -> Vec<Prefix> {
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let bits = u8::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(6)?, 16).ok()?;
        (flags & LEADS_AWAY == 0).then(|| block(address, bits))
    };
    table.lines().filter_map(read).collect()
}

/// The block with this many prefix bits that has this address.
fn block(address: u128, bits: u8) -> Prefix {
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
    Prefix { address: IpAddr::V6(Ipv6Addr::from(address & mask)), bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &[Prefix]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_hosts_addresses_and_networks_are_found_in_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
            |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 198.51.100.0\n        /24 universe UNICAST\n\
            Local:\n     |-- 127.0.0.0\n        /8 host LOCAL\n        /31 link UNICAST\n     \
            |-- 192.0.2.7\n        /32 host LOCAL tos=4\n     |-- 192.0.2.255\n        \
            /32 link BROADCAST\n     |-- 203.0.113.0\n        /24 host LOCAL\n";
        assert_eq!(
            told(&v4(trie)),
            ["192.0.2.0/24", "127.0.0.0/8", "127.0.0.0/31", "192.0.2.7/32", "203.0.113.0/24"]
        );
        let table = "20010db8000000000000000000000007 02 40 00 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(told(&v6(table)), ["2001:db8::7/128", "2001:db8::/64", "::1/128", "::1/128"]);
        let none = "0".repeat(32);
        let route = |to: &str, bits: &str, flags: &str| {
            format!("{to} {bits} {none} 00 {none} 00000400 00000001 00000000 {flags}     eth0\n")
        };
        let net = "20010db8000100000000000000000000";
        let table = [
            route(net, "40", "00000001"),
            route(net, "30", "00000003"),
            route(&none, "00", "00200200"),
            route(net, "70", "80200001"),
        ];
        assert_eq!(told(&v6_routes(&table.concat())), ["2001:db8:1::/64", "2001:db8:1::/112"]);
    }
}
