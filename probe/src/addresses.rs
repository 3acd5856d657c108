//! The host's own addresses, for a container in the host's network namespace.
//!
//! Read from the kernel's tables, so that every address that the host answers to is found, also those without
//! an interface of their own (`ip route add local …`).

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the kernel lists the routes of IPv4, those to itself among them.
const V4: &str = "/proc/net/fib_trie";
/// Where it lists the addresses of IPv6; missing where the kernel has no IPv6.
const V6: &str = "/proc/net/if_inet6";

/// Prints each address on a line.
pub(crate) fn tell() -> Result<(), String> {
    let failed = |err: std::io::Error| format!("the host's addresses can't be read: {err}");
    let mut found = v4(&std::fs::read_to_string(V4).map_err(failed)?);
    if std::fs::exists(V6).map_err(failed)? {
        found.extend(v6(&std::fs::read_to_string(V6).map_err(failed)?));
    }
    found.sort_unstable();
    found.dedup();
    let mut told = std::io::stdout().lock();
    found.iter().try_for_each(|address| writeln!(told, "{address}")).map_err(failed)
}

/// The addresses below `|-- 192.0.2.1` whose route says `host LOCAL`.
fn v4(table: &str) -> Vec<IpAddr> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL") {
            found.extend(last.map(IpAddr::V4));
        }
    }
    found
}

/// The first field of each line: 32 hex digits.
fn v6(table: &str) -> Vec<IpAddr> {
    let first = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    table.lines().filter_map(first).map(|bits| IpAddr::V6(Ipv6Addr::from(bits))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found_in_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
            |-- 192.0.2.0\n        /24 link UNICAST\nLocal:\n     |-- 127.0.0.0\n        /8 host LOCAL\n        \
            /31 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
            /32 link BROADCAST\n";
        let told = v4(trie).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told, ["127.0.0.0", "192.0.2.7"]);
        let table = "20010db8000000000000000000000007 02 40 00 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        let told = v6(table).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told, ["2001:db8::7", "::1"]);
    }
}
